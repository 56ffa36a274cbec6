"""Which arithmetic a device computes in; weights and optimizer states are float32 in any case."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from mmcot_data.errors import TrainingError
from mmcot_model.distributed import local_device

__all__ = ["autocast", "choose_precision", "uses_bf16"]

_BF16_CAPABILITY = (8, 0)


def choose_precision(precision: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """What ``precision`` means on a device.

    ``auto`` takes bf16 on GPUs with units for it, and fp32 elsewhere. On a processor bf16 is never
    chosen unasked: with AMX it makes a model of t5-small's size faster and a tiny one slower,
    without AMX it is slow, and the same command should give the same results on any of them.

    Args:
        precision: ``auto``, ``fp32`` or ``bf16``.
        device: Where the model is.

    Raises:
        TrainingError: If bf16 is asked for and the device has no units for it.
        ValueError: If the precision is unknown.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision is {precision!r}, expected auto, fp32 or bf16")
    if precision == "fp32" or (precision == "auto" and device.type == "cpu"):
        return "fp32"
    if device.type == "cpu" or _has_bf16_units(device):
        return "bf16"
    if precision == "auto":
        return "fp32"
    raise TrainingError(
        f"bf16 was asked for, and {_describe(device)} has no units for it: expected a CUDA device "
        "of compute capability 8.0 or more (A100, RTX 30 and later), or the processor; give "
        "--precision fp32"
    )


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Compute in what ``choose_precision`` says while the context lasts.

    Within ``torch.no_grad()`` weights are converted once a context; ``torch.inference_mode()``
    keeps autocast from remembering them, and every token of a generated text then waits for all
    weights to be converted again.
    """
    bf16 = choose_precision(precision, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def uses_bf16(precision: str) -> bool:
    """Whether this process trains in bf16; for the trainer's arguments."""
    return choose_precision(precision, local_device()) == "bf16"


def _has_bf16_units(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY


def _describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
