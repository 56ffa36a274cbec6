"""Several feature sets as one."""

import pickle

import numpy as np
import pytest
from feature_sets import D, P, make_rows, make_spec, write_set

from mmcot_data.errors import ShardError, TrainingError
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.features import join_features, open_run_features


def test_a_projection_of_the_joined_is_one_of_each():
    """Would catch columns that overlap, and patches of one set under the mask of another."""
    rng = np.random.default_rng(0)
    shapes = [(4, 3, 5), (4, 2, 7)]
    parts = [
        (rng.standard_normal(shape).astype(np.float16), rng.random(shape[:2]) < 0.5)
        for shape in shapes
    ]
    joined_BPD, mask_BP = join_features(parts)
    assert joined_BPD.shape == (4, 5, 12)
    assert joined_BPD.dtype == np.float16
    weight = rng.standard_normal((12, 6))
    (first, first_mask), (second, second_mask) = parts
    expected = np.concatenate([first @ weight[:5], second @ weight[5:]], axis=1)
    np.testing.assert_allclose(joined_BPD @ weight, expected)
    assert (mask_BP == np.concatenate([first_mask, second_mask], axis=1)).all()


def test_one_set_is_not_copied():
    features, mask = np.ones((2, 3, 4), np.float16), np.ones((2, 3), bool)
    joined, joined_mask = join_features([(features, mask)])
    assert joined is features
    assert joined_mask is mask


INDEX = [("1", "question", 0), ("2", "question", 1), ("3", "question", 2)]


@pytest.fixture
def detr(tmp_path):
    write_set(tmp_path / "detr", make_spec(encoder="detr"), [make_rows(3)], INDEX)
    return tmp_path / "detr"


@pytest.fixture
def clip(tmp_path):
    spec = make_spec(encoder="clip", num_patches=2, feature_dim=3)
    rows = make_rows(2, seed=1, shape=(2, 3))
    write_set(tmp_path / "clip", spec, [rows], [("3", "question", 0), ("1", "question", 1)])
    return tmp_path / "clip"


def test_sets_of_two_encoders(detr, clip):
    """Would catch rows of two sets that belong to different questions, and a question that only
    one set knows."""
    features = open_run_features([detr, clip], ("question",))
    assert features.layout == FeatureLayout(
        encoders=("detr", "clip"), num_patches=P + 2, patch_dim=D + 3
    )
    joined_BPD, mask_BP = features.gather(["3", "2", "absent"])
    (rows, _), (others, _) = make_rows(3), make_rows(2, seed=1, shape=(2, 3))
    assert np.array_equal(joined_BPD[0, :P, :D], rows[2])
    assert np.array_equal(joined_BPD[0, P:, D:], others[0])
    assert np.array_equal(joined_BPD[1, :P, :D], rows[1])
    assert mask_BP.tolist() == [[True] * (P + 2), [True] * P + [False] * 2, [False] * (P + 2)]
    assert "2" in features
    assert "absent" not in features
    copy = pickle.loads(pickle.dumps(features))
    assert np.array_equal(copy.gather(["3"])[0], joined_BPD[:1]), "for processes that load batches"


def test_wrong_sets_are_explained(detr):
    with pytest.raises(TrainingError, match="'detr': give each encoder once"):
        open_run_features([detr, detr], ("question",))
    features = open_run_features([detr], ("question",))
    with pytest.raises(TrainingError, match="1 feature sets were given, the model reads 2"):
        open_run_features([detr], ("question",), expect=features.specs * 2)
    other = features.specs[0] | {"weights_sha256": "0" * 64}
    with pytest.raises(ShardError, match="weights_sha256"):
        open_run_features([detr], ("question",), expect=[other])
    assert open_run_features([], ("question",)) is None
