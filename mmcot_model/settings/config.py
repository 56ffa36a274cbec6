"""What a training run is asked to do."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from mmcot_data.prompts import TARGET_FORMATS
from mmcot_model.settings.recipes import RECIPES, Keep, is_local_model

__all__ = ["Stage", "TrainConfig"]

Stage = Literal["rationale", "answer", "both"]
_MIN_VOCAB_SIZE = 512
_MODELS = ("model", "rationale_model", "answer_model")
_SOURCES = ("rationales", "val_rationales", "train_rationales", "target_rationales")
_STAGE_FORMATS: dict[str, tuple[str, ...]] = {
    "both": ("QCM-LE", "QCM-E"),
    "rationale": ("QCM-LE", "QCM-E"),
    "answer": ("QCM-A", "QCMG-A", "QCM-LEA", "QCM-ALE"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One run: which texts and features, which model, how long, and where it is written.

    The defaults are those of the model ``tiny``; ``recipe_of`` has those of others. A source of
    rationales is a producer's name, a .parquet file, or ``gold-e`` or ``gold-le``, which are made
    from the questions: the solution, or the lecture and the solution.

    Raises:
        ValueError: If settings exclude each other or are out of range.
    """

    artifacts: Path
    """Artifact root: the folder of questions.parquet."""
    output: Path
    """The run folder."""
    features: tuple[Path | str, ...] = ()
    """Feature sets, as folders or URLs; none trains on the text alone."""
    stage: Stage = "both"
    prompt_format: str = "QCM-E"
    """Format of the rationale stage, or of the answer stage where that alone is trained."""
    model: str = "tiny"
    """The preset ``tiny``, a folder, or a hub id of a T5 or FusionT5."""
    rationale_model: str | None = None
    """A trained stage 1 that is used as it is, as folder or hub id; nothing is trained for it."""
    answer_model: str | None = None
    """A trained answer stage that is used as it is."""
    captions: str | None = None
    """Producer of the captions that are added to the context."""
    rationales: str | None = None
    """Source of the rationales that the answer stage is tested with; None takes those that the
    run's own stage 1 writes."""
    val_rationales: str | None = None
    """Source of those that it is validated with; None takes the same as for the test."""
    train_rationales: str | None = None
    """Source of those that it learns from; None takes gold ones of the form of those that are
    tested, or the tested table if it covers the split."""
    target_rationales: str | None = None
    """Source whose kept rationales are what the model learns to write, instead of gold ones. Each
    sample is a training example."""
    image_roles: tuple[str, ...] = ("question",)
    """The first of these roles that a question has is its picture."""
    train_split: str = "train"
    val_split: str = "val"
    """What chooses the best weights; not read where the last ones are kept."""
    test_split: str = "test"
    rationale_epochs: float = RECIPES["tiny"].rationale_epochs
    answer_epochs: float = RECIPES["tiny"].answer_epochs
    max_steps: int | None = None
    """Optimizer steps of each stage, instead of the epochs."""
    batch_size: int = RECIPES["tiny"].batch_size
    """Questions a step and device."""
    gradient_accumulation: int = 1
    """Batches a step and device; each token counts the same, whatever the batches' lengths."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass, which saves memory and costs time."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the arithmetic; weights and optimizer stay in float32."""
    compile: bool = False
    """Compile the model: minutes at the start, faster steps on a GPU."""
    learning_rate: float = RECIPES["tiny"].learning_rate
    warmup: float = RECIPES["tiny"].warmup
    weight_decay: float = 0.01
    length_window: int = RECIPES["tiny"].length_window
    """Batches that are sorted by length together, to save padding. 1 sorts nothing: where lengths
    give the kind of question away, batches of one kind slow a small model down."""
    keep: Keep = RECIPES["tiny"].keep
    """Weights that a stage ends with: those of the best evaluation, or the last."""
    early_stopping: int | None = None
    """Stop after so many evaluations in a row without a better one; with ``keep="best"``."""
    eval_questions: int = 1000
    """Most questions of an evaluation in training; they are chosen by their ids."""
    eval_batch_size: int = 64
    """Questions at once in generation."""
    loader_workers: int = 0
    """Processes that make batches ahead; 0 makes them in between."""
    max_source: int = 512
    """Tokens of a source."""
    max_rationale: int = 512
    """Tokens of a rationale, in training and generation."""
    max_answer: int = 64
    """Tokens of an answer, in training and generation."""
    vocab_size: int = 8000
    """Upper bound of the vocabulary where a tokenizer is trained (preset ``tiny``)."""
    seed: int = 42
    absent_image: Literal["text", "zeros"] = "text"
    """What a question without a picture gets: its text state, or zero features."""
    label_padding: Literal["ignored", "counted"] = "ignored"
    """Whether the loss counts the padding of targets."""
    truncation: Literal["keep", "right"] = "keep"
    """Too long a source keeps cue and rationale and loses of its context, or loses its end."""
    padding: Literal["longest", "fixed"] = "longest"
    """Batches are padded to their longest text, or all to the limits."""
    failures: Literal["wrong", "random"] = "wrong"
    """An answer that cannot be read is wrong, or a letter is drawn for it."""
    report_to: tuple[str, ...] = ()
    """Experiment trackers: tensorboard, wandb, trackio, mlflow."""
    push_to_hub: str | None = None
    """Repository on the hub that receives the finished run."""
    hub_private: bool = False

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_stages()
        self._check_ranges()

    @property
    def answer_format(self) -> str:
        """Prompt format of the stage that answers."""
        return "QCMG-A" if self.stage == "both" else self.prompt_format

    @property
    def reads_rationales(self) -> bool:
        """Whether the answer stage reads rationales."""
        return self.answer_format == "QCMG-A" and self.stage != "rationale"

    def trains(self, stage: str) -> bool:
        """Whether a stage, ``rationale`` or ``answer``, is trained and not only used."""
        given = self.rationale_model if stage == "rationale" else self.answer_model
        return self.stage in ("both", stage) and given is None

    def max_target(self, stage: str) -> int:
        """Most tokens of what a stage, ``rationale`` or ``answer``, writes."""
        if stage == "rationale":
            return self.max_rationale
        if self.answer_format in ("QCM-LEA", "QCM-ALE"):
            return self.max_rationale + self.max_answer
        return self.max_answer

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; paths are absolute, those in texts too."""
        values = {field.name: _as_json(getattr(self, field.name)) for field in fields(self)}
        for name in _MODELS:
            if values[name] is not None and is_local_model(values[name]):
                values[name] = str(Path(values[name]).resolve())
        for name in _SOURCES:
            if values[name] is not None and values[name].endswith(".parquet"):
                values[name] = str(Path(values[name]).resolve())
        return values

    def _check_choices(self) -> None:
        for field in fields(self):
            allowed = get_args(field.type)
            value = getattr(self, field.name)
            if allowed and all(isinstance(each, str) for each in allowed) and value not in allowed:
                raise ValueError(f"{field.name} is {value!r}, expected one of {', '.join(allowed)}")

    def _check_stages(self) -> None:
        if self.prompt_format not in _STAGE_FORMATS[self.stage]:
            raise ValueError(
                f"--stage {self.stage} takes --prompt-format "
                f"{', '.join(_STAGE_FORMATS[self.stage])}; got {self.prompt_format}"
            )
        asked = f"got --stage {self.stage} --prompt-format {self.prompt_format}"
        for name in ("rationales", "val_rationales", "train_rationales"):
            if getattr(self, name) is not None and not self.reads_rationales:
                raise ValueError(
                    f"--{name.replace('_', '-')} are what the answer stage reads: they go with "
                    f"--stage both, or --stage answer --prompt-format QCMG-A; {asked}"
                )
        if self.target_rationales is not None and self.prompt_format not in TARGET_FORMATS:
            raise ValueError(
                f"--target-rationales need a format whose target has a rationale: "
                f"{', '.join(TARGET_FORMATS)}; got {self.prompt_format}"
            )
        if self.stage == "answer" and self.reads_rationales and self.rationales is None:
            raise ValueError(
                "--prompt-format QCMG-A needs --rationales PRODUCER for the questions that are "
                "tested; `--stage both` writes them itself"
            )
        for other, name in (("answer", "rationale_model"), ("rationale", "answer_model")):
            if self.stage == other and getattr(self, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} goes not with {asked[4:]}")
        if self.early_stopping is not None and self.keep != "best":
            raise ValueError("--early-stopping compares evaluations: it goes with --keep best")

    def _check_ranges(self) -> None:
        for name in (
            "batch_size",
            "gradient_accumulation",
            "eval_batch_size",
            "eval_questions",
            "length_window",
            "max_source",
            "max_rationale",
            "max_answer",
            "max_steps",
            "early_stopping",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("rationale_epochs", "answer_epochs", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("weight_decay", "loader_workers"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.vocab_size < _MIN_VOCAB_SIZE:
            raise ValueError(
                f"vocab_size must be at least {_MIN_VOCAB_SIZE}, got {self.vocab_size}"
            )
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps below 1, got {self.warmup}")


def _as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    return [_as_json(each) for each in value] if isinstance(value, tuple) else value
