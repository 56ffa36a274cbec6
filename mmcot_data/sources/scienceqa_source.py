"""The pictures of a data set in ScienceQA's official layout."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmcot_data.questions import select_split
from mmcot_data.scienceqa import QuestionImage, ScienceQA, read_scienceqa
from mmcot_data.sources.base import ImageSource, SourceImage
from mmcot_data.sources.picture_files import PictureFile

__all__ = ["open_scienceqa"]


def open_scienceqa(
    folder: Path,
    splits: Sequence[str] | None = None,
    dataset: str | None = None,
    licence: str | None = None,
) -> ImageSource:
    """Read the questions and list their pictures.

    Args:
        folder: Holds problems.json and pid_splits.json.
        splits: Only the pictures of these; ``trainval`` and the mini splits are known too. The
            questions are all there in any case.
        dataset: Name of the data set instead of its own.
        licence: Licence of the data instead of its own.

    Raises:
        DataError: As ``read_scienceqa``, or if there is no such split.
    """
    data = read_scienceqa(folder)
    if dataset is not None:
        questions = [replace(question, dataset=dataset) for question in data.questions]
        data = replace(data, dataset=dataset, questions=questions)
    if licence is not None:
        data = replace(data, licence=licence)
    return ImageSource(
        dataset=data.dataset,
        licence=data.licence,
        images=[
            SourceImage(
                question_id=image.question_id,
                role=image.role,
                file=image.path.relative_to(folder).as_posix(),
                stored=PictureFile(image.path),
            )
            for image in _select_images(data, splits)
        ],
        questions=data,
    )


def _select_images(data: ScienceQA, splits: Sequence[str] | None) -> list[QuestionImage]:
    if splits is None:
        return data.images
    chosen = {
        question.question_id for name in splits for question in select_split(data.questions, name)
    }
    return [image for image in data.images if image.question_id in chosen]
