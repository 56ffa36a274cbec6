"""Small files of features as other programs write them, and what a feature set holds."""

import json

import numpy as np

from mmcot_data.interchange import Claims, import_features, open_array_file
from mmcot_data.shards import open_features

ROLES = ("question", "choice_0")


def write_name_map(path, rows):
    path.write_text(json.dumps(rows))
    return path


def import_array(array, folder, rows=None, **options):
    """Import ``folder/source.npy`` as ``folder/out/x``; row ``i`` is of question ``i`` by default.

    Gives the summary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "source.npy", array)
    rows = {str(row): str(row) for row in range(len(array))} if rows is None else rows
    name_map = write_name_map(folder / "source.json", rows)
    file = open_array_file(folder / "source.npy", name_map)
    return import_features(file, folder / "out", Claims(encoder="x"), **options)


def features_of(folder):
    """Bytes and mask by question id."""
    features = open_features(folder, roles=ROLES)
    rows, mask = features.gather(features.question_ids)
    return {key: (rows[i].tobytes(), *mask[i]) for i, key in enumerate(features.question_ids)}
