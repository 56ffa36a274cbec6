"""Open a data set's pictures in whatever layout they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from mmcot_data.errors import DataError
from mmcot_data.sources.base import ImageSource, StoredImage
from mmcot_data.sources.markers import (
    DATASET_DICT,
    DATASET_STATE,
    PARQUET_SUFFIXES,
    PICTURE_SUFFIXES,
    PROBLEMS,
    TABLE_NAMES,
    TABLE_SUFFIXES,
)
from mmcot_data.sources.row_places import RowPlace
from mmcot_data.sources.walk import list_files

__all__ = ["LAYOUTS", "Layout", "open_source", "open_stored"]

Layout = Literal["auto", "scienceqa", "table", "images", "parquet", "hf-dataset"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_WITH_COLUMNS = ("parquet", "hf-dataset")


def open_source(
    path: Path,
    layout: Layout = "auto",
    *,
    splits: Sequence[str] | None = None,
    id_column: str | None = None,
    image_column: str | None = None,
    dataset: str | None = None,
    licence: str | None = None,
) -> ImageSource:
    """List the pictures of a data set with their keys; no picture is decoded.

    Args:
        path: The data set: a folder, a table of questions, or one parquet file.
        layout: ``scienceqa``: problems.json and pid_splits.json. ``table``: a table of questions
            that names picture files. ``images``: a folder of pictures, known by their relative
            paths. ``parquet``: files with a column of pictures. ``hf-dataset``: what Hugging Face's
            ``save_to_disk`` wrote. ``auto`` looks which it is.
        splits: Only the pictures of these, where the layout has splits.
        id_column: Of tables: the column that pictures are known by, ``image_sha256`` for the
            sha256 of their bytes; None finds it.
        image_column: Of tables: the column of the pictures; None finds it.
        dataset: Name of the data set; None takes its own, or that of the folder or file.
        licence: Licence of the data; None takes what the data set says, or ``unknown``.

    Raises:
        DataError: If the data set is not what it should be, or an argument has no meaning for it.
        OSError: If reading fails.
    """
    if layout == "auto":
        layout = _recognise(path)
    elif not path.exists():
        raise DataError(f"{path} does not exist; expected a data set in the layout {layout}")
    if (id_column is not None or image_column is not None) and layout not in _WITH_COLUMNS:
        raise DataError(
            f"{path} has the layout {layout}, which has no columns to choose: leave out "
            "--id-column and --image-column"
        )
    if layout in ("images", "parquet") and splits is not None:
        raise DataError(
            f"{path} has the layout {layout}, which has no splits: give the folder or the file of "
            f"{' or '.join(splits)} alone"
        )
    if layout == "scienceqa":
        from mmcot_data.scienceqa import read_scienceqa
        from mmcot_data.sources.question_source import question_source

        return question_source(read_scienceqa(path), path, splits, dataset, licence)
    if layout == "table":
        from mmcot_data.sources.question_source import question_source
        from mmcot_data.sources.table_source import read_table

        return question_source(*read_table(path), splits, dataset, licence)
    if layout == "images":
        from mmcot_data.sources.picture_files import open_image_folder

        return open_image_folder(path, dataset, licence)
    if layout == "parquet":
        from mmcot_data.sources.parquet_source import open_parquet_source

        return open_parquet_source(path, id_column, image_column, dataset, licence)
    from mmcot_data.sources.hf_dataset import open_dataset_source

    return open_dataset_source(path, splits, id_column, image_column, dataset, licence)


def open_stored(data: Path, file: str) -> StoredImage:
    """Find a picture again.

    Args:
        data: What ``open_source`` was given.
        file: The picture's ``SourceImage.file``, as it stands in index.parquet.

    Raises:
        DataError: If a table is not what it was.
        OSError: If reading fails.
    """
    folder = data.parent if data.is_file() else data
    place = RowPlace.parse(file)
    if place is not None and not (folder / file).exists():
        table = folder / place.table
        if table.suffix.lower() in PARQUET_SUFFIXES:
            from mmcot_data.sources.parquet_source import find_parquet_picture

            return find_parquet_picture(folder, place)
        if (table / DATASET_STATE).is_file():
            from mmcot_data.sources.hf_dataset import find_dataset_picture

            return find_dataset_picture(folder, place)
    from mmcot_data.sources.picture_files import PictureFile

    return PictureFile(folder / file)


def _recognise(path: Path) -> Layout:
    from mmcot_data.question_tables import find_question_table

    if not path.exists():
        raise DataError(f"{path} does not exist; expected a data set: {_EXPECTED}")
    if path.is_file():
        if find_question_table(path) is not None:
            return "table"
        if path.suffix.lower() in PARQUET_SUFFIXES:
            return "parquet"
        raise DataError(f"{path} is a file, but no parquet file; expected a data set: {_EXPECTED}")
    found: list[Layout] = []
    if (path / PROBLEMS).is_file():
        found.append("scienceqa")
    if (path / DATASET_DICT).is_file() or (path / DATASET_STATE).is_file():
        found.append("hf-dataset")
    if not found and find_question_table(path) is not None:
        found.append("table")
    if not found:  # those have pictures and tables of their own
        if list_files(path, PARQUET_SUFFIXES):
            found.append("parquet")
        if list_files(path, PICTURE_SUFFIXES):
            found.append("images")
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{path} may be read in the layouts {' and '.join(found)}: choose one with --layout"
        )
    raise DataError(f"{path} is in no layout that is known; looked for {_EXPECTED}")


_EXPECTED = (
    f"{PROBLEMS} (ScienceQA's layout, also what `mmcot-data sample OUT` draws), "
    f"{DATASET_DICT} or {DATASET_STATE} (a dataset saved by Hugging Face's save_to_disk), a table "
    f"of questions ({', '.join(TABLE_SUFFIXES)}; in a folder {', '.join(TABLE_NAMES)}), files that "
    f"end in {' or '.join(PARQUET_SUFFIXES)}, or pictures: {', '.join(PICTURE_SUFFIXES)}"
)
