"""The files of a model of transformers: where they are, and what identifies them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmcot_data.errors import GenerationError
from mmcot_data.files import file_sha256

__all__ = ["ModelFiles", "find_model_files"]

_TEXTS: Final = ("*.json", "*.model", "*.txt", "*.jinja")
_WEIGHTS: Final = (("*.safetensors",), ("pytorch_model*.bin",))
"""In the order in which transformers looks for them."""
_COPIES: Final = ["consolidated*", "*/*"]
"""Other forms of the same weights that a hub repository may hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """A model's folder on this machine."""

    folder: Path
    model_id: str
    """Hub id, or the folder's name: where the folder lies decides nothing."""
    revision: str | None
    """Commit of the hub; a folder has none."""

    def weights_sha256(self) -> str:
        """Hex sha256 over the names and contents of the weight files."""
        return _sha256(_find(self.folder, _WEIGHTS[0]) or _find(self.folder, _WEIGHTS[1]))

    def texts_sha256(self) -> str:
        """Hex sha256 over those of the configuration and the tokenizer."""
        return _sha256(_find(self.folder, _TEXTS))


def find_model_files(model: str, revision: str | None) -> ModelFiles:
    """Find a model: a folder if there is one of the name, else the hub's, which is downloaded.

    Raises:
        GenerationError: If there is no such folder or model, or it has no weights.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if revision is not None:
            raise GenerationError(
                f"{path} is a folder: the revision {revision!r} has no meaning for it"
            )
        files = ModelFiles(folder=path, model_id=path.resolve().name, revision=None)
    elif path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise GenerationError(
            f"the model folder {model} does not exist; expected one with config.json and "
            "model.safetensors, or a hub id such as Qwen/Qwen3-8B"
        )
    else:
        folder = _from_hub(model, revision)
        files = ModelFiles(folder=folder, model_id=model, revision=folder.name)
    if not (files.folder / "config.json").is_file() or not any(
        _find(files.folder, patterns) for patterns in _WEIGHTS
    ):
        raise GenerationError(
            f"the model {model} lacks config.json or weights (model.safetensors or "
            f"pytorch_model.bin) in {files.folder}; expected what transformers' save_pretrained "
            "writes"
        )
    return files


def _from_hub(model: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    folder = Path()
    try:
        for weights in _WEIGHTS:
            folder = Path(
                snapshot_download(
                    model,
                    revision=revision,
                    allow_patterns=[*_TEXTS, *weights],
                    ignore_patterns=_COPIES,
                )
            )
            if _find(folder, weights):
                break
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise GenerationError(
            f"the model {model} cannot be had from the hub ({type(error).__name__}: "
            f"{reason:.300}); give a folder instead: `--model FOLDER`"
        ) from error
    return folder


def _find(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def _sha256(paths: Iterable[Path]) -> str:
    lines = (f"{path.name} {file_sha256(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
