"""Export to HDF5 with a group for each question, as VL-T5 reads it: ``file["42/features"]``.

Beside ``features`` (P, D) a group holds ``img_w``, ``img_h`` and ``boxes`` (P, 4), float32 x1 y1 x2
y2 in pixels. (https://github.com/j-min/VL-T5, VL-T5/src/vqa_data.py)

Shape suffixes: R = rows of a part, P = patches, D = feature width.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mmcot_data.errors import ShardError
from mmcot_data.files import replace_file
from mmcot_data.interchange.boxes import patch_boxes
from mmcot_data.interchange.stored_rows import (
    REFERENCE_ROLES,
    QuestionRows,
    choose_rows,
    read_rows,
    refuse_existing,
)
from mmcot_data.shards.feature_set_writer import Progress
from mmcot_data.shards.store import ShardStore

__all__ = ["GroupExport", "export_group_file"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupExport:
    """What was written."""

    num_questions: int
    num_pictures: int
    """Groups; the other questions are links to the group of the same picture."""
    num_unsized: int
    """Pictures of unknown size: they have no ``img_w``, ``img_h`` and ``boxes``."""


def export_group_file(
    store: ShardStore,
    path: Path,
    *,
    roles: Sequence[str] = REFERENCE_ROLES,
    on_progress: Progress | None = None,
) -> GroupExport:
    """Write an HDF5 file with a group for each question id.

    A question with the same picture as an earlier one is a hard link to that one's group. Groups
    stand in the order of the index. The attribute ``spec`` of the file says what made the features;
    a group's attribute ``num_patches`` says how many of its patches are valid.

    Args:
        store: The opened feature set; its rows are compared with their checksums if it checks them.
        path: The file.
        roles: Image roles; the first that a question has counts.
        on_progress: Called with the questions done and the number of all.

    Raises:
        ShardError: If the file exists, a question id can't be the name of a group, or the feature
            set is damaged.
        DiskFullError: If there is no room.
    """
    refuse_existing(path)
    chosen = choose_rows(store, roles)
    for question_id in chosen.question_ids:
        if question_id in ("", ".") or "/" in question_id or "\0" in question_id:
            raise ShardError(
                f"question id {question_id!r} can't be the name of an HDF5 group; choose another "
                "--to"
            )
    exports = []
    replace_file(path, lambda tmp: exports.append(_write_groups(tmp, store, chosen, on_progress)))
    return exports[0]


def _write_groups(
    tmp: Path, store: ShardStore, chosen: QuestionRows, on_progress: Progress | None
) -> GroupExport:
    spec, total = store.spec, len(chosen.question_ids)
    known = _known_pictures(store)
    distinct = np.array(list(dict.fromkeys(chosen.rows_Q.tolist())), np.int64)
    features = (row_PD for part_RPD in read_rows(store, distinct) for row_PD in part_RPD)
    groups: dict[int, str] = {}
    num_unsized = 0
    # Through a Python file a full disk is an OSError; HDF5's own way to it ends the process.
    with (
        tmp.open("w+b") as plain,
        h5py.File(plain, "w", libver="v110", track_order=True) as file,
    ):
        file.attrs["spec"] = json.dumps(spec.to_json())
        rows = zip(
            chosen.question_ids, chosen.rows_Q.tolist(), chosen.num_patches_Q.tolist(), strict=True
        )
        for done, (question_id, row, num_patches) in enumerate(rows):
            if on_progress is not None:
                on_progress(done, total)
            if row in groups:
                file[question_id] = file[groups[row]]
                continue
            groups[row] = question_id
            group = file.create_group(question_id, track_order=False)
            group["features"] = next(features)
            group.attrs["num_patches"] = num_patches
            digest, width, height = known[row]
            if digest is not None:
                group.attrs["image_sha256"] = digest
            if width is None or height is None:
                num_unsized += 1
                continue
            group["img_w"], group["img_h"] = width, height
            group["boxes"] = patch_boxes(spec, width, height)
    if on_progress is not None:
        on_progress(total, total)
    return GroupExport(num_questions=total, num_pictures=len(distinct), num_unsized=num_unsized)


def _known_pictures(store: ShardStore) -> dict[int, tuple[str | None, int | None, int | None]]:
    """Digest, width and height of the picture by row of ``store.mapped``."""
    index = store.read_index().drop_nulls("row")
    columns = ("number", "row", "image_sha256", "width", "height")
    return {
        int(store.mapped.starts[number]) + row: (digest, width, height)
        for number, row, digest, width, height in index.select(columns).iter_rows()
    }
