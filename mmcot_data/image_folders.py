"""Find the pictures of ScienceQA's questions by listing folders; no picture is opened."""

import os
import re
from collections import defaultdict
from pathlib import Path

from mmcot_data.questions import SPLITS

__all__ = ["find_image_folders", "list_image_files"]

_IMAGE_FILE = re.compile(r"(?:image(?:_(?P<image>[1-9]\d*))?|choice_(?P<choice>0|[1-9]\d*))\.png")


def find_image_folders(
    images: Path, splits: dict[str, str | None]
) -> tuple[dict[str, Path], list[str]]:
    """The folder of each question's pictures: ``<split>/<question id>/`` or ``<question id>/``.

    Both layouts may stand side by side, but each question has one folder. Stray files and
    folders of no question are skipped.

    Args:
        images: The folder ``images`` of the data set; it may be absent.
        splits: The split of each question by question id; None if it is not known.

    Returns:
        The folders by question id, where they are or where they are expected, and one sentence
        for each question with several folders or with one in another split.
    """
    found: dict[str, list[str]] = defaultdict(list)
    split_level = [split for split in SPLITS if (images / split).is_dir()]
    for base in ("", *split_level):
        for entry in _list(images / base):
            if entry.name in splits and entry.is_dir():
                found[entry.name].append(f"{base}/{entry.name}" if base else entry.name)
    is_flat = bool(found) and not split_level
    folders, faults = {}, []
    for question_id, split in splits.items():
        own = f"{split}/{question_id}"
        places = found.get(question_id, [question_id if is_flat else own])
        if len(places) > 1:
            faults.append(f"question {question_id!r} has the folders {' and '.join(places)}")
        elif places[0] not in (own, question_id) and split is not None:
            faults.append(f"{places[0]} is the folder of a question of split {split!r}")
        folders[question_id] = images / places[0]
    return folders, faults


def list_image_files(folder: Path, *, has_image: bool) -> dict[str, Path]:
    """The pictures of one question by role: ``question``, ``question_2``, ``choice_0``, ….

    Args:
        folder: The question's folder; it may be absent.
        has_image: The record names image.png, which is then listed even where it is absent.
    """
    roles: dict[tuple[int, int], tuple[str, Path]] = {}
    if has_image:
        roles[0, 0] = ("question", folder / "image.png")
    for entry in _list(folder):
        if (match := _IMAGE_FILE.fullmatch(entry.name)) is None or not entry.is_file():
            continue
        if (choice := match["choice"]) is not None:
            key, role = (1, int(choice)), f"choice_{choice}"
        elif (number := match["image"]) is not None:
            key, role = (0, int(number)), f"question_{number}"
        else:
            key, role = (0, 0), "question"
        roles[key] = (role, folder / entry.name)
    return dict(roles[key] for key in sorted(roles))


def _list(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
