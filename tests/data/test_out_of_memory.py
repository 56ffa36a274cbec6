"""Batches that do not fit into memory: halved once, recorded, explained."""

import gc
import weakref

import pytest
import torch
from fake_encoder import FakeEncoder, make_data

from mmcot_data import cli
from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.errors import EncoderError
from mmcot_data.extraction import (
    ExtractionConfig,
    extract_features,
    extract_shard,
    open_pictures,
    prepare_extraction,
    scan_source,
)
from mmcot_data.extraction.shard import ReadyBatch
from mmcot_data.out_of_memory import is_out_of_memory
from mmcot_data.shards import open_features
from mmcot_data.shards.manifest import read_commit


class SmallEncoder(FakeEncoder):
    """Has room for some pictures at a time; those of one batch that is waited for count, too.

    As on a GPU, computing begins with ``start`` and holds its memory until it was waited for.
    """

    def __init__(self, room, fails_in="start"):
        super().__init__()
        self.room = room
        self.fails_in = fails_in
        self.in_flight = 0

    def start(self, pixels_BCHW, sizes=None):
        count = len(pixels_BCHW)
        fits = self.in_flight + count <= self.room
        if not fits and self.fails_in == "start":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.in_flight += count
        features_BPD = self.encode(pixels_BCHW)

        def wait():
            self.in_flight -= count
            if not fits:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return features_BPD

        return wait


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data", num_questions=20, sizes=[(32, 32)])


def config_for(data, out, **changes):
    settings = {"shard_size": 10, "batch_size": 4} | changes
    return ExtractionConfig(data=data, out=out, encoder=EncoderConfig(name="fake"), **settings)


@pytest.fixture(autouse=True)
def folder_of_data(tmp_path):
    (tmp_path / "data").mkdir()


@pytest.mark.parametrize("fails_in", ["start", "wait"])
def test_a_batch_that_does_not_fit_is_halved_once_and_recorded(data, tmp_path, fails_in):
    """Catches features that are lost, doubled or out of order when a batch is divided."""
    expected = extract_features(config_for(data, tmp_path / "a"), encoder=FakeEncoder())
    assert expected.num_halved == 0
    small = SmallEncoder(room=2, fails_in=fails_in)
    summary = extract_features(config_for(data, tmp_path / "b"), encoder=small)
    assert summary.num_halved == 2
    whole, halved = (open_features(tmp_path / name / "fake") for name in "ab")
    ids = [str(number) for number in range(20)]
    assert (whole.gather(ids)[0] == halved.gather(ids)[0]).all()
    commit = read_commit(tmp_path / "b" / "fake" / "00000-of-00002.h5.json")
    assert commit.made_by["halved_batches"] == 3  # of 4, 4 and 2 pictures
    assert (
        "halved_batches"
        not in read_commit(tmp_path / "a" / "fake" / "00000-of-00002.h5.json").made_by
    )


def test_two_batches_in_flight_that_do_not_fit_together_are_not_an_error(data, tmp_path):
    """A batch alone fits. Catches an error where waiting for the batch before would do."""
    summary = extract_features(config_for(data, tmp_path / "a"), encoder=SmallEncoder(room=5))
    assert summary.num_halved == 2
    assert summary.num_distinct == 20


def test_half_a_batch_that_does_not_fit_is_explained(data, tmp_path):
    """Catches halving without end, and a message without a way out."""
    with pytest.raises(EncoderError, match=r"batch of 4 pictures of 16 x 16.*--batch-size 1"):
        extract_features(config_for(data, tmp_path / "a"), encoder=SmallEncoder(room=1))
    assert list((tmp_path / "a" / "fake").glob("[0-9]*-of-*")) == []


def test_one_picture_that_does_not_fit_is_explained(data, tmp_path):
    """Catches advice that fails again: --batch-size 1, when half a batch was one picture."""
    for batch_size in (1, 2):
        config = config_for(data, tmp_path / "a", batch_size=batch_size)
        with pytest.raises(EncoderError, match="not even one picture of 16 x 16 pixels"):
            extract_features(config, encoder=SmallEncoder(room=0))


def test_another_error_is_not_taken_for_it(data, tmp_path):
    """Catches a batch that is encoded again because of any RuntimeError."""

    class Broken(FakeEncoder):
        def encode(self, pixels_BCHW):
            super().encode(pixels_BCHW)
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    encoder = Broken()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        extract_features(config_for(data, tmp_path / "a"), encoder=encoder)
    assert len(encoder.batches) == 1


def test_real_shortage_is_recognised():
    """The real error of torch's CPU allocator, whose text is all that tells it apart."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("out of range"))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_halves_are_the_batch(count):
    """Catches pictures, positions and sizes that are divided at different places."""
    pixels_BCHW = torch.arange(count * 12.0).reshape(count, 3, 2, 2)
    sizes = [(1, number + 1) for number in range(count)]
    halves = ReadyBatch(tuple(range(10, 10 + count)), pixels_BCHW, sizes).halves()
    assert len(halves) == min(2, count)
    assert torch.equal(torch.cat([half.pixels_BCHW for half in halves]), pixels_BCHW)
    assert [n for half in halves for n in half.positions] == list(range(10, 10 + count))
    assert [size for half in halves for size in half.sizes] == sizes
    assert max(len(half.positions) for half in halves) == -(-count // 2)


def test_memory_of_the_failed_attempt_is_free_for_the_halves(data, tmp_path, monkeypatch):
    """Catches an error's traceback that keeps the tensors of the failed attempt alive."""
    alive = []

    class Large:
        pass

    class Hungry(FakeEncoder):
        def start(self, pixels_BCHW, sizes=None):
            activations = Large()
            alive.append(weakref.ref(activations))
            if len(pixels_BCHW) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            assert all(ref() is None for ref in alive[:-1])
            return super().start(pixels_BCHW, sizes)

    gc.disable()
    try:
        extract_features(config_for(data, tmp_path / "a"), encoder=Hungry())
    finally:
        gc.enable()
    assert len(alive) > 3


def test_the_command_tells_of_it(data, tmp_path, monkeypatch, capsys):
    """Catches a run whose slowness nobody could explain."""
    monkeypatch.setattr("mmcot_data.extraction.run.load_encoder", lambda _: SmallEncoder(room=2))
    out = ["--out", str(tmp_path / "a"), "--shard-size", "10", "--batch-size", "4"]
    assert cli.main(["extract", str(data), "--encoder", "tiny", *out]) == 0
    assert "short of memory: 2 shards with batches in halves" in capsys.readouterr().out


def test_one_task_makes_one_shard(data, tmp_path):
    """A flow's way: what is halved is in the record that the task returns."""
    config = config_for(data, tmp_path / "a")
    small = SmallEncoder(room=2)
    plan, _ = prepare_extraction(config, small, scan_source(open_pictures(config)))
    commit = extract_shard(plan.shard_task(1), small)
    assert commit.made_by["halved_batches"] == 3
