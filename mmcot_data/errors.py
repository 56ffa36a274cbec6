"""Errors of mmcot; the command line prints them as one paragraph and exits with 1.

MmcotError
  x DataError          a record, table or folder of a data set is not what it should be
  x ImageError         one picture cannot be used (a listed outcome of extraction)
  x DownloadError      a file cannot be fetched, or is not the one that was published
  x EncoderError       a model cannot be found, loaded or does not fit its spec
  x ShardError         a feature set, shard or index is damaged, unfinished or not the one asked for
    x SpecMismatchError    the folder holds features that were made in another way
    x FolderLockedError    another process writes into the feature set
  x ExtractionError    extraction stopped; what is complete stays and is used by the next run
  x DiskFullError      there is no room for a file; nothing half-written stays
  x GenerationError    text generation stopped; what is complete stays and is used by the next run
  x TrainingError      a run folder or checkpoint does not fit the request
"""

__all__ = [
    "DataError",
    "DiskFullError",
    "DownloadError",
    "EncoderError",
    "ExtractionError",
    "FolderLockedError",
    "GenerationError",
    "ImageError",
    "MmcotError",
    "ShardError",
    "SpecMismatchError",
    "TrainingError",
    "how_to_install",
]


class MmcotError(Exception):
    """Base of all errors that a user can act on."""


class DataError(MmcotError):
    """A record, table or folder of a data set is not what it should be."""


class ImageError(MmcotError):
    """One picture cannot be used.

    Args:
        reason: One word for tables: ``missing``, ``unreadable``, ``truncated``, ``empty``,
            ``too_large`` or ``unsupported``.
        message: The explanation, with the file's name.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DownloadError(MmcotError):
    """A file cannot be fetched, or is not the one that was published."""


class EncoderError(MmcotError):
    """A model cannot be found, loaded, or does not fit its spec."""


class ShardError(MmcotError):
    """A feature set, shard or index is damaged, unfinished or not the one asked for."""


class SpecMismatchError(ShardError):
    """The folder holds features that were made in another way."""


class FolderLockedError(ShardError):
    """Another process writes into the feature set."""


class DiskFullError(MmcotError):
    """There is no room for a file; nothing half-written stays."""


class ExtractionError(MmcotError):
    """Extraction stopped; what is complete stays and is used by the next run."""


class GenerationError(MmcotError):
    """Text generation stopped; what is complete stays and is used by the next run."""


class TrainingError(MmcotError):
    """A run folder or checkpoint does not fit the request."""


def how_to_install(extra: str) -> str:
    """The command that installs what an extra of the package holds."""
    return f"pip install 'mmcot[{extra}]', or in a checkout pip install '.[{extra}]'"
