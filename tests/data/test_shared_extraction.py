"""One decoding for several encoders, and several processes on one artifact root."""

import multiprocessing
import multiprocessing.connection
import os
import random
import signal
import time
from dataclasses import dataclass

import extract_in_process
import numpy as np
import polars as pl
import pytest
import torch
from fake_encoder import PATCHES, FakeEncoder, colour_of, make_data, picture_path, save_picture
from PIL import Image

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.errors import ShardError
from mmcot_data.extraction import ExtractionConfig, Reports, extract_feature_sets, extract_features
from mmcot_data.shards import open_features
from mmcot_data.shards.lock import claim_shard
from mmcot_data.shards.manifest import read_commit

NUM = 70


class SquareEncoder(FakeEncoder):
    """Another encoder: squares, other features, a row eight times as large."""

    name = "square"
    num_patches = 32

    def describe(self):
        return super().describe() | {"encoder": self.name, "num_patches": 32}

    def input_size(self, width, height):
        return 8, 8

    def encode(self, pixels_BCHW):
        return (super().encode(pixels_BCHW) + 1).repeat(1, 8, 1)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    sizes = [(32 + 4 * n, 32) for n in range(7)] + [(32, 40 + 8 * n) for n in range(5)]
    return make_data(folder, num_questions=40, sizes=sizes)


def config_for(name, data, out, **changes):
    settings = {"shard_size": 8, "batch_size": 3} | changes
    return ExtractionConfig(data=data, out=out, encoder=EncoderConfig(name=name), **settings)


def shards_of(folder):
    paths = sorted(folder.glob("[0-9]*-of-*"))
    return {path.name: path.read_bytes() for path in paths if path.suffix != ".json"}


@pytest.fixture
def decoded(monkeypatch):
    """Counts decodings by picture."""
    from mmcot_data.extraction import decode

    original, names = decode.decode_rgb, []

    def count(data, name, *args, **kwargs):
        names.append(name)
        return original(data, name, *args, **kwargs)

    monkeypatch.setattr(decode, "decode_rgb", count)
    return names


@pytest.mark.parametrize("square_size", [None, 4, 16])
def test_several_encoders_share_one_decoding(data, tmp_path, decoded, square_size):
    """Catches decoding once an encoder, and features that depend on who is extracted with them."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(picture_path(data, 11))
    picture_path(data, 11).write_bytes(picture_path(data, 11).read_bytes()[:-900])
    alone = {}
    for encoder in (FakeEncoder(), SquareEncoder()):
        size = square_size or 8 if encoder.name == "square" else 8
        config = config_for(
            encoder.name, data, tmp_path / "alone", shard_size=size, max_failures="1"
        )
        extract_features(config, encoder=encoder)
        alone[encoder.name] = shards_of(tmp_path / "alone" / encoder.name)
    decoded.clear()
    calls = []
    configs = [
        config_for("fake", data, tmp_path / "both", max_failures="1"),
        config_for(
            "square", data, tmp_path / "both", max_failures="1", shard_size=square_size or 8
        ),
    ]
    summaries = extract_feature_sets(
        configs,
        Reports(extracted=lambda *call: calls.append(call)),
        encoders=[FakeEncoder(), SquareEncoder()],
    )
    assert len(decoded) == len(set(decoded)) == 40
    assert [summary.num_failed for summary in summaries] == [1, 1]
    assert (calls[0], calls[-1]) == ((0, 80), (80, 80))
    for name, shards in alone.items():
        assert shards_of(tmp_path / "both" / name) == shards


def test_only_what_is_missing_is_decoded(data, tmp_path, decoded):
    """Catches a second encoder that makes the first one's features again."""
    extract_features(config_for("fake", data, tmp_path / "out"), encoder=FakeEncoder())
    (tmp_path / "out/fake/00002-of-00005.h5.json").unlink()
    decoded.clear()
    fake, square = FakeEncoder(), SquareEncoder()
    (tmp_path / "out/fake/manifest.json").unlink()
    configs = [config_for(name, data, tmp_path / "out") for name in ("fake", "square")]
    summaries = extract_feature_sets(configs, encoders=[fake, square])
    assert [summary.num_extracted for summary in summaries] == [8, 40]
    assert sum(shape[0] for shape in fake.batches) == 8
    assert len(decoded) == 40


