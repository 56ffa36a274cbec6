"""Write the questions of one assignment: the text first, then the answer, then the scene."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator

from mmcot_data.sample.plan import Assignment
from mmcot_data.sample.skill import ImageSkill, Wording
from mmcot_data.sample.skills import SKILLS

__all__ = ["Composition", "compose", "picture_rng"]

_TEXT_STREAM, _ANSWER_STREAM, _PICTURE_STREAM = 1, 2, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Composition:
    """The records of an assignment, and what their picture shows."""

    wordings: tuple[Wording, ...]
    records: tuple[dict[str, Any], ...]
    """In ScienceQA's format, one for each number."""
    scene: Any
    """The skill's own description of the picture; None without one."""


def compose(assignment: Assignment, seed: int, answers: Sequence[int] | None = None) -> Composition:
    """Write the questions of one assignment.

    Each question draws from streams of its own, (seed, number, purpose), so that the result does
    not depend on which process writes it, or on what was written before.

    Args:
        assignment: The skill, the split and the numbers of the questions.
        seed: The sample's seed.
        answers: Right answers to use in place of drawn ones; for image skills.
    """
    skill = SKILLS[assignment.skill]
    streams = [np.random.default_rng([seed, n, _TEXT_STREAM]) for n in assignment.numbers]
    low, high = skill.labels.grades
    grades = [f"grade{rng.integers(low, high + 1)}" for rng in streams]
    if not isinstance(skill, ImageSkill):
        exercises = [skill.write(rng) for rng in streams]
        asked = [(exercise.wording, exercise.answer) for exercise in exercises]
        solutions = [exercise.solution for exercise in exercises]
        scene = None
    else:
        wordings = _write_texts(skill, streams)
        if answers is None:
            answers = [
                int(np.random.default_rng([seed, n, _ANSWER_STREAM]).integers(len(wording.choices)))
                for n, wording in zip(assignment.numbers, wordings, strict=True)
            ]
        asked = list(zip(wordings, answers, strict=True))
        scene = skill.arrange(picture_rng(assignment, seed, "scene"), asked)
        solutions = [skill.explain(wording, answer, scene) for wording, answer in asked]
    return Composition(
        wordings=tuple(wording for wording, _ in asked),
        records=tuple(
            _record(assignment, wording, answer, solution, grade)
            for (wording, answer), solution, grade in zip(asked, solutions, grades, strict=True)
        ),
        scene=scene,
    )


def _write_texts(skill: ImageSkill[Any], streams: Sequence[Generator]) -> list[Wording]:
    first, *others = streams
    wordings = [skill.write(first)]
    for rng in others:
        if skill.write_again is None:
            raise ValueError(f"{skill.labels.skill}: no second question about a picture")
        wordings.append(skill.write_again(rng, wordings[0]))
    return wordings


def picture_rng(
    assignment: Assignment, seed: int, purpose: Literal["scene", "drawing"]
) -> Generator:
    """The random stream for the ``scene`` or the ``drawing`` of an assignment's picture."""
    step = ("scene", "drawing").index(purpose)
    return np.random.default_rng([seed, assignment.numbers[0], _PICTURE_STREAM, step])


def _record(
    assignment: Assignment, wording: Wording, answer: int, solution: str, grade: str
) -> dict[str, Any]:
    skill = SKILLS[assignment.skill]
    labels = skill.labels
    return {
        "question": wording.question,
        "choices": list(wording.choices),
        "answer": answer,
        "hint": wording.hint,
        "image": "image.png" if isinstance(skill, ImageSkill) else None,
        "task": wording.task,
        "grade": grade,
        "subject": labels.subject,
        "topic": labels.topic,
        "category": labels.category,
        "skill": labels.skill,
        "lecture": labels.lecture,
        "solution": solution,
        "split": assignment.split,
    }
