"""The tables of an artifact root that come straight from a data set: questions and captions."""

from fnmatch import fnmatch
from pathlib import Path

from mmcot_data.captions import Caption, write_captions_once
from mmcot_data.errors import DataError
from mmcot_data.questions import read_questions, write_questions
from mmcot_data.scienceqa import ScienceQA
from mmcot_data.shards.object_store import ChangedError, ObjectStore
from mmcot_data.text_artifacts import artifact_path
from mmcot_data.working_copy import working_copy

__all__ = ["check_artifact_root", "write_tables"]


def write_tables(data: ScienceQA, out: Path | str) -> list[Path | str]:
    """Write questions.parquet, and captions/<data set>.parquet where the data set has captions.

    An artifact root that holds the same questions already is left as it is.

    Args:
        data: The data set.
        out: The artifact root: a folder, or the URL of one in object storage.

    Returns:
        The files that the artifact root holds now, as paths or URLs.

    Raises:
        DataError: If the artifact root holds other questions or other captions of that name, or is
            a feature set.
        ShardError: If object storage can't be reached, or refuses.
    """
    check_artifact_root(out)
    names = ["questions.parquet"]
    if data.captions is not None:
        names.append(str(artifact_path(Path(), "captions", data.dataset)))
    try:
        with working_copy(out, names) as root:
            _write_in(root, data)
    except ChangedError:  # another process wrote them at this moment: they must be the same
        with working_copy(out, names) as root:
            _write_in(root, data)
    return [out / name if isinstance(out, Path) else f"{out}/{name}" for name in names]


def _write_in(root: Path, data: ScienceQA) -> None:
    path = root / "questions.parquet"
    if path.exists():
        _check_same(path, data)
    else:
        write_questions(path, data.questions)
    if data.captions is None:
        return
    captions = [Caption(question_id=key, caption=text) for key, text in data.captions.items()]
    write_captions_once(
        artifact_path(root, "captions", data.dataset),
        captions,
        {"dataset": data.dataset, "source": "the data set"},
    )


def check_artifact_root(out: Path | str) -> None:
    """Refuse a feature set as artifact root.

    Raises:
        DataError: If it is one.
        ShardError: If object storage can't be reached, or refuses.
    """
    if isinstance(out, Path):
        names = {path.name for path in out.glob("*.json")}
    else:
        names = set(ObjectStore(out).list_objects(below=False))
    if any(name == "manifest.json" or fnmatch(name, "*-of-*.json") for name in names):
        raise DataError(
            f"{out} is a feature set, expected an artifact root, which holds feature sets: give "
            f"another --out, as {str(out).rpartition('/')[0] or '.'}"
        )


def _check_same(path: Path, data: ScienceQA) -> None:
    there = {question.question_id: question for question in read_questions(path)}
    given = {question.question_id: question for question in data.questions}
    if there == given:
        return
    changed = sum(there[key] != given[key] for key in there.keys() & given.keys())
    raise DataError(
        f"{path} holds other questions than the data set {data.dataset}: "
        f"{len(there.keys() - given.keys())} only in the table, "
        f"{len(given.keys() - there.keys())} only in the data set, {changed} that differ; choose "
        "another --out"
    )
