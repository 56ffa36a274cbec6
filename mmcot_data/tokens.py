"""Texts in tokens, within a limit, and what of them the model does not see."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from mmcot_data.prompts import SourceParts
from mmcot_data.truncation import Truncation, cut_words, shorten, words_to_cut

__all__ = ["EncodedText", "encode_sources", "encode_texts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedText:
    """A text as the model reads it."""

    ids: list[int]
    """Ended by ``</s>``."""
    num_tokens: int
    """Tokens of the whole text, ``</s>`` included."""
    seen: str
    """The text, or what is left of it."""
    cut: str = ""
    """What the model does not see."""
    cut_parts: tuple[str, ...] = ()
    """Of a source: the parts that are not whole, by their names in ``SourceParts.pieces``."""

    @property
    def num_cut(self) -> int:
        """Tokens by which the text was shortened."""
        return self.num_tokens - len(self.ids)


def encode_texts(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[EncodedText]:
    """Tokens of texts; what exceeds the limit is cut off on the right.

    The cut is the text after the last token that is seen; of a tokenizer that does not say where
    its tokens stand in the text, the decoded rest.

    Args:
        tokenizer: Of transformers; it ends each text with ``</s>``.
        texts: The texts.
        max_tokens: Most tokens of a text, ``</s>`` included.
    """
    return [
        EncodedText(ids=ids, num_tokens=len(ids), seen=text)
        if len(ids) <= max_tokens
        else _cut_on_the_right(tokenizer, text, ids, max_tokens)
        for text, ids in zip(texts, _tokenize(tokenizer, texts), strict=True)
    ]


def encode_sources(
    tokenizer: Any, sources: Sequence[SourceParts], max_tokens: int, truncation: Truncation
) -> list[EncodedText]:
    """Tokens of sources; what exceeds the limit is cut.

    Args:
        tokenizer: Of transformers; it ends each text with ``</s>``.
        sources: The sources.
        max_tokens: Most tokens of a source, ``</s>`` included.
        truncation: ``keep`` takes away what matters least (``mmcot_data.truncation``), and the
            tokens are those of what is left; ``right`` cuts off the end.

    Raises:
        DataError: If the limit has no room for labels, letters and cue, and ``keep`` needs it.
        ValueError: If ``truncation`` is something else.
    """
    if truncation not in get_args(Truncation):
        raise ValueError(
            f"truncation is {truncation!r}, expected one of {', '.join(get_args(Truncation))}"
        )
    texts = [source.text for source in sources]
    if truncation == "right":
        return [
            replace(text, cut_parts=_parts_beyond(source, len(text.seen)))
            if text.num_tokens > max_tokens
            else text
            for source, text in zip(
                sources, encode_texts(tokenizer, texts, max_tokens), strict=True
            )
        ]
    encoded = [
        EncodedText(ids=ids, num_tokens=len(ids), seen=text)
        for text, ids in zip(texts, _tokenize(tokenizer, texts), strict=True)
    ]
    long = [i for i, text in enumerate(encoded) if text.num_tokens > max_tokens]
    num_words = words_to_cut(
        [sources[i] for i in long],
        max_tokens,
        lambda texts: [len(ids) for ids in _tokenize(tokenizer, texts)],
    )
    left = [shorten(sources[i], words) for i, words in zip(long, num_words, strict=True)]
    ids_left = _tokenize(tokenizer, [source.text for source in left])
    for i, words, source, ids in zip(long, num_words, left, ids_left, strict=True):
        encoded[i] = EncodedText(
            ids=ids,
            num_tokens=encoded[i].num_tokens,
            seen=source.text,
            cut=cut_words(sources[i], words),
            cut_parts=_changed_parts(sources[i], source),
        )
    return encoded


def _tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(
        list(texts), return_attention_mask=False, verbose=False
    ).input_ids
    return ids


def _cut_on_the_right(
    tokenizer: Any, text: str, ids: Sequence[int], max_tokens: int
) -> EncodedText:
    seen = tokenizer(
        text,
        truncation=True,
        max_length=max_tokens,
        return_offsets_mapping=tokenizer.is_fast,
    )
    if tokenizer.is_fast:
        end = max((end for _, end in seen["offset_mapping"]), default=0)
    else:
        rest = tokenizer.decode(ids[max_tokens - 1 :], skip_special_tokens=True)
        end = max(len(text) - len(rest), 0)
    return EncodedText(ids=seen["input_ids"], num_tokens=len(ids), seen=text[:end], cut=text[end:])


def _parts_beyond(source: SourceParts, length: int) -> tuple[str, ...]:
    """The parts that do not stand whole in the first ``length`` characters of a source."""
    parts, end = [], -1
    for name, piece in source.pieces().items():
        if piece:
            end += len(piece) + 1
            if end > length:
                parts.append(name)
    return tuple(parts)


def _changed_parts(source: SourceParts, shortened: SourceParts) -> tuple[str, ...]:
    after = shortened.pieces()
    return tuple(name for name, piece in source.pieces().items() if piece != after[name])
