"""What a skill is: how its text is written, and how a picture is drawn that fits the answer.

An image skill writes its text first, the answer is then drawn uniformly by the caller, and only
then the scene is arranged so that this answer is the right one. Nothing of the text can depend on
the answer, so the text alone leaves a reader at chance.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from numpy.random import Generator
from PIL import Image

__all__ = ["Exercise", "ImageSkill", "Labels", "TextSkill", "Wording", "conclude"]

SceneT = TypeVar("SceneT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """What all questions of a skill have in common."""

    subject: str
    topic: str
    category: str
    skill: str
    grades: tuple[int, int]
    """Lowest and highest school grade; a question's grade is drawn between them."""
    lecture: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wording:
    """The text of a question, without the answer."""

    question: str
    choices: tuple[str, ...]
    task: str = "closed choice"
    hint: str = ""
    caption: str = ""
    """What kind of picture ``image.png`` is; empty without one."""
    asked: tuple[str, ...] = ()
    """What the question asks about, for the skill's other functions."""
    further_files: dict[str, str] = field(default_factory=dict)
    """File name (``choice_0.png``, ``image_2.png``) to the name of a drawing of the skill."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exercise:
    """A text question with its answer."""

    wording: Wording
    answer: int
    solution: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSkill(Generic[SceneT]):
    """A skill whose answer is in the picture only."""

    labels: Labels
    write: Callable[[Generator], Wording]
    write_again: Callable[[Generator, Wording], Wording] | None = None
    """A second question about the same picture, whose answer does not depend on the first's."""
    shared_share: float = 0.0
    """Share of the pictures that two questions ask about, where ``write_again`` is given."""
    arrange: Callable[[Generator, Sequence[tuple[Wording, int]]], SceneT]
    """What the picture shows, given every question about it with its answer."""
    draw: Callable[[Generator, SceneT], Image.Image]
    explain: Callable[[Wording, int, SceneT], str]
    """The solution."""
    draw_further: Callable[[str], Image.Image] | None = None
    """Draws what ``Wording.further_files`` names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSkill:
    """A skill that needs no picture."""

    labels: Labels
    write: Callable[[Generator], Exercise]
    draw_further: Callable[[str], Image.Image] | None = None
    """Draws what ``Wording.further_files`` names."""


def conclude(choice: str) -> str:
    """The last sentence of every solution."""
    return f"So the answer is {choice}."
