"""What a teacher is: it completes prompts, for chains of thought that it works through."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

__all__ = ["Completion", "Request", "Steps", "Teacher"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A prompt to complete."""

    prompt: str
    max_new_tokens: int
    temperature: float
    """0 takes the most probable token each time."""
    top_p: float
    seed: int
    """Of 63 bits; decides what is drawn for this request, whatever is asked beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What the teacher wrote."""

    text: str
    """Without the stop text and what follows it."""
    finish_reason: str
    """``stop``; ``length``: cut off at the limit; ``too_long``: the prompt leaves no room in the
    model's window, and nothing was written; else what a server says, such as
    ``content_filter``."""


Steps = Generator[Request, Completion, T]
"""Asks one request after the other, is sent what the teacher wrote, and returns a result."""


class Teacher(Protocol):
    """A model that is ready to write."""

    @property
    def batch_size(self) -> int | None:
        """How many chains it works through at once; None: any number may be given."""

    def work(self, chains: Sequence[Steps[T]]) -> Iterator[list[tuple[int, T]]]:
        """Work through chains; yields results as they come, each with its place in ``chains``.

        Raises:
            GenerationError: If the teacher can't go on.
        """

    def notes(self) -> dict[str, Any]:
        """What else to say about how it wrote, such as JSON can hold."""

    def close(self) -> None:
        """Let go of what it holds."""
