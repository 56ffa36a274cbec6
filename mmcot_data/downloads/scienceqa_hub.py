"""ScienceQA from the official texts and the pictures of the hub's parquet files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmcot_data.downloads.alignment import OfficialPictures, align_split
from mmcot_data.downloads.disk_space import BLOCK_NBYTES, check_free_space, folder_nbytes
from mmcot_data.downloads.faults import Faults
from mmcot_data.downloads.hub import FoundFile, find_hub_files, hub_headers
from mmcot_data.downloads.hub_rows import check_hub_file
from mmcot_data.downloads.job import DownloadJob, PreparedDataset
from mmcot_data.downloads.partial_file import part_nbytes
from mmcot_data.downloads.remote_file import FetchedFile
from mmcot_data.downloads.scienceqa_texts import SplitQuestions, count_questions, fetch_texts
from mmcot_data.errors import DataError
from mmcot_data.files import disk_errors_explained
from mmcot_data.questions import Question

__all__ = ["prepare_from_hub"]


def prepare_from_hub(job: DownloadJob) -> PreparedDataset:
    """Fetch the texts and the parquet files, prove every row, and write the pictures.

    Raises:
        DataError: If the content of a file is wrong, or a row is not the question that it should
            be.
        DiskFullError: If there is no room.
        DownloadError: If a file cannot be fetched, or is not the one that was published.
    """
    official = _open_official(job.config.prove_pictures)
    texts, questions = fetch_texts(job, job.catalogue.scienceqa.texts_revision)
    commit, found = find_hub_files(job)
    archives = _fetch_archives(job, found, count_questions(questions, job.config.chosen_splits))
    paths: dict[str, list[Path]] = {split: [] for split in job.config.chosen_splits}
    for file in found:
        paths[file.split].append(file.place(job.work))
    try:
        nbytes = sum(check_hub_file(path, path.name) for files in paths.values() for path in files)
        proof = _write_pictures(job, questions, paths, official, nbytes)
    except DataError:
        job.discard(file.name for file in archives if not file.verified)
        raise
    if official is not None and not proof["pictures compared"]:
        raise DataError(
            f"{official.folder} has none of the pictures: expected the official images folder, "
            "with <split>/<question id>/image.png or <question id>/image.png"
        )
    return PreparedDataset(
        names=(
            *job.catalogue.scienceqa.text_paths,
            *(f"images/{split}" for split in job.config.chosen_splits),
        ),
        archives=tuple(file.remote.name for file in found if file.remote is not None),
        fetched=(*texts, *archives),
        revision=commit,
        licence=job.catalogue.scienceqa.licence,
        counts=count_questions(questions, job.config.chosen_splits),
        proof=proof,
    )


def _open_official(folder: Path | None) -> OfficialPictures | None:
    if folder is None:
        return None
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; --prove-pictures expects official pictures")
    return OfficialPictures(folder / "images" if (folder / "images").is_dir() else folder)


def _fetch_archives(
    job: DownloadJob, found: Sequence[FoundFile], counts: dict[str, int]
) -> list[FetchedFile]:
    remote = [file.remote for file in found if file.remote is not None]
    to_fetch = sum(
        max(0, file.about_nbytes - part_nbytes(path))
        for file in found
        if not (path := file.place(job.work)).exists()
    )
    pictures = counts["question pictures"] * BLOCK_NBYTES + sum(
        file.about_nbytes if file.cached is None else file.cached.nbytes for file in found
    )
    to_write = max(0, pictures - folder_nbytes(job.work / "images"))
    job.reports.say(
        f"needs {(to_fetch + to_write) / 1e9:.2f} GB more on the disk: {to_fetch / 1e9:.2f} GB to "
        f"fetch and about {to_write / 1e9:.2f} GB of pictures"
    )
    check_free_space(job.work, to_fetch + to_write, "ScienceQA (parquet files and pictures)")
    fetched = job.fetch(remote, "pictures", hub_headers()) if remote else []
    return [*fetched, *(file.cached for file in found if file.cached is not None)]


def _write_pictures(
    job: DownloadJob,
    questions: SplitQuestions,
    paths: dict[str, list[Path]],
    official: OfficialPictures | None,
    nbytes: int,
) -> Counter[str]:
    """Prove the rows and write the pictures of all splits; what a stopped run left is compared."""
    total = sum(question.has_image for split in paths for question in questions[split])
    images = job.work / "images"
    if not images.exists():
        check_free_space(job.work, nbytes + total * BLOCK_NBYTES, "ScienceQA's pictures")
    done = 0

    def take(question: Question, data: bytes) -> None:
        nonlocal done
        path = images / question.split / question.question_id / "image.png"
        if not path.is_file() or path.read_bytes() != data:
            with disk_errors_explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        done += 1
        job.reports.written(done, total)

    proof: Counter[str] = Counter()
    faults = Faults()
    for split, files in paths.items():
        (images / split).mkdir(parents=True, exist_ok=True)
        proof.update(align_split(files, questions[split], official, take, faults))
    faults.raise_if_any(
        "the hub's rows are not the official questions",
        "nothing has been put in place; another --revision may fit, or take --source official",
    )
    return proof
