"""Sampling in which every text has a random stream of its own.

transformers draws the next tokens of a whole batch from one stream, so that a text depends on the
others in its batch, and on all that was drawn before. Here a row's tokens depend on its own seed:
the same text comes in any batch, and after any restart. (To the rounding of the logits.)

Shape suffixes: B = batch, T = tokens so far, V = vocabulary.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

__all__ = ["Sampling", "row_seed"]


class _RowNoise(LogitsProcessor):
    """Adds Gumbel noise: the largest sum is a draw from the softmax (Gumbel-max trick)."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        uniform_BV = torch.stack(
            [torch.rand(scores.shape[1], generator=each) for each in self._generators]
        )
        tiny = torch.finfo(uniform_BV.dtype).tiny
        exponential_BV = -torch.log(uniform_BV.clamp_min(tiny))
        gumbel_BV = -torch.log(exponential_BV.clamp_min(tiny))
        return scores.float() + gumbel_BV.to(scores.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Raises:
        ValueError: If a value is out of range.
    """

    temperature: float = 0.0
    """Divides the logits; 0 takes the most probable token."""
    top_p: float = 1.0
    """Only the most probable tokens that together have this probability."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}, expected 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected more than 0 and at most 1")

    def processors(self, seeds: Sequence[int]) -> LogitsProcessorList:
        """For ``generate(…, do_sample=False, logits_processor=…)``.

        Args:
            seeds: One for each row of the batch (B).
        """
        if self.temperature == 0:
            return LogitsProcessorList()
        chosen: list[LogitsProcessor] = [TemperatureLogitsWarper(self.temperature)]
        if self.top_p < 1:
            chosen.append(TopPLogitsWarper(self.top_p))
        return LogitsProcessorList([*chosen, _RowNoise(seeds)])


def row_seed(seed: int, *names: str | int) -> int:
    """A seed for one text, from a common one and what names the text, as its question id."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
