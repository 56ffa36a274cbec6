"""The stages of an extraction by themselves, on whatever device.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = width.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.extract_models import Model
from benchmarks.extract_ours import Ours
from benchmarks.extract_timing import describe_machine
from mmcot_data.extraction.prepare import open_pictures, scan_source
from mmcot_data.extraction.shard import ReadyBatch
from mmcot_data.shards.writer import cast_features, write_shard

__all__ = [
    "describe_device",
    "plain_forward_seconds",
    "scan_seconds",
    "time_device",
    "transfer_seconds",
    "write_seconds",
]

_NUM_TRANSFERRED = 16
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def describe_device(device: str) -> dict[str, Any]:
    """What computes, and what decodes."""
    machine = describe_machine()
    if torch.device(device).type != "cuda":
        return {**machine, "device": device}
    properties = torch.cuda.get_device_properties(device)
    return {
        **machine,
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def time_device(device: str, run: Callable[[], object]) -> float:
    """Seconds until the device has done what ``run`` asks of it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def plain_forward_seconds(
    model: nn.Module, weights: Model, batches: Sequence[ReadyBatch], device: str, precision: str
) -> float:
    """The model of transformers on batches that are normalised and on the device already."""
    seconds = 0.0
    with torch.inference_mode(), _computing(device, precision):
        for batch in batches:
            pixels_BCHW = weights.normalize(batch.pixels_BCHW.to(device))
            seconds += time_device(device, lambda: model(pixel_values=pixels_BCHW))  # noqa: B023
    return seconds


@contextmanager
def _computing(device: str, precision: str) -> Iterator[None]:
    """Independent of how the encoders do it, so that it can't be wrong in the same way."""
    cudnn: Any = torch.backends.cudnn
    fp32 = "tf32" if precision == "tf32" else "ieee"
    before = torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = cudnn.conv.fp32_precision = fp32
    half = _HALVES.get(precision)
    kind = torch.device(device).type
    try:
        with nullcontext() if half is None else torch.autocast(kind, dtype=half):
            yield
    finally:
        torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision = before


def transfer_seconds(ours: Ours, batches: Sequence[ReadyBatch]) -> float:
    """Pixels to the device and float32 features back, both from and to pinned memory.

    Computed from some of the batches.
    """
    device = ours.request.device
    if torch.device(device).type != "cuda":
        return 0.0
    shape = ours.plan.spec.row_shape
    step = -(-len(batches) // _NUM_TRANSFERRED)
    pinned = [batch.pixels_BCHW.pin_memory() for batch in batches[::step]]
    scale = sum(batch.pixels_BCHW.nbytes for batch in batches) / sum(p.nbytes for p in pinned)
    features = [torch.empty((len(pixels), *shape), device=device) for pixels in pinned]
    outs = [torch.empty(item.shape, pin_memory=True) for item in features]

    def transfer() -> None:
        for pixels_BCHW, features_BPD, out_BPD in zip(pinned, features, outs, strict=True):
            pixels_BCHW.to(device, non_blocking=True)
            out_BPD.copy_(features_BPD, non_blocking=True)

    transfer()
    return scale * time_device(device, transfer)


def scan_seconds(ours: Ours) -> float:
    """Read, hash, and look at the header of every picture."""
    return time_device("cpu", lambda: scan_source(open_pictures(ours.config)))


def write_seconds(ours: Ours, folder: Path) -> float:
    """Check, cast and write as many features as there are, shard by shard."""
    spec = ours.plan.spec
    noise = np.random.default_rng(0)
    seconds = 0.0
    for shard in ours.plan.shards:
        N = len(shard.images)
        features_NPD = noise.standard_normal((N, *spec.row_shape), np.float32)
        digests = np.zeros((N, 32), np.uint8)
        start = time.perf_counter()
        cast_NPD = cast_features(features_NPD, spec.dtype, [""] * N)
        write_shard(folder / shard.file, cast_NPD, digests, spec)
        seconds += time.perf_counter() - start
    return seconds
