"""Where and how precisely a model computes."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, get_args

import torch

from mmcot_data.encoders.base import Precision
from mmcot_data.encoders.cpu import fp32_matmul, has_fast_bf16, read_cpu
from mmcot_data.errors import EncoderError

__all__ = [
    "HALF_DTYPES",
    "check_precision",
    "computing",
    "describe_device",
    "fast_precisions",
    "find_device",
]

HALF_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_AMPERE = (8, 0)
"""Compute capability of the first GPUs with bf16 and TF32."""


def find_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        EncoderError: If there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise EncoderError(f"the device {name!r} cannot be used: {reason}") from error
    return device


def describe_device(device: torch.device) -> dict[str, Any]:
    """What computes, as JSON values."""
    facts: dict[str, Any] = {"device": str(device), "device_name": read_cpu().name}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        facts |= {
            "device_name": torch.cuda.get_device_name(device),
            "compute_capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
        }
    elif device.type == "cpu":
        facts |= {
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "fp32_matmul": fp32_matmul(),
        }
    return facts


def check_precision(device: torch.device, precision: Precision) -> None:
    """Refuse a precision that a device has not.

    Raises:
        EncoderError: If it is unknown, or TF32 on another device than a GPU of NVIDIA.
    """
    if precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise EncoderError(f"there is no precision {precision!r}: expected {known} or auto")
    if precision == "tf32" and device.type != "cuda":
        raise EncoderError(
            f"tf32 is a precision of CUDA devices, and this is {device.type}: use fp32 or auto"
        )


def fast_precisions(device: torch.device) -> tuple[Precision, ...]:
    """What a device computes well, fastest first; the last is always fp32."""
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= _AMPERE:
            return "fp16", "bf16", "tf32", "fp32"
        return "fp16", "fp32"
    if device.type == "cpu" and has_fast_bf16():
        return "bf16", "fp32"
    return ("fp32",)


@contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute without gradients, in strict float32, TF32, or autocast of bf16 or fp16.

    Strict means that no operation on float32 computes with fewer bits, which torch allows in
    convolutions unless told otherwise, and elsewhere if the process asked for it. The process's
    own settings are restored.
    """
    half = HALF_DTYPES.get(precision)
    autocast = nullcontext() if half is None else torch.autocast(device.type, dtype=half)
    with _fp32_rounding(precision), torch.inference_mode(), autocast:
        yield


@contextmanager
def _fp32_rounding(precision: Precision) -> Iterator[None]:
    backends: Any = torch.backends  # some of these are added at run time
    cuda = "tf32" if precision == "tf32" else "ieee"
    settings = (
        (backends.cuda.matmul, cuda),
        (backends.cudnn.conv, cuda),
        (backends.mkldnn.matmul, "bf16" if fp32_matmul() == "onednn" else "ieee"),
        (backends.mkldnn.conv, "ieee"),
    )
    before = [setting.fp32_precision for setting, _ in settings]
    try:
        for setting, value in settings:
            setting.fp32_precision = value
        yield
    finally:
        for (setting, _), value in zip(settings, before, strict=True):
            setting.fp32_precision = value
