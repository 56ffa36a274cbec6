"""What both ways of ``benchmarks.train`` are given: questions in tokens, features and a model."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, set_seed

from benchmarks.store_layouts import SHAPES, Rows, write_set
from mmcot_data.inputs import model_inputs
from mmcot_data.questions import Question, read_questions
from mmcot_data.shards import FeatureSet, open_features
from mmcot_model.batches import Example, tokenize
from mmcot_model.fusion import FusionT5, FusionT5Config
from mmcot_model.loading import PRESETS
from mmcot_model.tokenizer import train_tokenizer

__all__ = ["SIZES", "Request", "Task", "prepare_features", "prepare_task"]

SIZES: dict[str, dict[str, Any]] = {
    "tiny": PRESETS["tiny"],
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
}
"""Of T5 1.0, and the preset of that name."""
_VOCAB_SIZE = 32128
_SHARD_SIZE = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is measured."""

    artifacts: str
    """Artifact root."""
    features: str
    """Feature set that ``prepare_features`` wrote."""
    prompt_format: str
    size: str
    """One of ``SIZES``."""
    batch_size: int
    max_source: int
    max_target: int
    device: str
    seed: int = 0

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Task:
    """Questions and a model with fresh weights, the same ones whoever asks."""

    tokenizer: PreTrainedTokenizerBase
    examples: list[Example]
    features: FeatureSet
    model: FusionT5


def prepare_features(artifacts: Path, encoder: str, folder: Path) -> None:
    """Write noise of an encoder's shape for the questions that have a picture.

    The features' values matter to no time. Question ``i`` of ``_ordered`` has row ``i``.
    """
    num_pictured = sum(map(_is_pictured, _ordered(artifacts)))
    write_set(folder, Rows(SHAPES[encoder], num_pictured, _SHARD_SIZE), "hdf5")


def prepare_task(request: Request) -> Task:
    """Tokenize all questions, whatever their split, and draw a model's weights."""
    questions = _ordered(Path(request.artifacts))
    inputs = model_inputs(questions, request.prompt_format)
    texts = [text for pair in inputs for text in (pair.source, pair.target or "")]
    tokenizer = train_tokenizer(texts)
    examples = tokenize(
        tokenizer, inputs, max_source=request.max_source, max_target=request.max_target
    ).examples
    features = open_features(request.features)
    config = FusionT5Config(
        vocab_size=_VOCAB_SIZE,
        patch_dim=features.spec.feature_dim,
        absent_image="zeros",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **SIZES[request.size],
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    set_seed(request.seed)
    model: Any = FusionT5(config)  # its annotations refuse a device
    return Task(
        tokenizer,
        [Example(str(i), each.input_ids, each.labels) for i, each in enumerate(examples)],
        features,
        model.to(request.device),
    )


def _ordered(artifacts: Path) -> Sequence[Question]:
    """Questions with an answer, those with a picture first."""
    questions = read_questions(artifacts)
    answered = [question for question in questions if question.answer is not None]
    return sorted(answered, key=lambda question: not _is_pictured(question))


def _is_pictured(question: Question) -> bool:
    return question.has_image or bool(question.image_roles)
