"""When a local model stops."""

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria

__all__ = ["StopAtText"]

_TAIL = 8
"""Tokens in whose text the stop text is looked for: at least as many as it can have."""


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
