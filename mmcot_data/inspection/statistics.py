"""Statistics of patch features, in one pass and little memory.

Shape suffixes: N = images, P = patches, D = feature width, V = the patches of all images.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError

__all__ = ["FeatureStatistics", "ValueStatistics", "feature_statistics"]

_PIECE_SIZE = 1 << 18
"""Values looked at together: 2 MiB as float64, which stay in a processor's cache."""
_MAX_LISTED = 5

_Floats = npt.NDArray[np.float64]
_T = TypeVar("_T", float, _Floats)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ValueStatistics(Generic[_T]):
    """Numbers, or arrays (D,) with one number for each feature dimension."""

    mean: _T
    std: _T
    """Of the population: the squares are divided by their number, not by one less."""
    zero_share: _T
    """Of the values, from 0 to 1."""
    minimum: _T
    maximum: _T


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FeatureStatistics:
    """What the values of a feature set look like.

    Where a dimension has values that are not finite, its statistics may not be finite either.
    """

    num_rows: int
    num_patches: int
    """Of all rows together."""
    dimensions: ValueStatistics[_Floats]
    """Of each feature dimension, over all patches."""
    overall: ValueStatistics[float]
    """Of all values, whatever their dimension."""
    num_not_finite: int
    """Values that are NaN or infinite."""
    not_finite_rows: tuple[tuple[int, int], ...]
    """The first five rows with such values: number of the block and of the row in it, from 0."""

    @property
    def num_constant(self) -> int:
        """Feature dimensions with one value in all patches."""
        return int((self.dimensions.minimum == self.dimensions.maximum).sum())


def feature_statistics(
    blocks: Iterable[npt.NDArray[np.floating[Any]]],
    on_progress: Callable[[int], None] | None = None,
) -> FeatureStatistics:
    """Mean, spread and range of every feature dimension and of all values together.

    Exact to the rounding of float64, also where the mean is large beside the spread: pieces are
    merged by the rule of Chan, Golub and LeVeque (1979, "Updating Formulae and a Pairwise
    Algorithm for Computing Sample Variances").

    Args:
        blocks: Features (N, P, D), float16 or float32, with the same D; of a memory map only one
            piece at a time is converted.
        on_progress: Called after every block with the number of rows so far.

    Raises:
        ShardError: If there is not one row.
    """
    total: _Moments | None = None
    num_rows = num_not_finite = 0
    not_finite_rows: dict[tuple[int, int], None] = {}
    for number, block_NPD in enumerate(blocks):
        N, P, D = block_NPD.shape
        block_VD = block_NPD.reshape(-1, D)
        step = max(1, _PIECE_SIZE // D)
        for start in range(0, len(block_VD), step):
            piece_VD = block_VD[start : start + step]
            with np.errstate(invalid="ignore"):
                moments = _Moments.of(piece_VD)
                total = moments if total is None else total.merge(moments)
            if not moments.are_finite:
                patches, _ = np.nonzero(~np.isfinite(piece_VD))
                num_not_finite += len(patches)
                rows = np.unique((start + patches) // P)[:_MAX_LISTED].tolist()
                not_finite_rows |= dict.fromkeys((number, row) for row in rows)
        num_rows += N
        if on_progress is not None:
            on_progress(num_rows)
    if total is None:
        raise ShardError("there are no features to describe: expected at least one row, found none")
    with np.errstate(invalid="ignore"):
        overall = total.overall()
    return FeatureStatistics(
        num_rows=num_rows,
        num_patches=total.count,
        dimensions=total.dimensions(),
        overall=overall,
        num_not_finite=num_not_finite,
        not_finite_rows=tuple(not_finite_rows)[:_MAX_LISTED],
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Moments:
    """Sums over ``count`` patches, as arrays (D,)."""

    count: int
    mean: _Floats
    squares: _Floats
    """Sum of the squared deviations from the mean."""
    zeros: npt.NDArray[np.int64]
    minimum: _Floats
    maximum: _Floats

    @classmethod
    def of(cls, patches_VD: npt.NDArray[np.floating[Any]]) -> Self:
        values_VD = patches_VD.astype(np.float64)
        minimum, maximum = values_VD.min(axis=0), values_VD.max(axis=0)
        zeros = (values_VD == 0).sum(axis=0)
        mean = values_VD.mean(axis=0)
        values_VD -= mean
        return cls(
            count=len(values_VD),
            mean=mean,
            squares=np.einsum("vd,vd->d", values_VD, values_VD),
            zeros=zeros,
            minimum=minimum,
            maximum=maximum,
        )

    def merge(self, other: "_Moments") -> "_Moments":
        count = self.count + other.count
        step = other.mean - self.mean
        between = step**2 * (self.count * other.count / count)
        return _Moments(
            count=count,
            mean=self.mean + step * (other.count / count),
            squares=self.squares + other.squares + between,
            zeros=self.zeros + other.zeros,
            minimum=np.minimum(self.minimum, other.minimum),
            maximum=np.maximum(self.maximum, other.maximum),
        )

    @property
    def are_finite(self) -> bool:
        """Whether all values are: a NaN is the minimum of all that it stands among."""
        return bool(np.isfinite(self.minimum).all() and np.isfinite(self.maximum).all())

    def dimensions(self) -> ValueStatistics[_Floats]:
        return ValueStatistics(
            mean=self.mean,
            std=np.sqrt(self.squares / self.count),
            zero_share=self.zeros / self.count,
            minimum=self.minimum,
            maximum=self.maximum,
        )

    def overall(self) -> ValueStatistics[float]:
        mean = self.mean.mean()
        variances = self.squares / self.count + (self.mean - mean) ** 2
        return ValueStatistics(
            mean=float(mean),
            std=float(np.sqrt(variances.mean())),
            zero_share=float(self.zeros.mean() / self.count),
            minimum=float(self.minimum.min()),
            maximum=float(self.maximum.max()),
        )
