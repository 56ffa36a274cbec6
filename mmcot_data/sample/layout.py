"""Write the sample in ScienceQA's official layout, all of it or nothing."""

import io
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from mmcot_data.errors import DataError
from mmcot_data.files import sync_folder, write_json
from mmcot_data.sample.compose import compose, picture_rng
from mmcot_data.sample.plan import Assignment, plan_sample, plan_splits
from mmcot_data.sample.skill import ImageSkill
from mmcot_data.sample.skills import SKILLS

__all__ = ["MIN_QUESTIONS", "SAMPLE_VERSION", "draw_sample"]

MIN_QUESTIONS = 100
"""With fewer, skills would lack test questions."""
SAMPLE_VERSION = 1
"""Grows whenever the same settings give other bytes."""

_LICENCE = "CC0-1.0 (drawn by the mmcot project)"
_CHUNK = 24
_TEXT_FILES = ("problems.json", "pid_splits.json", "captions.json")

_Drawn = tuple[dict[str, dict[str, Any]], dict[str, str]]
"""Records and captions by question id."""


def draw_sample(
    out: Path,
    *,
    num_questions: int = 6000,
    seed: int = 0,
    num_workers: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw questions and pictures in ScienceQA's official layout.

    The same settings give the same bytes, whatever the number of workers (and with the same
    versions of numpy and Pillow). ``out`` appears when everything is drawn; where it already holds
    this sample, nothing is done.

    Args:
        out: Folder to make.
        num_questions: Number of questions, at least ``MIN_QUESTIONS``.
        seed: Decides everything that is random; not negative.
        num_workers: Processes that draw; 1 draws in this one.
        on_progress: Called with the number of questions drawn so far, and of all.

    Raises:
        DataError: If ``out`` exists and is something else, or a setting is out of range.
    """
    if num_questions < MIN_QUESTIONS:
        raise DataError(f"expected at least {MIN_QUESTIONS} questions, got {num_questions}")
    if seed < 0:
        raise DataError(f"expected a seed of 0 or more, got {seed}")
    if num_workers < 1:
        raise DataError(f"expected at least 1 worker, got {num_workers}")
    settings = {
        "name": "mmcot-sample",
        "licence": _LICENCE,
        "seed": seed,
        "num_questions": num_questions,
        "sample_version": SAMPLE_VERSION,
    }
    if out.exists():
        _check_same(out, settings)
        return
    tmp = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    tmp.mkdir(parents=True)
    try:
        _draw_all(tmp, settings, num_workers, on_progress)
        os.sync()
        tmp.rename(out)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    sync_folder(out.parent)


def _check_same(out: Path, settings: dict[str, Any]) -> None:
    about = out / "dataset.json"
    if not about.is_file():
        raise DataError(
            f"{out} exists and is not a drawn sample (it has no dataset.json); name another folder"
        )
    try:
        found = json.loads(about.read_text(encoding="utf-8"))
        differences = [
            f"{key} is {found.get(key)!r}, asked for {value!r}"
            for key, value in settings.items()
            if found.get(key) != value
        ]
        num_files = found.get("num_image_files")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{about} is not a JSON object: {error}; name another folder") from error
    if differences:
        raise DataError(
            f"{out} holds another sample: {'; '.join(differences)}; "
            "name another folder, or delete this one"
        )
    missing = [name for name in _TEXT_FILES if not (out / name).is_file()]
    if missing or (present := _count_pictures(out)) != num_files:
        what = ", ".join(missing) or f"{num_files - present} of {num_files} pictures"
        raise DataError(f"{out} is a sample that lacks {what}; delete it to draw it again")


def _count_pictures(folder: Path) -> int:
    return sum(1 for _ in (folder / "images").glob("*/*/*.png"))


def _draw_all(
    folder: Path,
    settings: dict[str, Any],
    num_workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    total, seed = settings["num_questions"], settings["seed"]
    assignments = plan_sample(total, seed)
    chunks = [assignments[at : at + _CHUNK] for at in range(0, len(assignments), _CHUNK)]
    records: dict[str, dict[str, Any]] = {}
    captions: dict[str, str] = {}
    with _mapper(num_workers) as mapper:
        for drawn in mapper(partial(_draw_chunk, folder, seed), chunks):
            records |= drawn[0]
            captions |= drawn[1]
            if on_progress is not None:
                on_progress(len(records), total)
    write_json(folder / "problems.json", _by_number(records))
    write_json(folder / "pid_splits.json", plan_splits(assignments, seed))
    captions_file = {"model": settings["name"], "captions": _by_number(captions)}
    write_json(folder / "captions.json", captions_file)
    num_files = _count_pictures(folder)
    write_json(folder / "dataset.json", {**settings, "num_image_files": num_files})


@contextmanager
def _mapper(num_workers: int) -> Iterator[Callable[..., Iterator[_Drawn]]]:
    """``map``, in this process or in a pool that leaves Ctrl-C to this process."""
    if num_workers == 1:
        yield map
        return
    with ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:
        try:
            yield pool.map
        finally:
            pool.shutdown(cancel_futures=True)


def _draw_chunk(folder: Path, seed: int, assignments: Sequence[Assignment]) -> _Drawn:
    records: dict[str, dict[str, Any]] = {}
    captions: dict[str, str] = {}
    for assignment in assignments:
        composition = compose(assignment, seed)
        skill = SKILLS[assignment.skill]
        picture = None
        if isinstance(skill, ImageSkill):
            rng = picture_rng(assignment, seed, "drawing")
            picture = _png(skill.draw(rng, composition.scene))
        questions = zip(assignment.numbers, composition.wordings, composition.records, strict=True)
        for number, wording, record in questions:
            question_id = str(number)
            records[question_id] = record
            files = {
                name: _further_png(assignment.skill, drawing)
                for name, drawing in wording.further_files.items()
            }
            if picture is not None:
                files["image.png"] = picture
                captions[question_id] = wording.caption
            _write_pictures(folder / "images" / assignment.split / question_id, files)
    return records, captions


def _write_pictures(folder: Path, files: dict[str, bytes]) -> None:
    if files:
        folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@lru_cache(maxsize=64)
def _further_png(skill_name: str, drawing: str) -> bytes:
    draw = SKILLS[skill_name].draw_further
    if draw is None:
        raise ValueError(f"{skill_name} has no drawing {drawing!r}")
    return _png(draw(drawing))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _by_number(values: dict[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in sorted(values, key=int)}
