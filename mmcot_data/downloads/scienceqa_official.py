"""ScienceQA as its authors publish it: texts, and a zip of pictures for each split."""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mmcot_data.downloads.archives import unpack_zip
from mmcot_data.downloads.disk_space import check_free_space, folder_nbytes
from mmcot_data.downloads.faults import Faults
from mmcot_data.downloads.job import DownloadJob, PreparedDataset
from mmcot_data.downloads.partial_file import part_nbytes
from mmcot_data.downloads.png_files import png_fault
from mmcot_data.downloads.remote_file import FetchedFile, RemoteFile
from mmcot_data.downloads.scienceqa_texts import SplitQuestions, count_questions, fetch_texts
from mmcot_data.errors import DataError
from mmcot_data.questions import Question

__all__ = ["prepare_official"]

_MAX_NBYTES = 8_000_000_000
_MAX_FILES = 100_000


def prepare_official(job: DownloadJob) -> PreparedDataset:
    """Fetch the texts and the zips, unpack them, and check the pictures.

    Raises:
        DataError: If the content of a file is wrong, or a picture is missing.
        DiskFullError: If there is no room.
        DownloadError: If a file cannot be fetched.
    """
    catalogue, splits = job.catalogue.scienceqa, job.config.chosen_splits
    revision = job.config.revision or catalogue.texts_revision
    texts, questions = fetch_texts(job, revision)
    archives = _fetch_archives(job)
    pictures: Counter[str] = Counter()
    for split, archive in zip(splits, archives, strict=True):
        try:
            _unpack(job, split, archive.name)
            pictures.update(_check_pictures(job, split, questions))
        except DataError as error:
            shutil.rmtree(_pictures(job, split), ignore_errors=True)
            job.discard([archive.name])
            raise DataError(
                f"{error}\n{archive.shown} is deleted, so that the same command fetches it "
                "anew; if that changes nothing, name another server with --mirror"
            ) from error
    return PreparedDataset(
        names=(*catalogue.text_paths, *(f"images/{split}" for split in splits)),
        archives=tuple(archive.name for archive in archives),
        fetched=(*texts, *archives),
        revision=revision,
        licence=catalogue.licence,
        counts=count_questions(questions, splits) | dict(pictures),
        proof={},
    )


def _fetch_archives(job: DownloadJob) -> list[FetchedFile]:
    catalogue, splits = job.catalogue.scienceqa, job.config.chosen_splits
    files = [
        RemoteFile(name=f"archives/{split}.zip", url=f"{catalogue.archives_url}/{split}.zip")
        for split in splits
    ]
    about = {split: catalogue.archive_about_nbytes[split] for split in splits}
    to_fetch = sum(
        max(0, about[split] - part_nbytes(path))
        for split in splits
        if not (path := job.work / "archives" / f"{split}.zip").exists()
    )
    packed = sum(about[s] for s in splits if not _pictures(job, s).exists())
    to_unpack = max(0, packed - folder_nbytes(_unpacked(job)))
    job.reports.say(
        f"needs about {(to_fetch + to_unpack) / 1e9:.2f} GB more on the disk: zips of "
        f"{to_fetch / 1e9:.2f} GB, and {to_unpack / 1e9:.2f} GB of pictures"
    )
    check_free_space(job.work, to_fetch + to_unpack, "ScienceQA (zips and pictures)")
    return job.fetch(files, "pictures")


def _pictures(job: DownloadJob, split: str) -> Path:
    """Where a split's pictures are; there once all of them are unpacked."""
    return job.work / "images" / split


def _unpacked(job: DownloadJob) -> Path:
    """Where archives are unpacked; a run that was stopped leaves a part, which is deleted."""
    return job.work / "unpacked"


def _unpack(job: DownloadJob, split: str, name: str) -> None:
    """Unpack a split's pictures, with or without a folder of its name in the archive."""
    target = _pictures(job, split)
    if target.exists():  # the run before was stopped after it
        return
    folder = _unpacked(job) / split
    shutil.rmtree(folder, ignore_errors=True)
    names = unpack_zip(
        job.work / name,
        folder,
        max_bytes=_MAX_NBYTES,
        max_files=_MAX_FILES,
        accept=_accept(split),
        on_progress=job.reports.written,
    )
    if not names:
        raise DataError(
            f"{name} has no pictures: expected {split}/<question id>/image.png and choice_0.png, …"
        )
    inner = folder / split
    target.parent.mkdir(parents=True, exist_ok=True)
    if inner.is_dir():
        if strays := sorted(path.name for path in folder.iterdir() if path != inner):
            raise DataError(
                f"{name} has pictures in {split}/ and beside it: {', '.join(strays[:5])}"
            )
        inner.rename(target)
        folder.rmdir()
    else:
        folder.rename(target)


def _accept(split: str) -> Callable[[str], bool]:
    """Pictures in folders of question ids; .DS_Store, __MACOSX and other strays are left out."""
    pattern = re.compile(rf"(?:{split}/)?\d+/(?:image|image_\d+|choice_\d+)\.png", re.ASCII)
    return lambda name: pattern.fullmatch(name) is not None


def _check_pictures(job: DownloadJob, split: str, questions: SplitQuestions) -> dict[str, int]:
    """Check that all pictures are whole, and are those of the split's questions.

    Returns:
        How many of each kind there are.
    """
    folder, faults, counts = _pictures(job, split), Faults(), Counter[str]()
    known = {question.question_id: question for question in questions[split]}
    for path in sorted(folder.glob("*/*.png")):
        if path.parent.name not in known:
            faults.add(f"{split}/{path.parent.name}: no question of this split has that id")
        elif (fault := png_fault(path.read_bytes())) is not None:
            faults.add(f"{split}/{path.parent.name}/{path.name}: {fault}")
        kind = "choice" if path.name.startswith("choice") else "question"
        counts["second pictures" if path.name.startswith("image_") else f"{kind} pictures"] += 1
    for question in _lacking(known, folder):
        faults.add(
            f"{split}/{question.question_id}: problems.json names image.png, which is missing"
        )
    faults.raise_if_any(f"{split}.zip")
    return {name: count for name, count in counts.items() if name != "question pictures"}


def _lacking(known: dict[str, Question], folder: Path) -> list[Question]:
    return [
        question
        for question in known.values()
        if question.has_image and not (folder / question.question_id / "image.png").is_file()
    ]
