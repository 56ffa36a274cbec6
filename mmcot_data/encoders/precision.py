"""``--precision auto``: the fastest precision that hardly changes the features."""

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import torch

from mmcot_data.encoders.base import Encoder, Precision
from mmcot_data.errors import EncoderError

__all__ = ["MAX_ERROR", "AdjustableEncoder", "choose_precision"]

MAX_ERROR = 1e-2
"""Of features relative to strict fp32: the norm of the difference over the norm."""


@runtime_checkable
class AdjustableEncoder(Encoder, Protocol):
    """An encoder that can compute at several precisions."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those worth trying, fastest first; the last is fp32."""
        ...

    def at_precision(self, precision: Precision, error: float | None = None) -> Self:
        """The same encoder at another precision.

        Args:
            precision: Of the computation.
            error: Its measured error, for the description; None if it was asked for.
        """
        ...


def choose_precision(
    encoder: Encoder,
    pixels_BCHW: torch.Tensor,
    limit: float = MAX_ERROR,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> AdjustableEncoder:
    """The encoder at its fastest precision whose error on a batch is within a limit.

    The order is fixed for a kind of hardware and nothing is timed: the same batch gives the same
    choice. fp32 is always within the limit.

    Args:
        encoder: The encoder, at any precision.
        pixels_BCHW: A batch as ``Encoder.start`` takes it.
        limit: The largest error accepted, relative to strict fp32.
        sizes: Of padded pictures, as ``Encoder.start`` takes them.

    Returns:
        The encoder; ``precision`` and ``precision_error`` in its description say what was chosen.

    Raises:
        EncoderError: If the encoder has only one precision.
    """
    if not isinstance(encoder, AdjustableEncoder):
        raise EncoderError(
            f"the encoder {encoder.name} has only one precision: auto has nothing to choose from"
        )
    exact = encoder.at_precision("fp32", error=0.0)
    expected = exact.start(pixels_BCHW, sizes)()
    for precision in encoder.precisions:
        if precision == "fp32":
            break
        candidate = encoder.at_precision(precision)
        error = _relative_error(candidate.start(pixels_BCHW, sizes)(), expected)
        if error <= limit:  # false for what isn't finite
            return candidate.at_precision(precision, error=float(f"{error:.2e}"))
    return exact


def _relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())
