"""Several processes of one run, as torchrun starts them."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

__all__ = ["gather_everywhere", "is_main", "local_device", "num_processes", "rank", "wait_for_all"]

_T = TypeVar("_T")


def rank() -> int:
    """The number of this process; 0 writes the files."""
    return int(os.environ.get("RANK", "0"))


def num_processes() -> int:
    """How many processes make the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


def local_device() -> "torch.device":
    """The device of this process."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def wait_for_all() -> None:
    """Return when every process has come here."""
    if num_processes() > 1:
        import torch

        _connect()
        torch.distributed.barrier()


def gather_everywhere(items: Sequence[_T]) -> list[_T]:
    """The items of all processes, in the order of their ranks, in each of them."""
    if num_processes() == 1:
        return list(items)
    import torch

    _connect()
    parts: list[list[_T]] = [[] for _ in range(num_processes())]
    torch.distributed.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def _connect() -> None:
    """Join the process group, as the trainer would."""
    import torch
    from accelerate import PartialState

    if not torch.distributed.is_initialized():
        PartialState(cpu=not torch.cuda.is_available())
