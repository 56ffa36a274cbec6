"""Tell that memory was short from other errors, and make room."""

import gc

import torch

__all__ = ["is_out_of_memory", "make_room"]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a model's computation failed because memory was short.

    torch has an error of its own for GPUs. On a CPU its allocator raises a RuntimeError that only
    its text tells apart.
    """
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: " in str(error)
    )


def make_room() -> None:
    """Give memory back that is held and not used: by cycles of objects, and by torch on a GPU."""
    gc.collect()
    torch.cuda.empty_cache()  # of no effect where CUDA is not in use
