"""What a training run is asked to do."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mmcot_data.prompts import TARGET_FORMATS

__all__ = ["RECIPES", "Recipe", "Stage", "TrainConfig", "recipe_of"]

Stage = Literal["rationale", "answer", "both"]
_MIN_VOCAB_SIZE = 512
_STAGE_FORMATS: dict[str, tuple[str, ...]] = {
    "both": ("QCM-LE", "QCM-E"),
    "rationale": ("QCM-LE", "QCM-E"),
    "answer": ("QCM-A", "QCMG-A", "QCM-LEA", "QCM-ALE"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Hyperparameters that depend on the size of the model."""

    rationale_epochs: float
    answer_epochs: float
    batch_size: int
    learning_rate: float
    warmup: float
    """Share of the steps in which the learning rate rises."""
    length_window: int


RECIPES = {
    "tiny": Recipe(
        rationale_epochs=20,
        answer_epochs=8,
        batch_size=32,
        learning_rate=2e-3,
        warmup=0.05,
        length_window=1,
    ),
    # The paper's: section 5.2 and the reference's training script, base model.
    "default": Recipe(
        rationale_epochs=20,
        answer_epochs=20,
        batch_size=8,
        learning_rate=8e-5,
        warmup=0.0,
        length_window=50,
    ),
}


def recipe_of(model: str) -> Recipe:
    """The recipe of a preset, or the default for any other model."""
    return RECIPES.get(model, RECIPES["default"])


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One run: which texts and features, which model, how long, and where it is written.

    The defaults are those of the model ``tiny``; ``recipe_of`` has those of others.

    Raises:
        ValueError: If settings exclude each other or are out of range.
    """

    artifacts: Path
    """Artifact root: the folder of questions.parquet."""
    output: Path
    """The run folder."""
    features: Path | str | None = None
    """A feature set, as folder or URL; None trains on the text alone."""
    stage: Stage = "both"
    prompt_format: str = "QCM-E"
    """Format of the rationale stage, or of the answer stage where that alone is trained."""
    model: str = "tiny"
    """The preset ``tiny``, a folder, or a hub id of a T5 or FusionT5."""
    captions: str | None = None
    """Producer of the captions that are added to the context."""
    rationales: str | None = None
    """Producer, or .parquet file, of the rationales that are read where only the answer stage is
    trained."""
    train_rationales: str | None = None
    """Producer, or .parquet file, of the rationales that the answer stage learns from; None takes
    gold ones of the form of those that are tested, or the tested table if it covers the split."""
    target_rationales: str | None = None
    """Producer, or .parquet file, whose kept rationales are what the model learns to write, instead
    of gold ones. Each sample is a training example."""
    image_roles: tuple[str, ...] = ("question",)
    """The first of these roles that a question has is its picture."""
    train_split: str = "train"
    test_split: str = "test"
    rationale_epochs: float = RECIPES["tiny"].rationale_epochs
    answer_epochs: float = RECIPES["tiny"].answer_epochs
    length_window: int = RECIPES["tiny"].length_window
    """Batches that are sorted by length together, to save padding. 1 sorts nothing: where lengths
    give the kind of question away, batches of one kind slow a small model down."""
    max_steps: int | None = None
    """Optimizer steps of each stage, instead of the epochs."""
    batch_size: int = RECIPES["tiny"].batch_size
    """Questions a step and device."""
    eval_batch_size: int = 64
    learning_rate: float = RECIPES["tiny"].learning_rate
    warmup: float = RECIPES["tiny"].warmup
    weight_decay: float = 0.01
    max_source: int = 512
    """Tokens of a source."""
    max_rationale: int = 512
    """Tokens of a rationale, in training and generation."""
    max_answer: int = 64
    """Tokens of an answer, in training and generation."""
    vocab_size: int = 8000
    """Upper bound of the vocabulary where a tokenizer is trained (preset ``tiny``)."""
    seed: int = 42

    def __post_init__(self) -> None:
        if self.prompt_format not in _STAGE_FORMATS[self.stage]:
            raise ValueError(
                f"--stage {self.stage} takes --prompt-format "
                f"{', '.join(_STAGE_FORMATS[self.stage])}; got {self.prompt_format}"
            )
        if self.rationales is not None and self.prompt_format != "QCMG-A":
            raise ValueError(
                "--rationales is read by --stage answer --prompt-format QCMG-A only; "
                f"got --stage {self.stage} --prompt-format {self.prompt_format}"
            )
        if self.train_rationales and self.stage != "both" and self.prompt_format != "QCMG-A":
            raise ValueError(
                "--train-rationales are what the second stage reads: they go with --stage both, or "
                f"--stage answer --prompt-format QCMG-A; got --stage {self.stage} --prompt-format "
                f"{self.prompt_format}"
            )
        if self.target_rationales and self.prompt_format not in TARGET_FORMATS:
            raise ValueError(
                f"--target-rationales need a format whose target has a rationale: "
                f"{', '.join(TARGET_FORMATS)}; got {self.prompt_format}"
            )
        if self.prompt_format == "QCMG-A" and self.rationales is None:
            raise ValueError(
                "--prompt-format QCMG-A needs --rationales PRODUCER for the questions that are "
                "tested; `--stage both` writes them itself"
            )
        for name in (
            "batch_size",
            "eval_batch_size",
            "length_window",
            "max_source",
            "max_rationale",
            "max_answer",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("rationale_epochs", "answer_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.vocab_size < _MIN_VOCAB_SIZE:
            raise ValueError(
                f"vocab_size must be at least {_MIN_VOCAB_SIZE}, got {self.vocab_size}"
            )
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps below 1, got {self.warmup}")

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; paths are absolute."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            values[field.name] = str(value.resolve()) if isinstance(value, Path) else value
        return values | {"image_roles": list(self.image_roles)}
