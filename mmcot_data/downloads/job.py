"""A download that is under way: its request, its working folder, and who is told."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from mmcot_data.downloads.catalogue import Catalogue
from mmcot_data.downloads.config import DownloadConfig
from mmcot_data.downloads.fetch import fetch_files
from mmcot_data.downloads.fetch_settings import FetchSettings
from mmcot_data.downloads.remote_file import FetchedFile, RemoteFile

__all__ = ["DownloadJob", "DownloadReports", "PreparedDataset"]

_JOURNAL = "fetched.jsonl"


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadReports:
    """Functions that are told how a download gets on, all in the thread of the caller."""

    say: Callable[[str], object] = _ignore
    """One thing that people should know: a retry, a file taken from a cache."""
    fetched: Callable[[str, int, int | None], object] = _ignore
    """What is fetched, bytes so far, and all of them where that is known."""
    written: Callable[[int, int], object] = _ignore
    """Pictures that are in place or looked at, and all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedDataset:
    """A data set that is whole and proved, in the working folder still."""

    names: tuple[str, ...]
    """Its files and folders."""
    archives: tuple[str, ...]
    """Files that it was taken from."""
    fetched: tuple[FetchedFile, ...]
    """Texts and archives."""
    pictures: tuple[FetchedFile, ...] = ()
    """Pictures that were fetched one by one."""
    revision: str | None
    licence: str
    counts: Mapping[str, int]
    """Questions and pictures."""
    proof: Mapping[str, int]
    """What the identity of the pictures rests on, in numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadJob:
    """A download that is under way."""

    config: DownloadConfig
    catalogue: Catalogue
    work: Path
    """Files are fetched into it, under the names that they keep."""
    reports: DownloadReports
    settings: FetchSettings | None = None

    def fetch(
        self, files: Sequence[RemoteFile], what: str, headers: Mapping[str, str] | None = None
    ) -> list[FetchedFile]:
        """Fetch files into the working folder.

        Raises:
            DownloadError: If one cannot be fetched, or is not the one that was published.
            DiskFullError: If there is no room.
        """
        with (self.work / _JOURNAL).open("a", buffering=1, encoding="utf-8") as journal:
            fetched = fetch_files(
                files,
                self.work,
                mirrors=self.config.mirrors,
                num_parallel=self.config.num_parallel,
                headers=headers,
                on_progress=partial(self.reports.fetched, what),
                on_file=lambda file: journal.write(json.dumps(asdict(file)) + "\n"),
                say=self.reports.say,
                settings=self.settings,
            )
        return self._recall(fetched)

    def discard(self, names: Iterable[str]) -> None:
        """Delete fetched files whose content is wrong, so that the next run fetches them anew."""
        for name in names:
            (self.work / name).unlink(missing_ok=True)

    def _recall(self, fetched: Sequence[FetchedFile]) -> list[FetchedFile]:
        """Give files that an earlier run fetched the address and the date that it was told."""
        told: dict[tuple[str, str], FetchedFile] = {}
        for line in (self.work / _JOURNAL).read_text(encoding="utf-8").splitlines():
            try:
                file = FetchedFile(**json.loads(line))
            except (ValueError, TypeError):  # the run was stopped in the middle of a line
                continue
            told.setdefault((file.name, file.sha256), file)
        return [told.get((file.name, file.sha256), file) for file in fetched]
