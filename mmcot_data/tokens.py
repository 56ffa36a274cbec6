"""Texts in tokens, and what of them the model does not see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Encoded", "encode"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as the model sees it."""

    ids: list[int]
    """Its tokens, at most as many as allowed, ended by ``</s>``."""
    num_tokens: int
    """Tokens of the whole text, ``</s>`` included."""
    cut: str
    """The end of the text that the model does not see; empty if it sees all of it."""


def encode(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[Encoded]:
    """Tokenize; what exceeds the limit is cut off on the right.

    Args:
        tokenizer: A fast tokenizer of transformers that ends each text with ``</s>``.
        texts: The texts.
        max_tokens: Most tokens of a text.
    """
    if not texts:
        return []
    whole = tokenizer(list(texts), verbose=False)["input_ids"]
    encoded = []
    for text, ids in zip(texts, whole, strict=True):
        if len(ids) <= max_tokens:
            encoded.append(Encoded(ids, len(ids), ""))
            continue
        short = tokenizer(text, truncation=True, max_length=max_tokens, return_offsets_mapping=True)
        end = max((end for _, end in short["offset_mapping"]), default=0)
        encoded.append(Encoded(short["input_ids"], len(ids), text[end:]))
    return encoded
