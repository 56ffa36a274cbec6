"""How alike rationales and references are in meaning: the cosine of their sentence embeddings.

The measure ``similariry`` [sic] of Multimodal-CoT, whose evaluations.py takes it from the library
sentence-transformers with the model all-MiniLM-L6-v2. That model is a BERT whose token states are
averaged, which needs nothing but transformers; models with other modules are refused. No pair is
left out, empty texts count.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from mmcot_data.errors import DataError
from mmcot_model.evaluation.report import Similarity
from mmcot_model.progress import progress_bar

__all__ = ["score_similarity"]

_FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")
_MODULES = ("Transformer", "Pooling", "Normalize")
"""The last is of no account for a cosine, and may be absent."""


def score_similarity(
    pairs: Sequence[tuple[str, str]],
    model: str,
    *,
    batch_size: int = 32,
) -> Similarity:
    """Mean similarity of the pairs.

    Args:
        pairs: Prediction and reference; blanks around them do not count.
        model: Folder or hub id of a model of sentence-transformers that averages its token states.
        batch_size: Texts at once.

    Raises:
        DataError: If the model cannot be loaded, or makes its embeddings in another way.
    """
    stripped = [(prediction.strip(), reference.strip()) for prediction, reference in pairs]
    if not stripped:
        return Similarity(mean=None, model=model)
    texts = sorted({text for pair in stripped for text in pair}, key=lambda text: (len(text), text))
    embeddings_NC = _Encoder(model).encode(texts, batch_size)
    place = {text: number for number, text in enumerate(texts)}
    predicted, expected = (
        embeddings_NC[[place[pair[side]] for pair in stripped]] for side in (0, 1)
    )
    cosines_N = (predicted * expected).sum(dim=1)
    return Similarity(mean=cosines_N.double().mean().item() * 100, model=model)


class _Encoder:
    """A model of sentences, on the best device.

    Shape suffixes: B = batch or N = all texts, S = tokens, C = width.
    """

    def __init__(self, model: str) -> None:
        folder = _folder_of(model)
        limit = _max_tokens(model, folder)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            loaded: Any = AutoModel.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise DataError(f"the model of sentences {model} cannot be loaded: {error}") from error
        self._max_tokens = limit or self._tokenizer.model_max_length
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = loaded.to(self._device).eval()

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch_size: int) -> torch.Tensor:
        """Embeddings (N, C) of length 1."""
        parts = []
        with progress_bar("embedding rationales", len(texts)) as advance:
            for start in range(0, len(texts), batch_size):
                tokens = self._tokenizer(
                    list(texts[start : start + batch_size]),
                    padding="longest",
                    truncation=True,
                    max_length=self._max_tokens,
                    return_tensors="pt",
                ).to(self._device)
                states_BSC = self._model(**tokens).last_hidden_state
                mask_BS1 = tokens["attention_mask"][..., None].to(states_BSC.dtype)
                sum_BC = (states_BSC * mask_BS1).sum(dim=1)
                parts.append(F.normalize(sum_BC, dim=1).cpu())  # as long as a mean's: 1
                advance(start + len(tokens["attention_mask"]), len(texts))
        return torch.cat(parts)


def _folder_of(model: str) -> Path:
    """The model's files, downloaded if they are not here yet."""
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:
        raise DataError(
            f"the model of sentences {model!r} is not a folder and cannot be downloaded: expected "
            "one of sentence-transformers, as the folder or hub id of "
            f"sentence-transformers/all-MiniLM-L6-v2. {error}"
        ) from error


def _max_tokens(model: str, folder: Path) -> int | None:
    """Most tokens of a text; None for the tokenizer's own limit.

    Raises:
        DataError: If embeddings are not plain means of token states.
    """
    modules = _read_json(model, folder / "modules.json")
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if tuple(kinds) not in (_MODULES, _MODULES[:-1]):
        raise DataError(
            f"the model of sentences {model} has the modules {', '.join(kinds)}; expected "
            f"{', '.join(_MODULES)}, as those of sentence-transformers/all-MiniLM-L6-v2"
        )
    pooling = _read_json(model, folder / modules[1]["path"] / "config.json")
    modes = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    if pooling.get("pooling_mode") != "mean" and modes != ["pooling_mode_mean_tokens"]:
        raise DataError(
            f"the model of sentences {model} pools token states in another way than by their mean "
            f"({', '.join(modes) or pooling.get('pooling_mode')}): take one that averages them, as "
            "sentence-transformers/all-MiniLM-L6-v2"
        )
    settings = folder / "sentence_bert_config.json"
    limit = _read_json(model, settings).get("max_seq_length") if settings.is_file() else None
    return None if limit is None else int(limit)


def _read_json(model: str, path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"the model of sentences {model} has no readable {path.name}; expected a model of "
            f"sentence-transformers: {error}"
        ) from error
