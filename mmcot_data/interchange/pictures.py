"""What a data set knows of the pictures that imported features were computed from."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmcot_data.interchange.feature_file import QuestionRow
from mmcot_data.scienceqa import ScienceQA

__all__ = ["FoundPicture", "find_pictures"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundPicture:
    """The picture of a row; all but the role is None where its file is not there."""

    role: str
    image_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    file: str | None = None
    """Path inside the data set."""


def find_pictures(
    data: ScienceQA, folder: Path, questions: Iterable[QuestionRow]
) -> dict[tuple[str, str | None], FoundPicture]:
    """Find the pictures of rows in a data set, hash them and read their headers.

    Where the role is not known it is Multimodal-CoT's: ``question`` if the question has that
    picture, else ``choice_0``.

    Args:
        data: The data set.
        folder: Its folder.
        questions: The rows.

    Returns:
        The picture by question id and role as they stand in ``questions``; of questions that the
        data set has.

    Raises:
        OSError: If a file is there and reading it fails.
    """
    from mmcot_data.extraction.scan import scan_images
    from mmcot_data.sources import SourceImage
    from mmcot_data.sources.picture_files import PictureFile

    has_image = {question.question_id: question.has_image for question in data.questions}
    wanted: dict[tuple[str, str], str | None] = {}
    for question_id, role, _ in questions:
        if question_id in has_image:
            own = role or ("question" if has_image[question_id] else "choice_0")
            wanted[question_id, own] = role
    found = {
        (question_id, asked): FoundPicture(role=role)
        for (question_id, role), asked in wanted.items()
    }
    images = [
        SourceImage(
            question_id=image.question_id,
            role=image.role,
            file=image.path.relative_to(folder).as_posix(),
            stored=PictureFile(image.path),
        )
        for image in data.images
        if (image.question_id, image.role) in wanted
    ]
    for image in scan_images(images):
        if image.image_sha256 is not None:
            key = image.question_id, image.role
            found[image.question_id, wanted[key]] = FoundPicture(
                role=image.role,
                image_sha256=image.image_sha256,
                width=image.width,
                height=image.height,
                file=image.file,
            )
    return found