def test_shards_that_do_not_nest_are_refused(data, tmp_path):
    configs = [
        config_for("fake", data, tmp_path),
        config_for("square", data, tmp_path, shard_size=6),
    ]
    with pytest.raises(ValueError, match="divide each other, found 8, 6"):
        extract_feature_sets(configs, encoders=[FakeEncoder(), SquareEncoder()])
    configs[1] = config_for("square", data, tmp_path, splits=("test",))
    with pytest.raises(ValueError, match="the same splits"):
        extract_feature_sets(configs, encoders=[FakeEncoder(), SquareEncoder()])


def test_padded_batches_reach_the_encoder_with_their_sizes(data, tmp_path):
    """Catches padding at the wrong side, or sizes that belong to other pictures."""
    seen = []

    class Padding(FakeEncoder):
        pads = True

        def start(self, pixels_BCHW, sizes=None):
            sizes = sizes or [tuple(pixels_BCHW.shape[2:])] * len(pixels_BCHW)
            seen.append((tuple(pixels_BCHW.shape[2:]), tuple(sizes)))
            parts = []
            for pixels_CHW, (height, width) in zip(pixels_BCHW, sizes, strict=True):
                assert not pixels_CHW[:, height:].any()
                assert not pixels_CHW[:, :, width:].any()
                parts.append(self.encode(pixels_CHW[None, :, :height, :width]))
            return lambda: torch.cat(parts)

    extract_features(config_for("fake", data, tmp_path, pad_to=32), encoder=Padding())
    assert any(len(set(sizes)) > 1 for _, sizes in seen)
    assert {side % 32 for shape, _ in seen for side in shape} == {0}
    features = open_features(tmp_path / "fake")
    for number in range(40):
        expected = (np.array(colour_of(number), np.float32) / 256).astype("float16")
        np.testing.assert_array_equal(features[str(number)], np.tile(expected, (PATCHES, 1)))


def test_a_header_that_lies_costs_its_picture_only(data, tmp_path, monkeypatch):
    from mmcot_data.extraction import scan

    original = scan.header_size

    def lie(content, name):
        width, height = original(content, name)
        return (width + 1, height) if name.endswith("/7/image.png") else (width, height)

    monkeypatch.setattr(scan, "header_size", lie)
    config = config_for("fake", data, tmp_path / "out", max_failures="1")
    summary = extract_features(config, encoder=FakeEncoder())
    assert dict(summary.failed) == {"unreadable": 1}
    index = pl.read_parquet(tmp_path / "out/fake/index.parquet")
    (error,) = index.filter(pl.col("question_id") == "7")["error"]
    assert "its header says" in error


