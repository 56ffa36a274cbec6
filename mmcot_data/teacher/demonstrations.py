"""Demonstrations for few-shot prompts: from a file, or from rationales of train questions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcot_data.errors import DataError
from mmcot_data.prompts import gold_rationale
from mmcot_data.questions import OPTION_LETTERS, Question
from mmcot_data.rationales import kept_rationales, read_rationales
from mmcot_data.strict_json import parse_json
from mmcot_data.teacher.config import TeacherConfig
from mmcot_data.teacher.prompts import Demonstration, question_block
from mmcot_data.text_artifacts import artifact_path

__all__ = ["given_demonstrations", "without_cue"]

_GOLD = "gold"
_CUE = "Solution:"


def given_demonstrations(
    config: TeacherConfig, questions: Sequence[Question], captions: Mapping[str, str]
) -> list[Demonstration]:
    """The demonstrations that a request of few-shot-cot names.

    Args:
        config: The request.
        questions: All questions of the artifact root.
        captions: Caption by question id, shown in a demonstration as in the question asked.

    Raises:
        DataError: If a file or a producer is absent or not what it should be, an id is of no train
            question, or a train question has no usable rationale.
    """
    if config.demonstrations is not None:
        return _read_file(config.demonstrations)
    assert config.demonstrations_from is not None
    train = {q.question_id: q for q in questions if q.split == "train"}
    wrong = [each for each in config.demonstration_ids if each not in train]
    if wrong:
        raise DataError(
            f"demonstrations must be train questions; {', '.join(map(repr, wrong))} "
            f"{'is' if len(wrong) == 1 else 'are'} not among the {len(train)} of {config.artifacts}"
        )
    texts = _rationales(config, [train[each] for each in config.demonstration_ids])
    return [
        Demonstration(
            block=question_block(train[each], captions.get(each)),
            rationale=texts[each],
            letter=_letter(train[each]),
            question_id=each,
        )
        for each in config.demonstration_ids
    ]


def without_cue(rationale: str) -> str:
    """A rationale without the ``Solution:`` with which stage 2 reads it."""
    return rationale.removeprefix(_CUE).strip()


def _rationales(config: TeacherConfig, chosen: Sequence[Question]) -> dict[str, str]:
    producer = str(config.demonstrations_from)
    path = artifact_path(config.artifacts, "rationales", producer)
    if producer == _GOLD and not path.is_file():
        texts = {q.question_id: gold_rationale(q, "QCM-LE", quirks=False) for q in chosen}
    else:
        rows = read_rationales(path)
        gold = {q.question_id: q.answer for q in chosen}
        texts = kept_rationales(
            row
            for row in rows
            if row.question_id in gold and row.answer in (None, gold[row.question_id])
        )
    texts = {question_id: without_cue(text) for question_id, text in texts.items()}
    if missing := [q.question_id for q in chosen if not texts.get(q.question_id)]:
        raise DataError(
            f"the producer {producer!r} has no rationale for {', '.join(map(repr, missing))} that "
            "is kept, not empty and leads to the right answer: choose other demonstration ids"
        )
    return texts


def _letter(question: Question) -> str:
    if question.answer is None:
        raise DataError(
            f"question {question.question_id!r} can be no demonstration: its answer is hidden"
        )
    return OPTION_LETTERS[question.answer]


def _read_file(path: Path) -> list[Demonstration]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a file of demonstrations, JSON lines")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8: {error}") from error
    found, problems = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_parse_line(parse_json(line, f"line {number}"), f"line {number}"))
            except DataError as error:
                problems.append(str(error))
    if problems:
        raise DataError(f"{path}: {len(problems)} unusable lines: {'; '.join(problems)}")
    if not found:
        raise DataError(f"{path}: expected at least one demonstration, found none")
    return found


def _parse_line(content: Any, where: str) -> Demonstration:
    """One demonstration of a file; its answer is an index or a letter."""
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected an object, found {type(content).__name__}")
    required = {"question", "choices", "rationale", "answer"}
    if missing := sorted(required - content.keys()):
        raise DataError(f"{where}: lacks {', '.join(missing)}")
    if unknown := sorted(content.keys() - required - {"context"}):
        raise DataError(f"{where}: unknown {', '.join(unknown)}")
    texts = {name: content.get(name, "") for name in ("question", "context", "rationale")}
    choices, answer = content["choices"], content["answer"]
    if not all(isinstance(text, str) for text in texts.values()) or not texts["rationale"].strip():
        raise DataError(f"{where}: expected texts as question, context and rationale")
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"{where}: expected a list of texts as choices, found {choices!r}")
    if isinstance(answer, str):
        index = OPTION_LETTERS.find(answer) if len(answer) == 1 else -1
    else:
        index = answer if type(answer) is int else -1
    if not 0 <= index < len(choices):
        raise DataError(
            f"{where}: answer is {answer!r}, expected the letter or the index (from 0) of one of "
            f"{len(choices)} choices"
        )
    try:
        question = Question(
            dataset="demonstrations",
            question_id=where,
            split="train",
            position=0,
            question=texts["question"],
            choices=tuple(choices),
            answer=index,
            hint=texts["context"],
        )
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return Demonstration(
        block=question_block(question),
        rationale=texts["rationale"].strip(),
        letter=OPTION_LETTERS[index],
        question_id=None,
    )
