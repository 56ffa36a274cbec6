"""ScienceQA's questions, splits and captions: fetched, read, and counted."""

from collections import Counter

from mmcot_data.downloads.faults import Faults
from mmcot_data.downloads.job import DownloadJob
from mmcot_data.downloads.remote_file import FetchedFile, RemoteFile
from mmcot_data.errors import DataError
from mmcot_data.questions import SPLITS, Question
from mmcot_data.scienceqa import read_scienceqa

__all__ = ["TEXTS_ADVICE", "SplitQuestions", "count_questions", "fetch_texts"]

SplitQuestions = dict[str, list[Question]]
"""The questions of each split in its official order."""

TEXTS_ADVICE = (
    "what was fetched is deleted, so that the same command fetches it anew; if that changes "
    "nothing, take it from another server with --mirror"
)


def fetch_texts(job: DownloadJob, revision: str) -> tuple[list[FetchedFile], SplitQuestions]:
    """Fetch problems.json, pid_splits.json and captions.json, and check all that they say.

    Args:
        job: The download.
        revision: Branch, tag or commit of the official repository.

    Raises:
        DataError: If a file is not what it should be, or the counts are not the published ones;
            the files are deleted then.
        DownloadError: If one cannot be fetched.
    """
    catalogue = job.catalogue.scienceqa
    base = f"{catalogue.texts_url}/{revision}"
    files = [
        RemoteFile(name=name, url=f"{base}/{path}") for name, path in catalogue.text_paths.items()
    ]
    fetched = job.fetch(files, "texts")
    try:
        data = read_scienceqa(job.work)
        questions = {s: [q for q in data.questions if q.split == s] for s in SPLITS}
        _check_counts(job, questions, len(data.captions or {}))
    except DataError as error:
        job.discard(catalogue.text_paths)
        raise DataError(f"{error}\n{TEXTS_ADVICE}") from error
    return fetched, questions


def count_questions(questions: SplitQuestions, splits: tuple[str, ...]) -> dict[str, int]:
    """Questions by split, and how many of those in ``splits`` name ``image.png``."""
    with_picture = Counter(q.split for split in splits for q in questions[split] if q.has_image)
    return {
        "questions": sum(map(len, questions.values())),
        **{f"questions of {split}": len(questions[split]) for split in SPLITS},
        "question pictures": with_picture.total(),
        **{f"question pictures of {split}": with_picture[split] for split in splits},
    }


def _check_counts(job: DownloadJob, questions: SplitQuestions, num_captions: int) -> None:
    catalogue, faults = job.catalogue.scienceqa, Faults()
    for split in SPLITS:
        named = sum(question.has_image for question in questions[split])
        for what, expected, found in (
            ("questions", catalogue.num_questions[split], len(questions[split])),
            ("questions that name image.png", catalogue.num_with_picture[split], named),
        ):
            if expected != found:
                faults.add(f"{split}: expected {expected} {what}, found {found}")
    if not num_captions:
        faults.add("captions.json: expected captions of its questions, found none")
    faults.raise_if_any(f"{job.work / 'problems.json'} is not the published data set")