def test_commit_records_say_what_computed_a_shard(data, tmp_path):
    extract_features(config_for("fake", data, tmp_path), encoder=FakeEncoder())
    commit = read_commit(tmp_path / "fake/00000-of-00005.h5.json")
    assert commit.made_by == {"mmcot": "0.1.0", "batch_size": 3, "pad_to": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A data set, and the shards of an uninterrupted run for each batch size."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "data").mkdir()
    data = make_data(folder / "data", num_questions=NUM)
    for number in (5, 50, 51):
        save_picture(picture_path(data, number), 3)  # copies
    picture_path(data, 67).write_bytes(b"no picture")
    return data


@dataclass
class Worker:
    """A process that extracts."""

    process: multiprocessing.process.BaseProcess
    results: multiprocessing.connection.Connection

    def end(self):
        """What it reports."""
        self.process.join(60)
        assert self.process.exitcode == 0
        return self.results.recv()

    def signal(self, number):
        os.kill(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.join()


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mmcot_data.extraction", "PIL.Image"])


def start(data, out, batch_size=4, container="hdf5", *, barrier=None):
    """Start a process that extracts; what it needs is imported already."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    arguments = (data, out, batch_size, container, sender, barrier)
    process = CONTEXT.Process(target=extract_in_process.main, args=arguments)
    process.start()
    return Worker(process, receiver)


def assert_rows(out):
    features = open_features(out / "fake")
    assert features.question_ids == [str(n) for n in range(NUM) if n != 67]
    for number in set(range(NUM)) - {67}:
        colour = colour_of(3 if number in (5, 50, 51) else number)
        expected = (np.array(colour, np.float32) / 256).astype("float16")
        np.testing.assert_array_equal(features[str(number)], np.tile(expected, (PATCHES, 1)))


def whole(data, out, container="hdf5"):
    return start(data, out, container=container).end()


def test_three_processes_share_the_work(many, tmp_path):
    """Catches shards made twice, half-written, or left to nobody."""
    whole(many, tmp_path / "whole")
    barrier = CONTEXT.Barrier(3)
    workers = [start(many, tmp_path / "out", barrier=barrier) for _ in range(3)]
    results = [worker.end() for worker in workers]
    assert sum(encoded for _, encoded, _ in results) == NUM - 3 - 1
    assert {num_distinct for *_, num_distinct in results} == {NUM - 3 - 1}
    assert sum(encoded > 0 for _, encoded, _ in results) >= 2
    assert shards_of(tmp_path / "out/fake") == shards_of(tmp_path / "whole/fake")
    for name in ("manifest.json", "index.parquet"):
        expected = (tmp_path / "whole/fake" / name).read_bytes()
        assert (tmp_path / "out/fake" / name).read_bytes() == expected
    assert_rows(tmp_path / "out")
    assert not list((tmp_path / "out/fake").glob(".*.claim"))
    assert not (tmp_path / "out/fake/plan.json").exists()


def test_the_others_take_over_what_a_killed_process_had_claimed(many, tmp_path):
    """Catches a claim that outlives its process, and a worker that waits for ever."""
    whole(many, tmp_path / "whole")
    killed = start(many, tmp_path / "out")
    claims = tmp_path / "out/fake"
    while not list(claims.glob(".0*.claim")):
        time.sleep(0.001)
    killed.signal(signal.SIGSTOP)  # it holds its claim while the other one does all the rest
    survivor = start(many, tmp_path / "out")
    deadline = time.monotonic() + 30
    while len(shards_of(claims)) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert survivor.process.is_alive()
    killed.signal(signal.SIGKILL)
    survivor.end()
    assert shards_of(tmp_path / "out/fake") == shards_of(tmp_path / "whole/fake")
    assert_rows(tmp_path / "out")


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
@pytest.mark.parametrize("batch_sizes", [(4,), (1, 2, 3, 5, 8)])
def test_killed_again_and_again_at_random_moments(many, tmp_path, container, batch_sizes):
    """With one batch size the bytes, with changing ones the rows are those of a quiet run."""
    whole(many, tmp_path / "whole", container)
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    for _ in range(5):
        worker = start(many, tmp_path / "out", draw.choice(batch_sizes), container)
        deadline = time.monotonic() + 20
        while not list((tmp_path / "out/fake").glob(".0*.claim")) and worker.process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        worker.signal(signal.SIGKILL)
    start(many, tmp_path / "out", draw.choice(batch_sizes), container).end()
    assert shards_of(tmp_path / "out/fake") == shards_of(tmp_path / "whole/fake"), seed
    assert_rows(tmp_path / "out")


def test_another_request_is_refused_while_the_first_one_is_made(data, tmp_path):
    """Before the first shard is there, too: catches two plans in one folder."""

    class Racing(FakeEncoder):
        def encode(self, pixels_BCHW):
            if not self.batches:
                other = config_for("fake", data, tmp_path / "out", dtype="float32")
                with pytest.raises(ShardError, match="dtype: expected 'float32'"):
                    extract_features(other, encoder=FakeEncoder())
            return super().encode(pixels_BCHW)

    config = config_for("fake", data, tmp_path / "out")
    assert extract_features(config, encoder=Racing()).num_distinct == 40


def test_a_claim_excludes_and_is_free_again(tmp_path):
    claim = claim_shard(tmp_path, "00000-of-00001.h5")
    assert claim is not None
    assert claim_shard(tmp_path, "00000-of-00001.h5") is None
    assert claim_shard(tmp_path, "00001-of-00001.h5") is not None
    claim.release()
    assert claim_shard(tmp_path, "00000-of-00001.h5") is not None
