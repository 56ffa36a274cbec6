"""A host of large files that cuts every connection after a few megabytes."""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["CuttingHost", "HostedFile", "serve"]

_BLOCK_NBYTES = 2**18


@dataclass(frozen=True, kw_only=True)
class HostedFile:
    """What is at a path: a file, or the way to it."""

    file: Path | None = None
    redirect: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class CuttingHost(ThreadingHTTPServer):
    """Made by ``serve``."""

    daemon_threads = True

    def __init__(self, cut_after: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cut_after = cut_after
        self.files: dict[str, HostedFile] = {}
        self.num_cuts = 0
        self.num_requests = 0
        self.num_sent = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may go away."""


@contextmanager
def serve(cut_after: int) -> Iterator[CuttingHost]:
    """Serve for as long as the block; every answer ends after ``cut_after`` bytes of its body."""
    with CuttingHost(cut_after) as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield host
        finally:
            host.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: CuttingHost
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        with self.server.lock:
            self.server.num_requests += 1
        found = self.server.files.get(self.path)
        if found is None:
            self._head(404, {"Content-Length": "0"})
        elif found.file is None:
            location = {"Location": found.redirect or "", "Content-Length": "0"}
            self._head(302, location | dict(found.headers))
        else:
            self._send(found.file)

    def _send(self, file: Path) -> None:
        size = file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(asked[1]) if asked else 0
        headers = {
            "Content-Length": str(size - start),
            "ETag": f'"{file.name}-{size}"',
            "Accept-Ranges": "bytes",
        }
        if asked:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self._head(206 if asked else 200, headers)
        if self.command == "HEAD":
            return
        end = min(size, start + self.server.cut_after)
        with file.open("rb") as content:
            content.seek(start)
            for place in range(start, end, _BLOCK_NBYTES):
                self.wfile.write(content.read(min(_BLOCK_NBYTES, end - place)))
        with self.server.lock:
            self.server.num_sent += end - start
            self.server.num_cuts += end < size
        self.close_connection = end < size

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
