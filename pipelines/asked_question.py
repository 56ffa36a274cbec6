"""What mmcot-predict asks: a typed question with a picture, or one of the data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmcot_data.captions import read_captions
from mmcot_data.errors import DataError
from mmcot_data.images import bytes_sha256, decode_rgb, read_image_bytes
from mmcot_data.questions import Question, read_questions
from mmcot_data.sources import open_stored
from mmcot_data.text_artifacts import artifact_path
from mmcot_model.features import RunFeatures
from mmcot_model.trained.run import TrainedRun

if TYPE_CHECKING:
    from PIL import Image

    from mmcot_data.encoders.base import Alpha

__all__ = [
    "AskedQuestion",
    "OpenedPicture",
    "find_picture",
    "find_question",
    "open_picture",
    "typed_question",
]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OpenedPicture:
    """A file that was read, and found to be a picture."""

    name: str
    content: bytes

    def decode(self, alpha: "Alpha" = "white") -> "Image.Image":
        """The picture as RGB.

        Args:
            alpha: What becomes of transparent pixels; encoders differ in it.

        Raises:
            ImageError: If it is none.
        """
        return decode_rgb(self.content, self.name, alpha=alpha)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AskedQuestion:
    """A question, and what belongs to it."""

    question: Question
    caption: str | None
    picture: OpenedPicture | None
    """To be encoded."""
    has_stored_picture: bool
    """Whether its picture is that of the data set, whose features the run's feature sets hold."""

    @property
    def has_picture(self) -> bool:
        """Whether there is a picture of either kind."""
        return self.picture is not None or self.has_stored_picture


def typed_question(
    text: str,
    choices: Sequence[str],
    *,
    hint: str,
    caption: str | None,
    picture: OpenedPicture | None,
) -> AskedQuestion:
    """A question of the user's own; its id is empty."""
    question = Question(
        dataset="",
        question_id="",
        split="test",
        position=0,
        question=text,
        choices=tuple(choices),
        answer=None,
        hint=hint,
        has_image=picture is not None,
    )
    return AskedQuestion(
        question=question, caption=caption, picture=picture, has_stored_picture=False
    )


def find_question(
    run: TrainedRun,
    question_id: str,
    *,
    artifacts: Path | None,
    caption: str | None,
    picture: OpenedPicture | None,
) -> AskedQuestion:
    """A question of an artifact root, with the caption and the picture that the run gives it.

    Args:
        run: Says which caption and which picture.
        question_id: Of the question.
        artifacts: The artifact root; None for that of the run.
        caption: Instead of the stored one.
        picture: Instead of its own, of which the stored caption then says nothing.

    Raises:
        DataError: If there is no such question, or a table is absent or damaged.
    """
    root = run.artifacts if artifacts is None else artifacts
    questions = {question.question_id: question for question in read_questions(root)}
    question = questions.get(question_id)
    if question is None:
        examples = ", ".join(list(questions)[:3])
        raise DataError(
            f"{root} has no question {question_id!r}: expected one of its {len(questions)} ids, "
            f"such as {examples}"
        )
    if picture is not None:  # the right answer is that to its own picture
        question = replace(question, answer=None)
    roles = run.config.image_roles
    if caption is None and picture is None and run.config.captions is not None:
        path = artifact_path(root, "captions", run.config.captions)
        caption = read_captions(path, roles).get(question_id)
    has_own = bool(run.specs) and any(role in question.image_roles for role in roles)
    return AskedQuestion(
        question=question,
        caption=caption,
        picture=picture,
        has_stored_picture=picture is None and has_own,
    )


def open_picture(path: Path) -> OpenedPicture:
    """Read and decode a picture.

    Raises:
        ImageError: If it is none.
        OSError: If reading fails.
    """
    return _checked(OpenedPicture(name=str(path), content=read_image_bytes(path)))


def find_picture(features: RunFeatures, question_id: str, data: Path) -> OpenedPicture:
    """The picture that the stored features of a question were made of.

    Raises:
        DataError: If the index doesn't say which that was, or the data set has another one there.
        ImageError: If it is missing or damaged.
        OSError: If reading fails.
    """
    roles = features.sets[0].roles
    rows = [
        row
        for index in features.indexes().values()
        for row in index.iter_rows(named=True)
        if row["question_id"] == question_id and row["row"] is not None and row["role"] in roles
    ]
    row = min(rows, key=lambda row: roles.index(row["role"]))
    if row["file"] is None or row["image_sha256"] is None:
        raise DataError(
            f"index.parquet does not say which picture the features of question {question_id!r} "
            "were made of: leave out --data"
        )
    stored = open_stored(data, row["file"])
    content = stored.read()
    if (found := bytes_sha256(content)) != row["image_sha256"]:
        raise DataError(
            f"{stored.name} is not the picture that the features of question {question_id!r} were "
            f"made of: its sha256 is {found}, expected {row['image_sha256']}; give the data set of "
            "the extraction, or leave out --data"
        )
    return _checked(OpenedPicture(name=stored.name, content=content))


def _checked(picture: OpenedPicture) -> OpenedPicture:
    picture.decode()
    return picture
