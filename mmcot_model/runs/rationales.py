"""Whose rationales a run learns to write, learns to answer from, and is tested with."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcot_data.errors import TrainingError
from mmcot_data.prompts import RATIONALE_FORMATS, gold_rationale
from mmcot_data.questions import Question
from mmcot_data.rationales import (
    Rationale,
    first_rationales,
    kept_rationales,
    kept_samples,
    read_rationales,
)
from mmcot_model.runs.inputs import GOLD_SOURCES, RunInputs
from mmcot_model.settings.config import TrainConfig

__all__ = ["RunRationales", "choose_rationales"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRationales:
    """Rationales by question id."""

    targets: Mapping[str, Sequence[Rationale]] | None = None
    """What the model learns to write; None for the gold ones of the prompt format."""
    train: Mapping[str, str] | None = None
    """What the answer stage learns from; None if it reads none, or learns nothing."""
    val: Mapping[str, str] | None = None
    """What it is validated with; None if the run's own stage 1 writes them."""
    tested: Mapping[str, str] | None = None
    """What it is tested with; None if the run's own stage 1 writes them, or it reads none."""
    reference_format: str | None = None
    """The form of the gold rationales that generated ones are compared with."""


def choose_rationales(config: TrainConfig, inputs: RunInputs) -> RunRationales:
    """Read the sources that a run names.

    Of sources to learn from, the kept rationales are taken. Of those to be validated or tested
    with, the first sample of each question is taken, whether it is kept or not: marks may know the
    right answer.

    Raises:
        DataError: If a table is damaged.
        TrainingError: If a source keeps no rationale of the training questions, does not cover
            those that are asked, or nothing says from what the answer stage should learn.
    """
    targets = None
    if config.target_rationales is not None:
        targets = kept_samples(_rows(config, inputs, "target_rationales"))
        _check_covered(targets, "target_rationales", config, inputs)
    if not config.reads_rationales:
        form = config.prompt_format if config.prompt_format in RATIONALE_FORMATS else None
        return RunRationales(targets=targets, reference_format=form)
    form = config.prompt_format if config.stage == "both" else None
    tested = None
    if config.rationales is not None:
        rows = _rows(config, inputs, "rationales")
        tested = first_rationales(rows)
        form = _form(rows)
        _check_complete(tested, inputs.test, config.rationales, config.test_split, "rationales")
        _warn_of_gold(tested, inputs.test, config.rationales)
    val = None
    if config.trains("answer") and (config.val_rationales or tested is not None):
        source = config.val_rationales or config.rationales
        val = tested
        if config.val_rationales is not None:
            val = first_rationales(_rows(config, inputs, "val_rationales"))
        _check_complete(val or {}, inputs.val, source, config.val_split, "val_rationales")
    train = None
    if config.trains("answer"):
        train = _train_rationales(config, inputs, targets, form)
    return RunRationales(
        targets=targets, train=train, val=val, tested=tested, reference_format=form
    )


def _train_rationales(
    config: TrainConfig,
    inputs: RunInputs,
    targets: Mapping[str, Sequence[Rationale]] | None,
    form: str | None,
) -> dict[str, str]:
    if config.train_rationales is not None:
        given = kept_rationales(_rows(config, inputs, "train_rationales"))
        _check_covered(given, "train_rationales", config, inputs)
        return given
    if config.rationales is not None:
        kept = kept_rationales(_rows(config, inputs, "rationales"))
        if all(question.question_id in kept for question in inputs.train):
            return kept
    elif targets is not None:
        return {key: rows[0].rationale for key, rows in targets.items()}
    if form is None:
        raise TrainingError(
            f"{config.rationales} has no rationale for some questions of {config.train_split}, and "
            f"gold ones cannot stand in, since its rows are not of one of the prompt formats "
            f"{', '.join(RATIONALE_FORMATS)}; name with --train-rationales what to learn from"
        )
    return {q.question_id: gold_rationale(q, form) for q in inputs.train}


def _rows(config: TrainConfig, inputs: RunInputs, setting: str) -> Sequence[Rationale]:
    """The rows of the source that a setting names."""
    source = getattr(config, setting)
    if source not in GOLD_SOURCES:
        return read_rationales(inputs.tables[setting], inputs.questions)
    form = GOLD_SOURCES[source]
    return [
        Rationale(
            question_id=question.question_id,
            rationale=gold_rationale(question, form),
            prompt_format=form,
        )
        for question in inputs.questions
    ]


def _form(rows: Sequence[Rationale]) -> str | None:
    """The one prompt format of rationales, if there is one."""
    formats = {row.prompt_format for row in rows}
    form = formats.pop() if len(formats) == 1 else None
    return form if form in RATIONALE_FORMATS else None


def _check_complete(
    covered: Mapping[str, object],
    questions: Sequence[Question],
    source: str | None,
    split: str,
    setting: str,
) -> None:
    missing = [q.question_id for q in questions if q.question_id not in covered]
    if missing:
        keep_last = ", or --keep last" if setting == "val_rationales" else ""
        raise TrainingError(
            f"{source} has no rationale for {len(missing)} of {len(questions)} questions of "
            f"{split}, the first is {missing[0]!r}: expected one for each of them; make them, or "
            f"name another source with --{setting.replace('_', '-')}{keep_last}"
        )


def _check_covered(
    covered: Mapping[str, object], setting: str, config: TrainConfig, inputs: RunInputs
) -> None:
    """Some training questions need a rationale; the others are left out aloud."""
    source: Path | str = inputs.tables.get(setting, getattr(config, setting))
    num_covered = sum(question.question_id in covered for question in inputs.train)
    if inputs.train and num_covered == 0:
        raise TrainingError(
            f"{source} keeps no rationale of a question of {config.train_split}: make some, or "
            "mark them with `mmcot-data rationales keep`"
        )
    if num_covered < len(inputs.train):
        logger.warning(
            "%d of %d questions of %s are left out of the training that reads %s, which keeps no "
            "rationale for them",
            len(inputs.train) - num_covered,
            len(inputs.train),
            config.train_split,
            source,
        )


def _warn_of_gold(tested: Mapping[str, str], questions: Sequence[Question], source: str) -> None:
    if all(
        tested.get(question.question_id) in [gold_rationale(question, f) for f in RATIONALE_FORMATS]
        for question in questions
    ):
        logger.warning(
            "%s holds the gold rationales of the tested questions: the scores are an upper bound, "
            "not what a model reaches that has to write its rationales",
            source,
        )
