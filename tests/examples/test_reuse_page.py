"""The snippets of docs/reuse.md run as they stand."""

import re
from pathlib import Path

import numpy as np

from mmcot_data.shards import open_features

PAGE = Path(__file__).parents[2] / "docs" / "reuse.md"


def test_snippets_read_the_same_features(tmp_path, make_root, monkeypatch):
    """Catches a snippet that no longer runs, or reads other rows. ``python no-run`` is left out."""
    for name, container in (("shards", "hdf5"), ("shards-arrow", "arrow")):
        make_root(tmp_path / name, container)
    monkeypatch.chdir(tmp_path)
    names, whole_shards = {}, []
    for snippet in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        exec(compile(snippet, str(PAGE), "exec"), names)
        if "features_NPD" in names:
            whole_shards.append(names.pop("features_NPD"))
    features = open_features("shards/tiny")
    np.testing.assert_array_equal(names["features_PD"], features["42"])
    assert len(whole_shards) == 3
    for shard_NPD in whole_shards:
        expected, _ = features.gather(features.question_ids[: len(shard_NPD)])
        np.testing.assert_array_equal(shard_NPD, expected)
