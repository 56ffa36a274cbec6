"""Plugin of Prefect (entry-point group ``prefect.plugins``): this project's short spellings.

``import prefect`` runs the hook before Prefect's command line reads ``sys.argv``, and so two
spellings can be completed there; nothing of Prefect is patched.

* ``prefect deployment run extract-features``, and ``inspect`` and ``delete``: Prefect wants
  ``FLOW/DEPLOYMENT``. Here every flow has one deployment of its own name, so the name is doubled.
* ``prefect deploy`` is given ``--prefect-file flows.yaml`` where the working directory has a
  flows.yaml and no prefect.yaml; with ``--all`` also ``--no-prompt``, since the file says all that
  Prefect would ask.

It also asks that no usage data be sent, unless the user has an opinion. That comes after the first
of Prefect's own steps, which prints a notice the first time a user imports it in a terminal; what
would be sent then is up to ``[tool.prefect.server] analytics_enabled`` of pyproject.toml.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prefect.plugins import HookContext, register_hook

__all__ = ["DEPLOYMENTS", "PREFECT_PLUGIN_API_REQUIRES", "complete", "setup_environment"]

PREFECT_PLUGIN_API_REQUIRES = ">=0.1,<1"
"""Read by Prefect: versions of its plugin interface that this module fits."""

DEPLOYMENTS = (
    "download-scienceqa",
    "extract-features",
    "caption-images",
    "generate-rationales",
    "prepare-data",
)
"""Those of flows.yaml: names of flows and of their deployments at once."""

_FILE = "flows.yaml"
_BY_NAME = ("run", "inspect", "delete")
_WITH_VALUE = (
    *("--id", "--param", "-p", "--params", "--job-variable", "-jv", "--start-in", "--start-at"),
    *("--tag", "--watch-interval", "--watch-timeout", "--flow-run-name", "--output", "-o"),
)


def complete(argv: Sequence[str], cwd: Path) -> list[str]:
    """Write out the short spellings of a command line.

    Args:
        argv: The program's name and its arguments.
        cwd: The working directory.
    """
    completed = list(argv)
    start = _skip_global_options(completed)
    match completed[start:]:
        case ["deployment" | "deployments", verb, *_] if verb in _BY_NAME:
            for place in range(start + 2, len(completed)):
                name = completed[place]
                if name in DEPLOYMENTS and completed[place - 1] not in _WITH_VALUE:
                    completed[place] = f"{name}/{name}"
                    break
        case ["deploy", *options] if not _names_file(options) and _has_only_ours(cwd):
            completed += ["--prefect-file", _FILE]
            if "--all" in options and not {"--prompt", "--no-prompt"} & set(completed):
                completed.append("--no-prompt")
    return completed


@register_hook
def setup_environment(*, ctx: HookContext) -> None:  # noqa: ARG001  (Prefect's signature)
    """Ask not to be tracked; complete the command line, if this process is Prefect's command."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if _is_prefect_command(sys.argv, sys.orig_argv):
        sys.argv[:] = complete(sys.argv, Path.cwd())


def _is_prefect_command(argv: Sequence[str], orig_argv: Sequence[str]) -> bool:
    if argv[:1] == ["-m"]:  # what `python -m prefect` has there while it imports prefect
        return "prefect" in orig_argv[orig_argv.index("-m") + 1 :][:1]
    return bool(argv) and Path(argv[0]).name in ("prefect", "prefect.exe")


def _skip_global_options(argv: Sequence[str]) -> int:
    """Place of the command in ``prefect --profile NAME COMMAND``."""
    place = 1
    while place < len(argv) and argv[place].startswith("-"):
        place += 2 if argv[place] in ("--profile", "-p") else 1
    return place


def _has_only_ours(cwd: Path) -> bool:
    return (cwd / _FILE).is_file() and not (cwd / "prefect.yaml").exists()


def _names_file(options: Sequence[str]) -> bool:
    return any(option.partition("=")[0] == "--prefect-file" for option in options)
