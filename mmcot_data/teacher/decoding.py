"""How a local model chooses its next token, and when it stops.

Shape letters: B texts, T tokens, V vocabulary.
"""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, PreTrainedTokenizerBase, StoppingCriteria

__all__ = ["SeededSampling", "StopAtText"]

_TAIL = 8
"""Tokens in whose text the stop text is looked for: at least as many as it can have."""


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


class StopAtText(StoppingCriteria):
    """Stops each text once it holds ``stop``.

    Args:
        tokenizer: The model's.
        stop: The text.
        num_given: Tokens at the front that were not written by the model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: str, num_given: int) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._num_given = num_given

    def __call__(
        self,
        input_ids: torch.LongTensor,
        scores: torch.FloatTensor,  # noqa: ARG002 - of the interface
        **kwargs: object,  # noqa: ARG002
    ) -> torch.BoolTensor:
        """Which of the B texts have ended."""
        tails = input_ids[:, max(self._num_given, input_ids.shape[1] - _TAIL) :]
        texts = self._tokenizer.batch_decode(tails, skip_special_tokens=True)
        ended = [self._stop in text for text in texts]
        return torch.tensor(ended, device=input_ids.device)  # type: ignore[return-value]
