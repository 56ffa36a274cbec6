"""Where and how precisely a model computes."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from mmcot_data.encoders.base import Precision
from mmcot_data.errors import EncoderError

__all__ = ["computing", "find_device"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


@contextmanager
def computing(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute without gradients: in strict float32, or in autocast of the given precision.

    Strict means without TF32, which torch allows in convolutions unless told otherwise. The
    process's own setting is restored.
    """
    cudnn: Any = torch.backends.cudnn  # "conv" is added at run time
    matmul, convolution = torch.backends.cuda.matmul, cudnn.conv
    before = matmul.fp32_precision, convolution.fp32_precision
    half = _DTYPES.get(precision)
    autocast = nullcontext() if half is None else torch.autocast(device.type, dtype=half)
    matmul.fp32_precision = convolution.fp32_precision = "ieee"
    try:
        with torch.inference_mode(), autocast:
            yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before
