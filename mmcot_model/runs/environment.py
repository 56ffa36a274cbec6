"""What a run was made with: machine, libraries, and the state of the code. No names of hosts."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["environment", "git_state"]

_DISTRIBUTIONS = (
    "mmcot",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "safetensors",
    "huggingface-hub",
    "numpy",
    "polars",
    "pyarrow",
    "h5py",
)
_GIT_SECONDS = 30


def environment() -> dict[str, Any]:
    """What this process runs on, as JSON values.

    Python, platform, processor and cores, GPUs, CUDA, versions of libraries (null: not installed),
    the commits of mmcot's checkout and of the working directory's repository, the command line with
    ``~`` for the home folder, and how many processes torchrun started.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": _num_cores(),
        **_accelerator(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "versions": {name: _version(name) for name in _DISTRIBUTIONS},
        "git": {"mmcot": _own_git_state(), "working directory": git_state(Path.cwd())},
        "command": _command(),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit that a folder's repository has checked out.

    Returns:
        ``commit``, its full id or None before the first, and ``dirty``: whether tracked files
        differ from it. None if the folder is in no repository, or git is not there.
    """
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if status is None:
        return None
    return {"commit": _git(folder, "rev-parse", "--verify", "HEAD"), "dirty": status != ""}


def _own_git_state() -> dict[str, Any] | None:
    """That of the checkout that mmcot runs from; None if it is installed."""
    root = Path(__file__).resolve().parents[2]
    top = _git(root, "rev-parse", "--show-toplevel")
    return git_state(root) if top is not None and Path(top).resolve() == root else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        finished = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_GIT_SECONDS,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None


def _cpu() -> str:
    """The processor's name where Linux tells it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerator() -> dict[str, Any]:
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"gpus": names, "cuda": torch.version.cuda if names else None}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _command() -> str:
    home = str(Path.home())
    program, *arguments = sys.argv or [""]
    words = [Path(program).name, *arguments]
    if len(home) > 1:
        words = [word.replace(f"{home}/", "~/") for word in words]
    return shlex.join(words)
