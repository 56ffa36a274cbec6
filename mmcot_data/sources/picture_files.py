"""Pictures that are files of their own, and folders of them."""

from dataclasses import dataclass
from pathlib import Path

from mmcot_data.errors import DataError
from mmcot_data.images import read_image_bytes
from mmcot_data.sources.base import ImageSource, SourceImage
from mmcot_data.sources.markers import PICTURE_SUFFIXES
from mmcot_data.sources.walk import list_files

__all__ = ["PictureFile", "open_image_folder"]


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture that is a file: a ``StoredImage``."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            ImageError: As ``read_image_bytes``.
            OSError: If reading fails.
        """
        return read_image_bytes(self.path)


def open_image_folder(
    folder: Path, dataset: str | None = None, licence: str | None = None
) -> ImageSource:
    """List the pictures of a folder and of the folders in it, sorted by their paths.

    A picture is known by its path relative to the folder, suffix included: ``birds/a.b.png``.
    Hidden files and files with other suffixes than ``PICTURE_SUFFIXES`` are left out.

    Args:
        folder: The folder.
        dataset: Name of the data set instead of the folder's.
        licence: Licence of the data.

    Raises:
        DataError: If there are no pictures.
    """
    files = list_files(folder, PICTURE_SUFFIXES)
    if not files:
        raise DataError(
            f"{folder} has no pictures, nor have the folders in it: expected files that end in "
            f"{', '.join(PICTURE_SUFFIXES)}"
        )
    return ImageSource(
        dataset=dataset or folder.resolve().name,
        licence=licence or "unknown",
        images=[
            SourceImage(
                question_id=file, role="question", file=file, stored=PictureFile(folder / file)
            )
            for file in files
        ],
        questions=None,
    )
