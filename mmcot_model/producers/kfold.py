"""Rationales of the training questions by models that have not seen them: ``stage1-kfold``.

Multimodal-CoT trains its second stage on gold rationales and tests it on generated ones. A stage 1
that writes rationales for the questions it was trained on writes them almost from memory, which is
no better. So the training split is divided into folds, and the rationales of each fold come from a
model that was trained on the others.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmcot_data.errors import DataError, TrainingError
from mmcot_data.questions import Question
from mmcot_data.rationales import Rationale, read_rationales, write_rationales_once
from mmcot_data.text_artifacts import artifact_path, read_made_by
from mmcot_model.distributed import num_processes
from mmcot_model.runs.folder import FREE_SETTINGS, claim_folder, finish_folder, locked_folder
from mmcot_model.runs.inputs import RunInputs, check_splits_apart, read_inputs
from mmcot_model.runs.rationales import choose_rationales
from mmcot_model.runs.stages import StageRun
from mmcot_model.settings.config import TrainConfig

__all__ = ["KFoldConfig", "KFoldSummary", "fold_of", "write_kfold_rationales"]


@dataclass(frozen=True, kw_only=True, slots=True)
class KFoldConfig:
    """How the folds are made and trained.

    Raises:
        ValueError: If there are fewer than two folds, or the stage is not that of rationales.
    """

    train: TrainConfig
    """Of each fold's model; ``output`` holds a run folder for each fold, ``train_split`` is what
    is divided; its questions without an answer are left out, as training leaves them out."""
    folds: int = 5
    producer: str = "stage1-kfold"

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}, expected at least 2")
        if self.train.stage != "rationale":
            raise ValueError(f"stage is {self.train.stage!r}, expected 'rationale'")


@dataclass(frozen=True, kw_only=True, slots=True)
class KFoldSummary:
    """What became of it."""

    path: Path
    num_rows: int
    is_new: bool
    """Whether the table was written now."""
    num_cut_off: int
    """Rationales that ended at the limit of tokens."""


def fold_of(question: Question, folds: int) -> int:
    """The fold of a question, by a hash of its id, so that it does not depend on the others."""
    digest = hashlib.sha256(f"{question.dataset}/{question.question_id}".encode()).digest()
    return int.from_bytes(digest[:8]) % folds


def write_kfold_rationales(
    config: KFoldConfig, on_fold: Callable[[int, int], object] | None = None
) -> KFoldSummary:
    """Train a stage 1 for each fold on the other folds, and write the rationales of all folds.

    Stopped, it goes on: finished folds are read, an unfinished one continues from its checkpoint.

    Args:
        config: Folds and training.
        on_fold: Called with the folds that are done and with all of them.

    Raises:
        TrainingError: If the run folders hold something else, pictures lack features, validation
            questions are among those that are divided, or there are several processes.
        DataError: If a table is absent, damaged or holds something else, or a fold is empty.
        ShardError: If the feature set cannot be read.
    """
    if num_processes() > 1:
        raise TrainingError("folds are trained by one process: leave out torchrun")
    inputs = read_inputs(config.train)
    check_splits_apart(config.train, replace(inputs, test=[]))
    divided = inputs.train
    parts = [[q for q in divided if fold_of(q, config.folds) == k] for k in range(config.folds)]
    if any(len(part) in (0, len(divided)) for part in parts):
        raise DataError(
            f"{len(divided)} questions make folds of {', '.join(str(len(part)) for part in parts)} "
            "questions: a fold would be empty; give fewer --folds"
        )
    path = artifact_path(config.train.artifacts, "rationales", config.producer)
    made_by = _made_by(config, inputs)
    if path.is_file():
        return _summary(path, _existing(path, made_by, inputs), is_new=False)
    rows: dict[str, Rationale] = {}
    with locked_folder(config.train.output):
        for fold, part in enumerate(parts):
            rows |= {row.question_id: row for row in _fold_rationales(config, inputs, fold, part)}
            if on_fold is not None:
                on_fold(fold + 1, config.folds)
    write_rationales_once(path, [rows[q.question_id] for q in divided], made_by)
    return _summary(path, list(rows.values()), is_new=True)


def _existing(path: Path, made_by: dict[str, Any], inputs: RunInputs) -> list[Rationale]:
    """The table's rows if the same request made it; whatever its marks."""
    found = {name: value for name, value in read_made_by(path).items() if name != "kept"}
    if found != made_by:
        raise DataError(
            f"{path} was made with other settings or inputs: choose another --producer, or delete "
            "the file to make it anew"
        )
    return read_rationales(path, inputs.questions)


def _fold_rationales(
    config: KFoldConfig, inputs: RunInputs, fold: int, held_out: Sequence[Question]
) -> list[Rationale]:
    """Rationales of the held-out questions, by a model that was trained on the others."""
    folder = config.train.output / f"fold-{fold}-of-{config.folds}"
    train = replace(config.train, output=folder)
    hidden = {question.question_id for question in held_out}
    part = replace(
        inputs,
        train=[q for q in inputs.train if q.question_id not in hidden],
        test=held_out,
        sha256={**inputs.sha256, "fold": _digest(sorted(hidden))},
    )
    claim_folder(train, part, resume=True)
    if not (folder / "run.json").is_file():
        run = StageRun(train, part, choose_rationales(train, part))
        run.rationale_stage()
        finish_folder(train, part, run.cuts)
    return read_rationales(folder / "rationales.parquet", inputs.questions)


def _made_by(config: KFoldConfig, inputs: RunInputs) -> dict[str, Any]:
    """Every setting but places, and digests of what is read."""
    places = ("artifacts", "output", "features", "test_split", *FREE_SETTINGS)
    training = {name: v for name, v in config.train.to_json().items() if name not in places}
    return {
        "producer": "stage1-kfold",
        "folds": config.folds,
        "training": training,
        "sha256": dict(inputs.sha256),
    }


def _digest(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _summary(path: Path, rows: Sequence[Rationale], *, is_new: bool) -> KFoldSummary:
    return KFoldSummary(
        path=path,
        num_rows=len(rows),
        is_new=is_new,
        num_cut_off=sum(row.finish_reason == "length" for row in rows),
    )
