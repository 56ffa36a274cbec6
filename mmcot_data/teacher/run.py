"""Write the rationales of a request, and go on with them after any stop."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcot_data.captions import read_captions
from mmcot_data.errors import DataError
from mmcot_data.growing_artifact import GrowingArtifact, grow_artifact
from mmcot_data.questions import Question, read_questions, select_split
from mmcot_data.rationales import RATIONALE_KEY, KeepRule, is_correct, kept_marks
from mmcot_data.teacher.auto_cot import automatic_demonstrations
from mmcot_data.teacher.chains import Item, Manner, write_chain
from mmcot_data.teacher.config import TeacherConfig
from mmcot_data.teacher.demonstrations import given_demonstrations
from mmcot_data.teacher.opening import TeacherInWaiting, find_teacher
from mmcot_data.teacher.prompts import Demonstration, demonstrations_sha256, prompts_sha256
from mmcot_data.teacher.summary import RationaleSummary, split_scores, summarise
from mmcot_data.teacher.table import TEACHER_SCHEMA, make_row
from mmcot_data.text_artifacts import artifact_path, read_made_by

__all__ = ["Reports", "generate_teacher_rationales", "plan_batches"]

_WINDOW = 16
"""Batches whose items are sorted by length together."""


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Reports:
    """Functions that are told how it gets on."""

    demonstrated: Callable[[int, int], object] = _ignore
    """auto-cot: clusters that have a demonstration, and all of them."""
    written: Callable[[int, int], object] = _ignore
    """Rationales that are there, those of earlier runs included, and all that were asked for."""


def generate_teacher_rationales(
    config: TeacherConfig, reports: Reports | None = None
) -> RationaleSummary:
    """Let a teacher write rationales, as the table ``rationales/<producer>.parquet``.

    What is there is not written again; if all is, the teacher is not even opened. Whatever stops
    it, the same call goes on with the rest. A local teacher's batches are part of the plan, and
    every draw has a seed of its own, so that the rows are in the end those of a run that was not
    stopped.

    Args:
        config: The request.
        reports: Told how it gets on.

    Raises:
        DataError: If the artifact root, its captions or the demonstrations can't be read, the table
            was made with other settings, or for other texts of its questions.
        GenerationError: If the teacher can't be opened or can't go on.
        EncoderError: If there is no such device.
    """
    reports = reports or Reports()
    questions = read_questions(config.artifacts)
    captions: dict[str, str] = {}
    if config.captions is not None:
        captions = read_captions(artifact_path(config.artifacts, "captions", config.captions))
    asked = _asked_for(config, questions)
    path = artifact_path(config.artifacts, "rationales", config.producer)
    with find_teacher(config.teacher) as waiting:
        demonstrations: list[Demonstration] = []
        if config.method == "few-shot-cot":
            demonstrations = given_demonstrations(config, questions, captions)
        elif config.method == "auto-cot":
            demonstrations = automatic_demonstrations(
                config, waiting, questions, captions, reports.demonstrated
            )
        items = [
            Item.of(question, sample, captions.get(question.question_id))
            for question in asked
            for sample in range(config.samples)
        ]
        settings = _settings(config, waiting, captions, demonstrations)
        with grow_artifact(path, TEACHER_SCHEMA, RATIONALE_KEY, settings) as artifact:
            artifact.refuse_unknown({question.question_id for question in questions})
            _check_texts(artifact, items)
            manner = Manner.of(config, demonstrations)
            num_new = _write(artifact, waiting, items, manner, reports.written)
            _finish(artifact, config, waiting, questions, demonstrations)
            rows = [artifact[item.key] for item in items]
    return summarise(
        path,
        rows,
        asked,
        num_new=num_new,
        num_samples=config.samples,
        demonstration_ids=tuple(each.question_id for each in demonstrations),
    )


def plan_batches(items: Sequence[Item], batch_size: int | None) -> list[list[Item]]:
    """Batches of items of like length, which depend on nothing but the request.

    Args:
        items: All that are asked for, those that are there included.
        batch_size: Of the teacher; None gives one batch of all.
    """
    if batch_size is None:
        return [list(items)]
    batches = []
    for start in range(0, len(items), _WINDOW * batch_size):
        window = sorted(
            items[start : start + _WINDOW * batch_size], key=lambda item: -len(item.block)
        )
        batches += [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
    return batches


def _asked_for(config: TeacherConfig, questions: Sequence[Question]) -> list[Question]:
    chosen: dict[str, Question] = {}
    for split in config.splits:
        for question in select_split(questions, split)[: config.limit]:
            chosen.setdefault(question.question_id, question)
    return list(chosen.values())


def _settings(
    config: TeacherConfig,
    waiting: TeacherInWaiting,
    captions: Mapping[str, str],
    demonstrations: Sequence[Demonstration],
) -> dict[str, Any]:
    """What decides the rows: a table is only continued with equal ones."""
    settings: dict[str, Any] = {
        "producer": "teacher",
        "method": config.method,
        "teacher": waiting.settings,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "max_new_tokens": config.max_new_tokens,
        "seed": config.seed,
        "answer_extraction": config.extraction,
        "captions": config.captions,
        "prompts_sha256": prompts_sha256(),
    }
    if config.captions is not None:
        texts = json.dumps(captions, ensure_ascii=False, sort_keys=True)
        settings["captions_sha256"] = hashlib.sha256(texts.encode()).hexdigest()
    if demonstrations:
        settings["demonstrations_sha256"] = demonstrations_sha256(demonstrations)
    if config.method == "least-to-most":
        settings["max_steps"] = config.max_steps
    return settings


def _check_texts(artifact: GrowingArtifact, items: Sequence[Item]) -> None:
    for item in items:
        if item.key in artifact and item.block not in artifact[item.key]["prompt"]:
            raise DataError(
                f"{artifact.path}: the rationale of question {item.question.question_id!r} was "
                "written for another text of the question, its context or its caption: delete the "
                "table, or choose another producer name"
            )


def _write(
    artifact: GrowingArtifact,
    waiting: TeacherInWaiting,
    items: Sequence[Item],
    manner: Manner,
    on_progress: Callable[[int, int], object],
) -> int:
    """Write the items that are not there; gives how many those were."""
    num_before = num_done = sum(item.key in artifact for item in items)
    on_progress(num_done, len(items))
    if num_done == len(items):
        return 0
    teacher = waiting.open()
    for batch in plan_batches(items, teacher.batch_size):
        missing = [item for item in batch if item.key not in artifact]
        if not missing:
            continue
        for group in teacher.work([write_chain(item, manner) for item in missing]):
            artifact.add(make_row(missing[place], chain, manner.method) for place, chain in group)
            num_done += len(group)
            on_progress(num_done, len(items))
    return num_done - num_before


def _finish(
    artifact: GrowingArtifact,
    config: TeacherConfig,
    waiting: TeacherInWaiting,
    questions: Sequence[Question],
    demonstrations: Sequence[Demonstration],
) -> None:
    before: Mapping[str, Any] = read_made_by(artifact.path) if artifact.path.is_file() else {}
    rule: KeepRule = config.keep or before.get("kept", "all")
    gold = {question.question_id: question.answer for question in questions}
    before_rows = artifact.rows()
    rows = [
        {**row, "correct": is_correct(row["answer"], gold[row["question_id"]])}
        for row in before_rows
    ]
    marks = kept_marks(rows, rule)
    rows = [{**row, "kept": kept} for row, kept in zip(rows, marks, strict=True)]
    changed = [row for row, old in zip(rows, before_rows, strict=True) if row != old]
    if changed:
        artifact.add(changed)
    made_with = waiting.open().notes() if waiting.is_open else before.get("made_with", {})
    artifact.finish(
        {question.question_id: place for place, question in enumerate(questions)},
        {
            "kept": rule,
            "demonstration_ids": [each.question_id for each in demonstrations],
            "splits": split_scores(artifact.rows(), questions),
            "made_with": made_with,
        },
    )
