"""Batches for PyTorch: the bits of ``gather``, whoever reads them and however long they live."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from feature_sets import D, P, make_feature_set
from torch.utils.data import DataLoader

from mmcot_data.errors import ShardError
from mmcot_data.shards import open_features
from mmcot_data.shards import torch as shards_torch
from mmcot_data.shards.torch import FeatureLoader, PatchFeatures, RandomBatches

IDS = ["q5", "nobody", "q0", "q3", "q2", "q1", "q5"]


@pytest.fixture
def features(tmp_path):
    make_feature_set(tmp_path)
    return open_features(tmp_path)


def assert_gathered(features, batch):
    expected, mask = features.gather(batch.question_ids)
    assert batch.features_BPD.numpy().tobytes() == expected.tobytes()
    assert batch.features_BPD.dtype == torch.float16
    np.testing.assert_array_equal(batch.mask_BP.numpy(), mask)


def test_data_set_gives_whole_batches(tmp_path):
    rows = make_feature_set(tmp_path)
    data = PatchFeatures(open_features(tmp_path), ["q5", "x", "q0"])
    loader = DataLoader(data, batch_size=2, collate_fn=PatchFeatures.collate)
    batches = [features for features, _ in loader]
    assert [tuple(batch.shape) for batch in batches] == [(2, P, D), (1, P, D)]
    assert torch.cat(batches).numpy()[[0, 2]].tobytes() == rows[[5, 0]].tobytes()
    item, mask = data[1]
    assert (tuple(item.shape), mask.tolist()) == ((P, D), [False] * P)
    assert len(PatchFeatures(open_features(tmp_path))) == 5


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_read_the_same(tmp_path, method):
    """Catches maps that are pickled, and maps opened before a fork that break after it."""
    make_feature_set(tmp_path)
    command = [sys.executable, str(Path(__file__).with_name("read_in_workers.py"))]
    done = subprocess.run(
        [*command, str(tmp_path), method, *IDS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == open_features(tmp_path).gather(IDS)[0].tobytes().hex()


def test_loader_gives_the_batches_in_order_and_again(features):
    batches = [IDS[:3], IDS[3:4], IDS[4:], []]
    loader = FeatureLoader(features, batches)
    assert len(loader) == 4
    for _ in range(2):
        found = []
        for batch in loader:
            assert_gathered(features, batch)
            found.append(list(batch.question_ids))
        assert found == batches


def test_batches_that_are_kept_stay_what_they_were(features):
    """Catches a buffer that is filled again while a tensor, or a view of it, is alive."""
    ids = ["q0", "q1", "q3", "q5"] * 10
    kept = list(FeatureLoader(features, [[question_id] for question_id in ids]))
    assert [batch.question_ids for batch in kept] == [[question_id] for question_id in ids]
    for batch in kept:
        assert_gathered(features, batch)
    views = [
        batch.features_BPD[0, 1:].flatten()
        for batch in FeatureLoader(features, [[question_id] for question_id in ids])
    ]
    for question_id, view in zip(ids, views, strict=True):
        assert view.numpy().tobytes() == features[question_id][1:].tobytes()


def test_buffers_are_used_again(features, monkeypatch):
    """Catches a new allocation for every batch."""
    made = []
    buffer = shards_torch._Buffer

    def count(*args, **options):
        made.append(args)
        return buffer(*args, **options)

    monkeypatch.setattr(shards_torch, "_Buffer", count)
    for _ in FeatureLoader(features, [IDS] * 100):
        pass
    assert len(made) <= 6


def test_an_error_reaches_the_consumer_and_the_thread_ends(tmp_path):
    make_feature_set(tmp_path)
    path = tmp_path / "00001-of-00002.h5"
    path.write_bytes(path.read_bytes()[:-1])
    loader = FeatureLoader(open_features(tmp_path), [["q0"], ["q5"]])
    with pytest.raises(ShardError, match="is damaged"):
        list(loader)
    assert not any(thread.name == "mmcot-features" for thread in threading.enumerate())


def test_leaving_early_ends_the_thread(features):
    for _ in FeatureLoader(features, [["q0"]] * 1000):
        break
    assert not any(thread.name == "mmcot-features" for thread in threading.enumerate())


def test_random_batches_hold_every_question_once_in_a_new_order():
    ids = [str(i) for i in range(23)]
    batches = RandomBatches(ids, 5, seed=3)
    epochs = [list(batches) for _ in range(2)]
    assert [[len(batch) for batch in epoch] for epoch in epochs] == [[5, 5, 5, 5, 3]] * 2
    orders = [[question_id for batch in epoch for question_id in batch] for epoch in epochs]
    assert sorted(orders[0], key=int) == sorted(orders[1], key=int) == ids
    assert orders[0] != orders[1]
    assert list(RandomBatches(ids, 5, seed=3)) == epochs[0]
    dropped = RandomBatches(ids, 5, drop_last=True)
    assert (len(batches), len(dropped), len(list(dropped))) == (5, 4, 4)
    with pytest.raises(ValueError, match="at least 1"):
        RandomBatches(ids, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_the_device(features):
    """Catches a pinned buffer that is filled again before its copy has ended."""
    loader = FeatureLoader(features, [[q] for q in ["q0", "q1", "q3", "q5"]] * 50, device="cuda")
    for batch in list(loader):
        assert batch.features_BPD.is_cuda
        expected, _ = features.gather(batch.question_ids)
        assert batch.features_BPD.cpu().numpy().tobytes() == expected.tobytes()
