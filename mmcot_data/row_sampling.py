"""Sampling in which every text has a random stream of its own.

transformers draws the next tokens of a whole batch from one stream, so that a text depends on the
others in its batch, and on all that was drawn before. Here a row's tokens depend on its own seed:
the same text comes in any batch, and after any restart. (To the rounding of the logits.)

Shape suffixes: B = batch, T = tokens so far, V = vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor, LogitsProcessorList

__all__ = ["Sampling", "SeededSampling"]


class SeededSampling(LogitsProcessor):
    """Draws each text by a seed of its own, so that it does not depend on those beside it.

    Each row's drawn token gets score 0 and all others minus infinity, so that greedy decoding takes
    it. It is drawn through the inverse of the distribution function, in the vocabulary's order: a
    rounding difference moves it only where the drawn number lies at a token's very edge.

    Args:
        seeds: One a text.
        temperature: Divides the scores; above 0.
        top_p: Only the most probable tokens that together reach it can be drawn.
        max_new_tokens: How many are drawn at most.
        device: Where the scores are.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        device: torch.device,
    ) -> None:
        drawn = [
            torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        self._uniform_BT = torch.stack(drawn).to(device)
        self._temperature = temperature
        self._top_p = top_p
        self._num_drawn = 0

    def __call__(
        self,
        input_ids: torch.LongTensor,  # noqa: ARG002 - of the interface
        scores: torch.FloatTensor,
    ) -> torch.FloatTensor:
        """Replace scores of shape (B, V)."""
        probabilities_BV = (scores.float() / self._temperature).softmax(dim=-1)
        if self._top_p < 1:
            probabilities_BV = probabilities_BV * self._in_nucleus(probabilities_BV)
        cumulated_BV = probabilities_BV.cumsum(dim=-1)
        uniform_B1 = self._uniform_BT[:, self._num_drawn, None]
        self._num_drawn += 1
        # The first token whose cumulated probability exceeds the drawn share of the whole.
        tokens_B1 = torch.searchsorted(cumulated_BV, uniform_B1 * cumulated_BV[:, -1:], right=True)
        last_B1 = torch.argmax(cumulated_BV, dim=-1, keepdim=True)  # of any probability
        chosen_BV = torch.full_like(scores, -torch.inf)
        return chosen_BV.scatter_(1, torch.minimum(tokens_B1, last_B1), 0.0)  # type: ignore[return-value]

    def _in_nucleus(self, probabilities_BV: torch.Tensor) -> torch.Tensor:
        sorted_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True, stable=True)
        before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
        before_BV[:, 0] = 0.0  # the most probable one is always in it
        kept_BV = before_BV < self._top_p
        return torch.zeros_like(kept_BV).scatter_(1, order_BV, kept_BV)


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
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}, expected 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected more than 0 and at most 1")

    def processors(
        self, seeds: Sequence[int], max_new_tokens: int, device: torch.device
    ) -> LogitsProcessorList:
        """For ``generate(…, do_sample=False, logits_processor=…)``.

        Args:
            seeds: One for each row of the batch (B).
            max_new_tokens: How many tokens are drawn at most.
            device: Where the scores are.
        """
        if self.temperature == 0:
            return LogitsProcessorList()
        return LogitsProcessorList(
            [SeededSampling(seeds, self.temperature, self.top_p, max_new_tokens, device)]
        )
