"""How far an accuracy may be from the truth, given how many questions it was measured on."""

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["Share", "wilson_interval"]

_Z95 = 1.959963984540054
"""The standard normal distribution is within this of 0 with a probability of 95 %."""


def wilson_interval(num_correct: int, n: int) -> tuple[float, float] | None:
    """95 % score interval of a proportion, in percent.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal of
    the American Statistical Association 22 (1927), equation 5. Unlike the usual standard error
    times 1.96 it stays within 0 to 100 and is not empty where all answers are right or wrong;
    Brown, Cai and DasGupta (Statistical Science 16, 2001) recommend it for few observations.

    It speaks of other questions of the same kind and this one model: not of other seeds, and two
    systems that were tested on the same questions may differ more surely than their intervals say.

    Args:
        num_correct: Right answers.
        n: Questions.

    Returns:
        The lower and the upper end; None if there are no questions.
    """
    if n == 0:
        return None
    share, shrink = num_correct / n, 1 + _Z95**2 / n
    centre = (share + _Z95**2 / (2 * n)) / shrink
    margin = _Z95 * math.sqrt(share * (1 - share) / n + (_Z95 / (2 * n)) ** 2) / shrink
    low = 0.0 if num_correct == 0 else centre - margin  # exactly so, whatever the rounding
    high = 1.0 if num_correct == n else centre + margin
    return low * 100, high * 100


@dataclass(frozen=True, slots=True)
class Share:
    """How many of some questions are of a kind."""

    count: int
    of: int

    @property
    def percent(self) -> float | None:
        """The share; None of no questions."""
        return self.count / self.of * 100 if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its 95 % interval, in percent; None of no questions."""
        return wilson_interval(self.count, self.of)

    def to_json(self) -> dict[str, Any]:
        """Counts, percentage and interval."""
        ends = self.interval
        return {
            "count": self.count,
            "of": self.of,
            "percent": None if self.percent is None else round(self.percent, 2),
            "interval": None
            if ends is None
            else {"low": round(ends[0], 2), "high": round(ends[1], 2)},
        }
