"""The pictures that a table of questions names."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmcot_data.errors import DataError
from mmcot_data.question_tables import find_question_table, read_question_table
from mmcot_data.questions import select_split
from mmcot_data.sources.base import ImageSource, SourceImage
from mmcot_data.sources.markers import TABLE_NAMES
from mmcot_data.sources.picture_files import PictureFile

__all__ = ["open_table"]


def open_table(
    path: Path,
    splits: Sequence[str] | None = None,
    dataset: str | None = None,
    licence: str | None = None,
) -> ImageSource:
    """Read the questions and list their pictures.

    Args:
        path: The table, or a folder with one that is called ``questions``.
        splits: Only the pictures of these; the questions are all there in any case.
        dataset: Name of the data set instead of its own.
        licence: Licence of the data instead of its own.

    Raises:
        DataError: As ``read_question_table``, or if there is no such table or split.
    """
    table = path if path.is_file() else find_question_table(path)
    if table is None:
        raise DataError(
            f"{path} has no table of questions: expected a file in it that is called "
            f"{' or '.join(TABLE_NAMES)}"
        )
    data = read_question_table(table).data
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
                file=_name_file(image.path, table.parent),
                stored=PictureFile(image.path),
            )
            for image in data.images
            if splits is None or image.question_id in chosen
        ],
        questions=data,
    )


def _name_file(picture: Path, folder: Path) -> str:
    """The path as the table has it: from its folder, or absolute."""
    return (picture.relative_to(folder) if picture.is_relative_to(folder) else picture).as_posix()
