"""What a source of pictures is: pictures that can be read by themselves, each with its key."""

from dataclasses import dataclass
from typing import Protocol

from mmcot_data.scienceqa import ScienceQA

__all__ = ["ImageSource", "SourceImage", "StoredImage"]


class StoredImage(Protocol):
    """Where one picture's bytes are. Small, hashable, and it can be pickled."""

    @property
    def name(self) -> str:
        """What to call it in errors: ``data/images/train/3/image.png``, ``train.parquet row 7``."""
        ...

    def read(self) -> bytes:
        """The encoded picture; safe to call from several threads.

        Raises:
            ImageError: If it is missing, empty, or not readable by this user.
            DataError: If the saved dataset that it is in is gone or damaged.
            OSError: If reading fails; another try may succeed.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceImage:
    """One picture that is asked for."""

    question_id: str
    """Of the question it belongs to; where there are no questions, what identifies the picture."""
    role: str
    """``question``, ``question_2``, ``choice_0``, …; ``question`` where there are no questions."""
    file: str
    """Its place within the source, for people and for index.parquet: ``images/train/3/image.png``,
    ``data/train-0.parquet#7``."""
    stored: StoredImage


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSource:
    """Pictures with their keys, and the data set's texts where it has some."""

    dataset: str
    licence: str
    images: list[SourceImage]
    """In the source's order; a picture that several questions share is listed for each."""
    questions: ScienceQA | None
    """The questions and captions for the artifact root's tables; None if there are none."""
