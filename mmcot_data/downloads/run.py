"""Download a data set: fetch, prove, publish; or find that it is there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcot_data.downloads.aokvqa import prepare_aokvqa
from mmcot_data.downloads.catalogue import CATALOGUE, Catalogue
from mmcot_data.downloads.config import DownloadConfig
from mmcot_data.downloads.fetch_settings import FetchSettings
from mmcot_data.downloads.job import DownloadJob, DownloadReports, PreparedDataset
from mmcot_data.downloads.record import FILE_TABLE, check_files, read_record, write_record
from mmcot_data.downloads.scienceqa_hub import prepare_from_hub
from mmcot_data.downloads.scienceqa_official import prepare_official
from mmcot_data.downloads.workspace import (
    RECORD,
    describe_differences,
    is_published,
    needs_work,
    open_workspace,
    publish,
)
from mmcot_data.errors import DataError

__all__ = ["DownloadSummary", "download"]

_PREPARE: Mapping[tuple[str, str], Callable[[DownloadJob], PreparedDataset]] = {
    ("scienceqa", "hub"): prepare_from_hub,
    ("scienceqa", "official"): prepare_official,
    ("aokvqa", "official"): prepare_aokvqa,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadSummary:
    """A data set that is there, whole."""

    out: Path
    dataset: str
    source: str
    revision: str | None
    licence: str
    counts: Mapping[str, int]
    proof: Mapping[str, int]
    """What the identity of the hub's rows rests on: see ``align_split``."""
    num_files: int
    nbytes: int
    nbytes_fetched: int
    peak_nbytes: int
    """Room that the download took on the disk when it took most."""
    num_verified: int
    """Fetched files whose digest was known in advance."""
    num_fetched: int
    was_there: bool
    """It was finished before, and only its files were looked at."""


def download(
    config: DownloadConfig,
    reports: DownloadReports | None = None,
    *,
    verify: bool = False,
    catalogue: Catalogue | None = None,
    settings: FetchSettings | None = None,
) -> DownloadSummary:
    """Fetch and verify a data set; what is at ``config.out`` in the end is whole and proved.

    Whatever stops it, the same request continues. Where the data set is there already, its files
    are compared with the record, and nothing is fetched.

    Args:
        config: The request.
        reports: Told how it gets on.
        verify: Compare the sha256 of every file of a finished download, not the sizes alone.
        catalogue: Where the data sets are; ``CATALOGUE`` if None.
        settings: Patience with servers.

    Raises:
        DataError: If what was fetched, or what is there, is not what it should be.
        DiskFullError: If there is no room.
        DownloadError: If a file cannot be fetched, or is not the one that was published.
        FolderLockedError: If another process downloads into the same folder.
    """
    reports = reports or DownloadReports()
    catalogue = catalogue or CATALOGUE
    request = _request(config, catalogue)
    if needs_work(config.out):
        with open_workspace(config.out, request) as work:
            if not is_published(config.out):  # by another process, before this one had the lock
                job = DownloadJob(
                    config=config,
                    catalogue=catalogue,
                    work=work,
                    reports=reports,
                    settings=settings,
                )
                return _make(job, request)
    return _look_at(config, request, reports, verify=verify)


def _make(job: DownloadJob, request: Mapping[str, Any]) -> DownloadSummary:
    """Prepare the data set, unless an earlier run was stopped after it, and put it in place."""
    config, work = job.config, job.work
    if not (work / RECORD).exists():
        prepared = _PREPARE[config.dataset, config.chosen_source](job)
        write_record(work, prepared, request)
    record = read_record(work)
    archives = record["archives"] if config.keep_archives else []
    publish(work, config.out, (*record["names"], *archives, FILE_TABLE))
    return _summarise(config.out, record, was_there=False)


def _request(config: DownloadConfig, catalogue: Catalogue) -> dict[str, Any]:
    """What makes a download another one: neither mirrors nor speed."""
    default = {
        ("scienceqa", "hub"): catalogue.scienceqa.hub_revision,
        ("scienceqa", "official"): catalogue.scienceqa.texts_revision,
    }.get((config.dataset, config.chosen_source))
    return {
        "dataset": config.dataset,
        "source": config.chosen_source,
        "revision": config.revision or default,
        "splits": list(config.chosen_splits),
    }


def _look_at(
    config: DownloadConfig, request: dict[str, Any], reports: DownloadReports, *, verify: bool
) -> DownloadSummary:
    record = read_record(config.out)
    if difference := describe_differences(record["request"], request):
        raise DataError(
            f"{config.out} holds another download: {difference}; name another folder, or delete "
            "this one"
        )
    if config.prove_pictures is not None:
        reports.say("the download is finished: its pictures are not compared again")
    check_files(config.out, record, with_digests=verify, on_progress=reports.written)
    return _summarise(config.out, record, was_there=True)


def _summarise(out: Path, record: Mapping[str, Any], *, was_there: bool) -> DownloadSummary:
    fetched = record["fetched"]
    return DownloadSummary(
        out=out,
        dataset=record["request"]["dataset"],
        source=record["request"]["source"],
        revision=record["revision"],
        licence=record["licence"],
        counts=record["counts"],
        proof=record["proof"],
        num_files=record["num_files"],
        nbytes=record["nbytes"],
        nbytes_fetched=record["nbytes_fetched"],
        peak_nbytes=record["peak_nbytes"],
        num_verified=sum(file["verified"] for file in fetched),
        num_fetched=len(fetched),
        was_there=was_there,
    )
