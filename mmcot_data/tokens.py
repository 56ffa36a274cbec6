"""Texts in tokens, and what of them the model does not see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Measured", "encode", "measure"]


@dataclass(frozen=True, slots=True)
class Measured:
    """How long a text is, and what of it is cut off."""

    num_tokens: int
    """Tokens of the whole text, ``</s>`` included."""
    cut: str
    """The end of the text that the model does not see; empty if it sees all of it."""


def encode(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Tokens of texts, each ended by ``</s>``; what exceeds the limit is cut off on the right.

    Args:
        tokenizer: Of transformers.
        texts: The texts.
        max_tokens: Most tokens of a text.
    """
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=max_tokens).input_ids
    return ids


def measure(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[Measured]:
    """What ``encode`` makes of texts: how long they are, and what it cuts off.

    The cut is the text after the last token that is seen; of a tokenizer that does not say where
    its tokens stand in the text, the decoded rest.
    """
    if not texts:
        return []
    whole = tokenizer(list(texts), verbose=False).input_ids
    measured = []
    for text, ids in zip(texts, whole, strict=True):
        cut = "" if len(ids) <= max_tokens else _cut(tokenizer, text, ids, max_tokens)
        measured.append(Measured(len(ids), cut))
    return measured


def _cut(tokenizer: Any, text: str, ids: Sequence[int], max_tokens: int) -> str:
    if not tokenizer.is_fast:
        return str(tokenizer.decode(ids[max_tokens - 1 :], skip_special_tokens=True))
    seen = tokenizer(text, truncation=True, max_length=max_tokens, return_offsets_mapping=True)
    return text[max((end for _, end in seen["offset_mapping"]), default=0) :]
