"""The pictures of questions, whatever layout the questions were read from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmcot_data.questions import select_split
from mmcot_data.scienceqa import ScienceQA
from mmcot_data.sources.base import ImageSource, SourceImage
from mmcot_data.sources.picture_files import PictureFile

__all__ = ["question_source"]


def question_source(
    data: ScienceQA,
    folder: Path,
    splits: Sequence[str] | None = None,
    dataset: str | None = None,
    licence: str | None = None,
) -> ImageSource:
    """List the pictures of questions.

    Args:
        data: The questions and where their pictures are.
        folder: That the pictures' names are relative to, where they are in it.
        splits: Only the pictures of these; ``trainval`` and the mini splits are known too. The
            questions are all there in any case.
        dataset: Name of the data set instead of its own.
        licence: Licence of the data instead of its own.

    Raises:
        DataError: If there is no such split.
    """
    if dataset is not None:
        questions = [replace(question, dataset=dataset) for question in data.questions]
        data = replace(data, dataset=dataset, questions=questions)
    if licence is not None:
        data = replace(data, licence=licence)
    chosen = {
        question.question_id
        for split in splits or ()
        for question in select_split(data.questions, split)
    }
    return ImageSource(
        dataset=data.dataset,
        licence=data.licence,
        images=[
            SourceImage(
                question_id=image.question_id,
                role=image.role,
                file=_name_file(image.path, folder),
                stored=PictureFile(image.path),
            )
            for image in data.images
            if splits is None or image.question_id in chosen
        ],
        questions=data,
    )


def _name_file(picture: Path, folder: Path) -> str:
    """From the folder, or absolute."""
    return (picture.relative_to(folder) if picture.is_relative_to(folder) else picture).as_posix()
