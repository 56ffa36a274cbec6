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
from mmcot_model.config import TrainConfig
from mmcot_model.run_inputs import RunInputs

__all__ = ["RunRationales", "choose_rationales"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRationales:
    """Rationales by question id."""

    targets: Mapping[str, Sequence[Rationale]] | None = None
    """What the model learns to write; None for the gold ones of the prompt format."""
    train: Mapping[str, str] | None = None
    """What stage 2 learns to answer from; None if it reads none."""
    tested: Mapping[str, str] | None = None
    """What stage 2 is tested with; None if stage 1 of the run writes them, or it reads none."""
    reference_format: str | None = None
    """The form of the gold rationales that generated ones are compared with."""


def choose_rationales(config: TrainConfig, inputs: RunInputs) -> RunRationales:
    """Read the tables that a run names.

    Of tables to learn from, the kept rationales are taken. Of a table to be tested with, the first
    sample of each question is taken, whether it is kept or not: marks may know the right answer.

    Raises:
        DataError: If a table is damaged.
        TrainingError: If a table keeps no rationale of the training questions, does not cover the
            tested ones, or nothing says from what stage 2 should learn.
    """
    targets = None
    if inputs.target_rationales is not None:
        targets = kept_samples(read_rationales(inputs.target_rationales, inputs.questions))
        _check_covered(targets, inputs.target_rationales, config, inputs)
    given = None
    if inputs.train_rationales is not None:
        given = kept_rationales(read_rationales(inputs.train_rationales, inputs.questions))
        _check_covered(given, inputs.train_rationales, config, inputs)
    if config.stage == "both":
        if given is None and targets is not None:
            given = {key: rows[0].rationale for key, rows in targets.items()}
        return RunRationales(
            targets=targets,
            train=given or _gold(inputs.train, config.prompt_format),
            reference_format=config.prompt_format,
        )
    if inputs.rationales is None:
        return RunRationales(targets=targets)
    rows = read_rationales(inputs.rationales, inputs.questions)
    tested = first_rationales(rows)
    formats = sorted({row.prompt_format for row in rows})
    form = formats[0] if len(formats) == 1 and formats[0] in RATIONALE_FORMATS else None
    missing = [q.question_id for q in inputs.test if q.question_id not in tested]
    if missing:
        raise TrainingError(
            f"{inputs.rationales} has no rationale for {len(missing)} of {len(inputs.test)} "
            f"questions of {config.test_split}, the first is {missing[0]!r}: expected one for each "
            "question that is tested; make them, or name another table or --test-split"
        )
    _warn_of_gold(tested, inputs.test, inputs.rationales)
    if given is None:
        kept = kept_rationales(rows)
        if all(question.question_id in kept for question in inputs.train):
            given = kept
        elif form is not None:
            given = _gold(inputs.train, form)
        else:
            raise TrainingError(
                f"{inputs.rationales} has no rationale for some questions of {config.train_split}, "
                f"and gold ones of the same form cannot stand in: its prompt formats are {formats},"
                f" expected one of {', '.join(RATIONALE_FORMATS)}; name with --train-rationales "
                "what to learn from"
            )
    return RunRationales(train=given, tested=tested, reference_format=form)


def _gold(questions: Sequence[Question], prompt_format: str) -> dict[str, str]:
    return {question.question_id: gold_rationale(question, prompt_format) for question in questions}


def _check_covered(
    covered: Mapping[str, object], path: Path, config: TrainConfig, inputs: RunInputs
) -> None:
    """Some training questions need a rationale; the others are left out aloud."""
    num_covered = sum(question.question_id in covered for question in inputs.train)
    if num_covered == 0:
        raise TrainingError(
            f"{path} keeps no rationale of a question of {config.train_split}: make some, or mark "
            "them with `mmcot-data rationales keep`"
        )
    if num_covered < len(inputs.train):
        logger.warning(
            "%d of %d questions of %s are left out of the training that reads %s, which keeps no "
            "rationale for them",
            len(inputs.train) - num_covered,
            len(inputs.train),
            config.train_split,
            path,
        )


def _warn_of_gold(tested: Mapping[str, str], questions: Sequence[Question], path: Path) -> None:
    if all(
        tested.get(question.question_id) in [gold_rationale(question, f) for f in RATIONALE_FORMATS]
        for question in questions
    ):
        logger.warning(
            "%s holds the gold rationales of the tested questions: the scores are an upper bound, "
            "not what a model reaches that has to write its rationales",
            path,
        )
