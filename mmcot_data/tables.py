"""The tables of an artifact root that come straight from a data set: questions and captions."""

from pathlib import Path

from mmcot_data.captions import Caption, write_captions_once
from mmcot_data.errors import DataError
from mmcot_data.questions import read_questions, write_questions
from mmcot_data.scienceqa import ScienceQA
from mmcot_data.text_artifacts import artifact_path

__all__ = ["check_artifact_root", "write_tables"]


def write_tables(data: ScienceQA, out: Path) -> list[Path]:
    """Write questions.parquet, and captions/<data set>.parquet where the data set has captions.

    An artifact root that holds the same questions already is left as it is.

    Args:
        data: The data set.
        out: The artifact root.

    Returns:
        The files that the artifact root holds now.

    Raises:
        DataError: If the artifact root holds other questions or other captions of that name, or is
            a feature set.
    """
    check_artifact_root(out)
    path = out / "questions.parquet"
    if path.exists():
        _check_same(path, data)
    else:
        write_questions(path, data.questions)
    if data.captions is None:
        return [path]
    captions_path = artifact_path(out, "captions", data.dataset)
    captions = [Caption(question_id=key, caption=text) for key, text in data.captions.items()]
    write_captions_once(
        captions_path, captions, {"dataset": data.dataset, "source": "the data set"}
    )
    return [path, captions_path]


def check_artifact_root(out: Path) -> None:
    """Refuse a feature set as artifact root.

    Raises:
        DataError: If it is one.
    """
    if (out / "manifest.json").exists() or any(out.glob("*-of-*.json")):
        raise DataError(
            f"{out} is a feature set, expected an artifact root, which holds feature sets: give "
            f"another --out, as {out.parent}"
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
