"""Find the tokenizer of a model or of a run."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from mmcot_data.errors import DataError

__all__ = ["load_tokenizer"]


def load_tokenizer(name: str, stage: str | None = None) -> Any:
    """The tokenizer of a model.

    Args:
        name: A folder or hub id, or a run folder of mmcot-train.
        stage: Of a run folder: ``rationale`` or ``answer``; None takes the one that there is.

    Raises:
        DataError: If there is none.
    """
    folder = Path(name)
    if not folder.exists() and (folder.is_absolute() or (folder.parent.is_dir() and "/" in name)):
        raise DataError(
            f"{folder} does not exist: expected a model's folder or hub id, or a run folder"
        )
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
