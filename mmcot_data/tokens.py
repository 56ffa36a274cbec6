"""Texts in tokens, and what of them the model does not see."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcot_data.errors import DataError

__all__ = ["Encoded", "encode", "load_tokenizer"]


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


def load_tokenizer(name: str, stage: str | None = None) -> Any:
    """The tokenizer of a model.

    Args:
        name: A folder or hub id, or a run folder of mmcot-train.
        stage: Of a run folder: ``rationale`` or ``answer``; None takes the one that there is.

    Raises:
        DataError: If there is none.
    """
    from transformers import AutoTokenizer

    folder = Path(name)
    if folder.is_dir() and not (folder / "tokenizer_config.json").is_file():
        stages = [stage] if stage is not None else ["answer", "rationale"]
        found = [folder / each for each in stages if (folder / each).is_dir()]
        if not found:
            raise DataError(
                f"{folder} holds no tokenizer, and no stage {' or '.join(stages)} of a run: "
                "expected a model's folder or hub id, or a run folder of mmcot-train"
            )
        name = str(found[0])
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot load the tokenizer of {name!r}: expected a folder, a hub id or a run folder. "
            f"{error}"
        ) from error
