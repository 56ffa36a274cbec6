"""Whether a batch gives what single pictures give, for an encoder whose inputs differ in size.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from benchmarks.extract_gpu_budget import Budget
from benchmarks.extract_ours import Request, load_ours
from mmcot_data.encoders.base import Encoder, Precision
from mmcot_data.images import decode_rgb

__all__ = ["measure_batches"]

_NUM_SIZES = 6
_NUM_EQUAL = 8
_STRIDE = 32


def measure_batches(
    budget: Budget, request: Request, precisions: Sequence[Precision | Literal["auto"]]
) -> None:
    """Compare equal pictures, and pictures padded to one size, with each of them alone."""
    measured = set()
    for precision in precisions:
        encoder = load_ours(request, precision).encoder
        chosen = encoder.describe()["precision"]
        if chosen in measured:
            continue
        measured.add(chosen)
        pictures = _of_different_sizes(encoder, request.pictures.paths)
        alone_BPD = torch.cat([encoder.start(item[None])() for item in pictures])
        cases = {"equal size": (_equal(encoder, pictures[0]), alone_BPD[:1])}
        if encoder.pads:
            cases["padded to one size"] = (_padded(encoder, pictures), alone_BPD)
        if len(pictures) > 1:
            cases["scale: another picture"] = (alone_BPD[1:], alone_BPD[:-1])
        for case, (found_BPD, expected_BPD) in cases.items():
            difference_BPD = found_BPD - expected_BPD
            norm = expected_BPD.expand_as(found_BPD).norm()
            budget.emit(
                "batch against single pictures",
                encoder=request.model.encoder,
                precision=chosen,
                case=case,
                sizes=[list(item.shape[1:]) for item in pictures],
                relative_error=float(f"{difference_BPD.norm() / norm:.2e}"),
                largest=float(f"{difference_BPD.abs().max():.2e}"),
            )


def _of_different_sizes(encoder: Encoder, paths: Sequence[Path]) -> list[torch.Tensor]:
    found: dict[tuple[int, ...], torch.Tensor] = {}
    for path in paths:
        pixels_CHW = encoder.prepare(decode_rgb(path.read_bytes(), str(path)))
        found.setdefault(tuple(pixels_CHW.shape), pixels_CHW)
        if len(found) == _NUM_SIZES:
            break
    return list(found.values())


def _equal(encoder: Encoder, pixels_CHW: torch.Tensor) -> torch.Tensor:
    return encoder.start(pixels_CHW.expand(_NUM_EQUAL, -1, -1, -1).contiguous())()


def _padded(encoder: Encoder, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
    sizes = [(int(item.shape[1]), int(item.shape[2])) for item in pictures]
    height, width = (-(-max(sides) // _STRIDE) * _STRIDE for sides in zip(*sizes, strict=True))
    pixels_BCHW = pictures[0].new_zeros((len(pictures), 3, height, width))
    for padded_CHW, item in zip(pixels_BCHW, pictures, strict=True):
        padded_CHW[:, : item.shape[1], : item.shape[2]] = item
    return encoder.start(pixels_BCHW, sizes)()
