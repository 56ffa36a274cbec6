"""Compare rows that were extracted anew with the stored ones, and say what is wrong with which.

Shape suffixes: B = batch, P = patches, D = feature width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from mmcot_data.encoders.base import Encoder
from mmcot_data.encoders.precision import AdjustableEncoder
from mmcot_data.errors import EncoderError
from mmcot_data.extraction.drawn_rows import DrawnRow
from mmcot_data.shards.schema import FeatureSpec
from mmcot_data.shards.shard_verification import Finding

__all__ = ["ComparedRow", "compare_rows", "estimate_tolerance", "list_problems"]

_FP32_ERROR = 1e-4
"""Between two computations in strict float32: other batches, threads, kernels, devices."""
_MARGIN = 2.0
"""Of rows over the batch whose rounding is measured, and of devices over the one that measures."""
_SAME_SIGNIFICAND: Mapping[str, Any] = {"tf32": "fp16"}
"""What every device has and rounds as coarsely as what only some have."""
_NUM_LISTED = 5

_Trouble = Literal["picture", "pixels", "features"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRow:
    """What came of one row."""

    row: DrawnRow
    error: float | None = None
    """||new - stored|| / ||stored||; None if the picture could not be extracted anew."""
    is_equal: bool = False
    """Whether the new features have the stored ones' bits."""
    trouble: _Trouble | None = None
    """What differs first on the way to the features: the picture's file, the pixels that it
    decodes to, or only the features. The latter is found by ``list_problems``."""
    reason: str = ""
    """The explanation of a trouble with the picture or its pixels."""


def compare_rows(
    found_BPD: npt.NDArray[np.floating[Any]], stored_BPD: npt.NDArray[np.floating[Any]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Relative error of each row, and whether its bits are equal.

    Args:
        found_BPD: Features in the storage dtype.
        stored_BPD: The stored ones.

    Returns:
        Errors (B,), relative to the norm of what is stored, or of what is found if that is zero;
        and equalities (B,).
    """
    bits = f"u{stored_BPD.itemsize}"
    is_equal_B = (found_BPD.view(bits) == stored_BPD.view(bits)).all(axis=(1, 2))
    found, stored = (x.astype(np.float64).reshape(len(x), -1) for x in (found_BPD, stored_BPD))
    distance_B = np.linalg.norm(found - stored, axis=1)
    norm_B = np.linalg.norm(stored, axis=1)
    norm_B[norm_B == 0] = np.linalg.norm(found, axis=1)[norm_B == 0]
    norm_B[norm_B == 0] = 1.0
    return distance_B / norm_B, is_equal_B


def estimate_tolerance(encoder: Encoder, spec: FeatureSpec, pixels_BCHW: torch.Tensor) -> float:
    """The largest relative error of a row that rounding explains.

    It allows for the rounding of both sides to the storage dtype, for the differences between
    float32 computations, and where the precision is a lower one, for what it was measured to cost
    when the features were made, and costs on this batch now.

    Args:
        encoder: The encoder that computes now.
        spec: What made the features.
        pixels_BCHW: A batch as ``Encoder.start`` takes it.

    Raises:
        EncoderError: If the precision's rounding can't be measured.
    """
    exact = _FP32_ERROR + float(np.finfo(spec.dtype).eps)
    if spec.precision == "fp32":
        return exact
    now = _measure_error(encoder, spec.precision, pixels_BCHW)
    made = now if spec.precision_error is None else spec.precision_error
    return exact + _MARGIN * (made + now)


def list_problems(
    compared: Sequence[ComparedRow], tolerance: float, spec: FeatureSpec
) -> list[Finding]:
    """What is wrong, one finding for each shard and each kind of trouble.

    Args:
        compared: The rows.
        tolerance: The largest error of features that are right.
        spec: What made the features.
    """
    groups: dict[tuple[str, _Trouble], list[ComparedRow]] = {}
    for item in compared:
        trouble = item.trouble
        if trouble is None and item.error is not None and not item.error <= tolerance:
            trouble = "features"
        if trouble is not None:
            groups.setdefault((item.row.shard, trouble), []).append(item)
    drawn = {shard: sum(item.row.shard == shard for item in compared) for shard, _ in groups}
    return [
        Finding(
            file=shard,
            message=_explain(trouble, items, drawn[shard], tolerance, spec),
            rows=tuple(item.row.row for item in items),
            question_ids=tuple(name for item in items for name in item.row.question_ids),
        )
        for (shard, trouble), items in groups.items()
    ]


def _explain(
    trouble: _Trouble,
    items: Sequence[ComparedRow],
    num_drawn: int,
    tolerance: float,
    spec: FeatureSpec,
) -> str:
    counted = f"{len(items)} of {num_drawn} rows drawn from it"
    if trouble == "picture":
        text = (
            f"{counted} can't be extracted anew, because the data set does not have the pictures "
            "that they were made of; bring them back, or give the data set of the extraction"
        )
    elif trouble == "pixels":
        pillow = spec.versions.get("pillow", "of an unknown version")
        text = (
            f"{counted} are of pictures whose files are the same and decode to other pixels now: "
            f"the decoder differs, not the model. Pillow {pillow} made the features"
        )
    else:
        text = (
            f"{counted} differ from what their pictures give now, by more than rounding explains "
            f"(relative error {tolerance:.1e}). Files, pixels and model are the same: these rows "
            "are of other pictures, or were computed wrongly; make the feature set anew"
        )
    lines = [f"  {item.row.name}: {_detail(item)}" for item in items[:_NUM_LISTED]]
    if len(items) > _NUM_LISTED:
        lines.append(f"  and {len(items) - _NUM_LISTED} more")
    return "\n".join([text, *lines])


def _detail(item: ComparedRow) -> str:
    error = [] if item.error is None else [f"relative error {item.error:.2e}"]
    return "; ".join([*([item.reason] if item.reason else []), *error])


def _measure_error(encoder: Encoder, precision: str, pixels_BCHW: torch.Tensor) -> float:
    """Of a precision against fp32, on this device."""
    if not isinstance(encoder, AdjustableEncoder):
        raise EncoderError(
            f"the encoder {encoder.name} has only one precision: how much its rounding in "
            f"{precision} changes features can't be measured"
        )
    coarse = encoder.at_precision(_SAME_SIGNIFICAND.get(precision, precision))
    exact = encoder.at_precision("fp32").start(pixels_BCHW)()
    error = float((coarse.start(pixels_BCHW)() - exact).norm() / exact.norm())
    if not np.isfinite(error):
        raise EncoderError(
            f"{encoder.name} gives features in {precision} that are not finite on this device: "
            "what was computed with it can't be compared here; take a device that has it"
        )
    return error
