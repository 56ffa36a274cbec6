"""Decide each question's skill and split, and which questions share a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from mmcot_data.questions import MINI_SPLITS, SPLITS
from mmcot_data.sample.skill import ImageSkill
from mmcot_data.sample.skills import SHARES, SKILLS

__all__ = ["Assignment", "plan_sample", "plan_splits"]

_SPLIT_SHARES = (0.7, 0.1, 0.2)
_MINI_SHARE = 0.1
_PLAN_STREAM = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """One question, or two that share a picture."""

    skill: str
    split: str
    numbers: tuple[int, ...]
    """The question ids as numbers, counted from 1."""


def plan_sample(num_questions: int, seed: int) -> list[Assignment]:
    """The whole sample, ordered by the first number of each assignment.

    Skills get exactly their shares and stand in a random order; every skill has the same shares of
    the splits. Questions that share a picture are of the same split.
    """
    rng = np.random.default_rng([seed, _PLAN_STREAM])
    order = rng.permutation(num_questions) + 1
    assignments: list[Assignment] = []
    for name, numbers in zip(SHARES, _cut(order, tuple(SHARES.values())), strict=True):
        for split, members in zip(SPLITS, _cut(numbers, _SPLIT_SHARES), strict=True):
            assignments += [
                Assignment(skill=name, split=split, numbers=group)
                for group in _share_pictures(rng, name, sorted(members.tolist()))
            ]
    return sorted(assignments, key=lambda assignment: assignment.numbers)


def plan_splits(assignments: Sequence[Assignment], seed: int) -> dict[str, list[str]]:
    """The seven lists of pid_splits.json."""
    lists = {
        split: [
            str(number)
            for number in sorted(n for a in assignments if a.split == split for n in a.numbers)
        ]
        for split in SPLITS
    }
    rng = np.random.default_rng([seed, _PLAN_STREAM, 1])
    minis = {
        mini: rng.permutation(lists[split])[: round(len(lists[split]) * _MINI_SHARE)].tolist()
        for mini, split in MINI_SPLITS.items()
    }
    return {**lists, "trainval": lists["train"] + lists["val"], **minis}


def _cut(numbers: np.ndarray, shares: tuple[float, ...]) -> list[np.ndarray]:
    """Consecutive pieces of these shares."""
    ends = np.rint(np.cumsum(shares)[:-1] * len(numbers)).astype(int)
    return np.split(numbers, ends)


def _share_pictures(rng: Generator, name: str, numbers: list[int]) -> list[tuple[int, ...]]:
    skill = SKILLS[name]
    share = skill.shared_share if isinstance(skill, ImageSkill) else 0.0
    groups: list[tuple[int, ...]] = []
    while numbers:
        size = 2 if len(numbers) > 1 and rng.random() < share else 1
        groups.append(tuple(numbers[:size]))
        numbers = numbers[size:]
    return groups
