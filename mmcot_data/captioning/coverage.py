"""Which pictures have captions, split by split, and what they look like."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcot_data.captions import CAPTION_KEY, CAPTION_SCHEMA
from mmcot_data.errors import DataError
from mmcot_data.questions import SPLITS, Question, read_questions
from mmcot_data.text_artifacts import artifact_path, read_artifact

__all__ = ["CaptionCoverage", "RoleCoverage", "caption_coverage", "find_producers"]

_NUM_SAMPLES = 3
_CHOICES = "choice"

_Captions = dict[tuple[str, str], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleCoverage:
    """The pictures of one split in one kind of role."""

    split: str
    role: str
    """``question``, ``question_2``, …; ``choice`` for all choice images."""
    num_pictures: int
    num_captions: int
    """Of these pictures."""
    num_empty: int
    """Captions without a word."""
    mean_words: float | None
    """Of the captions that are not empty; None if there are none."""
    samples: tuple[tuple[str, str], ...]
    """(question id, caption) of a few, from the first to the last."""

    @property
    def num_missing(self) -> int:
        """Pictures without a caption."""
        return self.num_pictures - self.num_captions


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionCoverage:
    """The captions of one producer beside the pictures that questions.parquet lists."""

    producer: str
    path: Path
    roles: tuple[RoleCoverage, ...]
    num_captions: int
    """All of them."""
    num_without_picture: int
    """Captions of pictures that questions.parquet does not list."""


def find_producers(artifacts: Path) -> list[str]:
    """The producers of captions in an artifact root.

    Raises:
        DataError: If there are none.
    """
    folder = artifacts / "captions"
    if producers := sorted(path.stem for path in folder.glob("[!.]*.parquet")):
        return producers
    raise DataError(
        f"{folder} holds no captions: make some with `mmcot-data captions generate DATA "
        f"--captioner NAME --out {artifacts}`, or import a file of them"
    )


def caption_coverage(artifacts: Path, producer: str) -> CaptionCoverage:
    """Compare captions with the pictures of the questions.

    Args:
        artifacts: The artifact root, with questions.parquet.
        producer: Whose captions.

    Raises:
        DataError: If questions.parquet or the captions are absent or damaged.
    """
    path = artifact_path(artifacts, "captions", producer)
    questions = read_questions(artifacts)
    table = read_artifact(path, CAPTION_SCHEMA, CAPTION_KEY)
    captions = {(question_id, role): text for question_id, role, text in table.iter_rows()}
    pictures = {(q.question_id, role) for q in questions for role in q.image_roles}
    return CaptionCoverage(
        producer=producer,
        path=path,
        roles=tuple(_role_coverages(questions, captions)),
        num_captions=len(captions),
        num_without_picture=len(captions.keys() - pictures),
    )


def _role_coverages(questions: Sequence[Question], captions: _Captions) -> Iterator[RoleCoverage]:
    for split in SPLITS:
        keys: dict[str, list[tuple[str, str]]] = {}
        for question in questions:
            if question.split == split:
                for role in question.image_roles:
                    keys.setdefault(_kind(role), []).append((question.question_id, role))
        for kind in sorted(keys, key=lambda kind: (kind == _CHOICES, kind)):
            yield _role_coverage(split, kind, keys[kind], captions)


def _kind(role: str) -> str:
    return _CHOICES if role.startswith(f"{_CHOICES}_") else role


def _role_coverage(
    split: str, kind: str, keys: Sequence[tuple[str, str]], captions: _Captions
) -> RoleCoverage:
    texts = [(key[0], captions[key]) for key in keys if key in captions]
    lengths = [length for _, text in texts if (length := len(text.split()))]
    step = max(1, (len(texts) - 1) // max(1, _NUM_SAMPLES - 1))
    return RoleCoverage(
        split=split,
        role=kind,
        num_pictures=len(keys),
        num_captions=len(texts),
        num_empty=len(texts) - len(lengths),
        mean_words=sum(lengths) / len(lengths) if lengths else None,
        samples=tuple(texts[::step][:_NUM_SAMPLES]),
    )
