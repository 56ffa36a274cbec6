"""How probable a model finds each choice of a question.

Shape suffixes: B = choices, S = source tokens, T = target tokens, C = model width, V = vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from mmcot_model.fusion import FusionT5

__all__ = ["ChoiceScore", "score_answers"]


@dataclass(frozen=True, slots=True)
class ChoiceScore:
    """How probable one answer is."""

    log_likelihood: float
    """Natural logarithm of the probability of writing it, all its tokens together."""
    probability: float
    """Its share among the answers that were compared."""


def score_answers(
    model: FusionT5,
    tokenizer: PreTrainedTokenizerBase,
    batch: Mapping[str, torch.Tensor],
    answers: Sequence[str],
    *,
    before: str = "",
    ends: bool = True,
) -> list[ChoiceScore]:
    """Compare the probabilities with which a model would write each of several answers.

    The question is encoded once; all answers go through the decoder in one batch.

    Args:
        model: In evaluation mode.
        tokenizer: The model's.
        batch: Arguments of ``FusionT5.forward`` for one question, on the model's device.
        answers: Such as ``The answer is (A).``
        before: What the model has written before the answer.
        ends: Whether the text ends with the answer: its end then belongs to it.

    Returns:
        A score for each answer.
    """
    num_before = len(_tokens(tokenizer, before))
    rows = [_tokens(tokenizer, f"{before} {answer}".strip()) for answer in answers]
    if ends:
        rows = [[*row, tokenizer.eos_token_id] for row in rows]
    width = max(map(len, rows))
    padded = [row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows]
    tokens_BT = torch.tensor(padded, device=model.device)
    lengths_B = torch.tensor([len(row) for row in rows], device=model.device)
    places_T = torch.arange(width, device=model.device)
    counts_BT = (places_T >= num_before) & (places_T < lengths_B[:, None])
    with torch.inference_mode():
        encoded: Any = model.encoder(
            **{name: value for name, value in batch.items() if name != "labels"}
        )
        state_BSC = encoded.last_hidden_state.expand(len(rows), -1, -1)
        logits_BTV = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=state_BSC),
            attention_mask=batch["attention_mask"].expand(len(rows), -1),
            decoder_input_ids=model.prepare_decoder_input_ids_from_labels(tokens_BT),
            use_cache=False,
        ).logits
        losses_BT = F.cross_entropy(logits_BTV.float().mT, tokens_BT, reduction="none")
        scores_B = -(losses_BT * counts_BT).double().sum(1)
    shares_B = scores_B.softmax(0)
    return [ChoiceScore(*pair) for pair in zip(scores_B.tolist(), shares_B.tolist(), strict=True)]


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids if text else []
    return ids
