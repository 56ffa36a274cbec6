"""Which hosts the processes of a test look up or connect to, children of children included."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Lookup", "read_lookups", "record_lookups"]

# Python imports it at its start, before anything else, from a folder on PYTHONPATH. Audit hooks
# can't be removed, and each line is one write.
_SITECUSTOMIZE = """\
import os, sys

_file = os.open(os.environ["MMCOT_TEST_LOOKUPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def _record(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else ""
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host or "")
    if host:
        command = " ".join(sys.orig_argv).replace("\\n", " ")
        os.write(_file, f"{host}\\t{command}\\n".encode())

sys.addaudithook(_record)
"""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Lookup:
    """A host that a process asked for."""

    host: str
    command: str

    @property
    def is_outside(self) -> bool:
        return self.host not in _LOOPBACK


def record_lookups(folder: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables with which every Python process notes what it looks up.

    Args:
        folder: For the notes.
        environment: Has the PYTHONPATH that is to be kept.
    """
    hook = folder / "lookups"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    path = os.pathsep.join(filter(None, [str(hook), environment.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "MMCOT_TEST_LOOKUPS": str(hook / "found.txt")}


def read_lookups(folder: Path) -> Iterator[Lookup]:
    """What the processes noted; the file is there as soon as one has started."""
    for line in (folder / "lookups" / "found.txt").read_text().splitlines():
        yield Lookup(*line.split("\t", 1))
