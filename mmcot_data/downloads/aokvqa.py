"""A-OKVQA: the archive of questions, and COCO's pictures of these questions alone."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmcot_data.downloads.aokvqa_records import AOKVQARecord, read_records
from mmcot_data.downloads.archives import unpack_tar
from mmcot_data.downloads.disk_space import check_free_space
from mmcot_data.downloads.faults import Faults
from mmcot_data.downloads.job import DownloadJob, PreparedDataset
from mmcot_data.downloads.remote_file import FetchedFile, RemoteFile
from mmcot_data.errors import DataError, ImageError
from mmcot_data.files import write_bytes, write_json
from mmcot_data.images import header_size

__all__ = ["prepare_aokvqa"]

_ARCHIVE = "archives/aokvqa_v1p0.tar.gz"
_MAX_NBYTES = 2_000_000_000
_MAX_FILES = 1000
_QUESTIONS, _RATIONALES, _DATASET = "questions.jsonl", "rationales.jsonl", "dataset.json"
_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_TAIL_NBYTES = 1024
"""In which the end must stand: cameras write a little behind it."""


def prepare_aokvqa(job: DownloadJob) -> PreparedDataset:
    """Fetch the questions and their pictures, and write the tables.

    ``questions.jsonl`` and ``dataset.json`` are a data set in the project's own-table schema,
    ``rationales.jsonl`` has the gold rationales, up to three of each question.

    Raises:
        DataError: If a record is malformed, or a picture is no JPEG.
        DiskFullError: If there is no room.
        DownloadError: If a file cannot be fetched.
    """
    catalogue, splits = job.catalogue.aokvqa, job.config.chosen_splits
    names = {split: catalogue.records[split] for split in splits}
    archive = job.fetch([RemoteFile(name=_ARCHIVE, url=catalogue.archive_url)], "questions")[0]
    try:
        _unpack_records(job, names.values())
        records = read_records(job.work, names)
    except DataError as error:
        job.discard([_ARCHIVE, *names.values()])
        raise DataError(
            f"{error}\n{archive.shown} is deleted, so that the same command fetches it anew; "
            "if that changes nothing, name another server with --mirror"
        ) from error
    images = sorted({record.image for record in records})
    pictures = _fetch_pictures(job, images)
    _write_tables(job.work, records, catalogue.licence)
    return PreparedDataset(
        names=(
            *names.values(),
            _QUESTIONS,
            _RATIONALES,
            _DATASET,
            *(f"images/{split}2017" for split in splits),
        ),
        archives=(_ARCHIVE,),
        fetched=(archive,),
        pictures=tuple(pictures),
        revision=None,
        licence=catalogue.licence,
        counts={
            "questions": len(records),
            **{f"questions of {s}": sum(r.split == s for r in records) for s in splits},
            "pictures": len(images),
            "rationales": sum(len(record.rationales) for record in records),
        },
        proof={},
    )


def _unpack_records(job: DownloadJob, names: Iterable[str]) -> None:
    """Take the splits' files out of the archive, whatever folder they are in."""
    wanted = set(names)
    folder = job.work / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    members = unpack_tar(
        job.work / _ARCHIVE,
        folder,
        max_bytes=_MAX_NBYTES,
        max_files=_MAX_FILES,
        accept=lambda name: name.rpartition("/")[2] in wanted,
    )
    for member in members:
        (folder / member).replace(job.work / Path(member).name)


def _fetch_pictures(job: DownloadJob, images: Sequence[str]) -> list[FetchedFile]:
    """Fetch the pictures, each once, and check that they are JPEGs."""
    catalogue = job.catalogue.aokvqa
    files = [
        RemoteFile(name=f"images/{image}", url=f"{catalogue.pictures_url}/{image}")
        for image in images
    ]
    missing = sum(not (job.work / file.name).exists() for file in files)
    room = missing * catalogue.picture_about_nbytes
    job.reports.say(
        f"{len(files)} pictures, of which {missing} are to be fetched: about {room / 1e9:.2f} GB"
    )
    check_free_space(job.work, room, "A-OKVQA's pictures")
    fetched = job.fetch(files, "pictures")
    faults, bad = Faults(), []
    for number, file in enumerate(files, 1):
        if (fault := _jpeg_fault((job.work / file.name).read_bytes())) is not None:
            faults.add(f"{file.url}: {fault}")
            bad.append(file.name)
        job.reports.written(number, len(files))
    job.discard(bad)
    faults.raise_if_any(
        "COCO's pictures", "these are deleted, so that the same command fetches them anew"
    )
    return fetched


def _jpeg_fault(data: bytes) -> str | None:
    """What is wrong with a picture that should be a whole JPEG; None if nothing is."""
    if not data.startswith(_START):
        return f"expected a JPEG, found {len(data)} bytes that begin with {data[:8]!r}"
    if _END not in data[-_TAIL_NBYTES:]:
        return f"it is cut off: a JPEG of {len(data)} bytes without its end"
    try:
        header_size(data, "it")
    except ImageError as error:
        return str(error)
    return None


def _write_tables(folder: Path, records: Sequence[AOKVQARecord], licence: str) -> None:
    questions = [
        {
            "question_id": record.question_id,
            "split": record.split,
            "question": record.question,
            "choices": list(record.choices),
            "answer": record.answer,
            "solution": record.rationales[0] if record.rationales else "",
            "image": f"images/{record.image}",
        }
        for record in records
    ]
    rationales = [
        {"question_id": record.question_id, "sample": sample, "rationale": rationale}
        for record in records
        for sample, rationale in enumerate(record.rationales)
    ]
    _write_lines(folder / _QUESTIONS, questions)
    _write_lines(folder / _RATIONALES, rationales)
    write_json(folder / _DATASET, {"name": "aokvqa", "licence": licence})


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_bytes(path, text.encode())
