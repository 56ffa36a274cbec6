"""Shards: what is written is read back bit by bit, by us and by everyone else's readers."""

import gc
import hashlib
import json
import math
import mmap
import multiprocessing
import pickle
import resource
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from feature_sets import D, P, make_feature_set, make_rows, make_spec, write_set
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcot_data.errors import ShardError
from mmcot_data.sealed_json import parse_sealed_json, write_sealed_json
from mmcot_data.shards import FeatureSpec, open_features
from mmcot_data.shards.containers import SUFFIXES
from mmcot_data.shards.manifest import read_manifest, write_manifest
from mmcot_data.shards.writer import cast_features, write_shard


def read_hdf5(path):
    with h5py.File(path) as file:
        dataset = file["features"]
        assert dataset.chunks is None
        assert dataset.compression is None
        return dataset[()], file["image_sha256"][()], file["num_patches"][()], file.attrs["spec"]


def read_arrow(path):
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        assert reader.num_record_batches == 1
        table = reader.read_all()
        shape = (len(table), table.schema[0].type.list_size, -1)
        features = table["features"].combine_chunks().flatten().flatten().to_numpy().reshape(shape)
        digests = np.frombuffer(b"".join(table["image_sha256"].to_pylist()), np.uint8)
        spec = table.schema.metadata[b"spec"].decode()
        return features.copy(), digests.reshape(-1, 32), table["num_patches"].to_numpy(), spec


READERS = {"hdf5": read_hdf5, "arrow": read_arrow}


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_library_readers_get_the_same_bits(tmp_path, container, dtype):
    """Catches a cast, a transposition or a wrong column on the way to the file."""
    features, digests = make_rows(9, dtype)
    num_patches = np.arange(9, dtype=np.int32) % P + 1
    path = tmp_path / f"x{SUFFIXES[container]}"
    record = write_shard(path, features, digests, make_spec(dtype), num_patches_N=num_patches)
    found_features, found_digests, found_patches, spec = READERS[container](path)
    assert found_features.dtype == dtype
    assert found_features.tobytes() == features.tobytes()
    np.testing.assert_array_equal(found_digests, digests)
    np.testing.assert_array_equal(found_patches, num_patches)
    assert FeatureSpec.from_json(json.loads(spec)) == make_spec(dtype)
    content = path.read_bytes()
    assert record.data_offset % 4096 == 0
    assert content[record.data_offset :][: record.data_nbytes] == features.tobytes()
    checksums = np.frombuffer(content, "<u4", 9, record.crc_offset)
    assert checksums.tolist() == [zlib.crc32(row.tobytes()) for row in features]
    header = content[: record.data_offset] + content[record.data_offset + record.data_nbytes :]
    assert record.header_sha256 == hashlib.sha256(header).hexdigest()
    assert (record.rows, record.file_nbytes) == (9, len(content))
    assert record.sha256 == hashlib.sha256(content).hexdigest()


def test_polars_reads_an_arrow_shard(tmp_path):
    features, digests = make_rows(4)
    write_shard(tmp_path / "x.arrow", features, digests, make_spec())
    table = pl.read_ipc(tmp_path / "x.arrow")
    assert table.schema["features"] == pl.Array(pl.Float16, (P, D))
    np.testing.assert_array_equal(table["features"].to_numpy(), features)
    assert table["image_sha256"].to_list() == [row.tobytes() for row in digests]


@settings(max_examples=25, deadline=None)
@given(
    dtype=st.sampled_from(["float16", "float32"]),
    shape=st.tuples(st.integers(1, 200), st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
)
@pytest.mark.parametrize("container", ["hdf5", "arrow"])
def test_round_trip_of_any_shape_and_value(container, tmp_path_factory, dtype, shape, seed):
    """Catches alignment that holds only for large rows, and values such as -0.0 or subnormals."""
    bits = np.random.default_rng(seed).bytes(math.prod(shape) * np.dtype(dtype).itemsize)
    features = np.frombuffer(bits, dtype).reshape(shape).copy()
    features[~np.isfinite(features)] = -0.0
    spec = make_spec(dtype, *shape[1:])
    path = tmp_path_factory.mktemp("shard") / f"x{SUFFIXES[container]}"
    record = write_shard(path, features, np.zeros((shape[0], 32), np.uint8), spec)
    assert record.data_offset % 4096 == 0
    found = np.fromfile(path, dtype, count=features.size, offset=record.data_offset)
    assert found.tobytes() == features.tobytes()
    assert READERS[container](path)[0].tobytes() == features.tobytes()


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
def test_written_twice_gives_the_same_bytes(tmp_path, container):
    """Catches timestamps, process ids and uninitialised padding in the file."""
    features, digests = make_rows(200)
    contents = []
    for name in ("a", "b"):
        path = tmp_path / name / f"x{SUFFIXES[container]}"
        write_shard(path, features, digests, make_spec())
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_leave_nothing(tmp_path, bad):
    features, digests = make_rows(3)
    features[1, 2, 3] = bad
    with pytest.raises(ShardError, match=digests[1].tobytes().hex()):
        write_shard(tmp_path / "x.h5", features, digests, make_spec())
    assert list(tmp_path.iterdir()) == []


def test_what_overflows_float16_is_refused_by_name():
    features = np.array([1.0, 70000.0], np.float32).reshape(2, 1, 1)
    with pytest.raises(ShardError, match=r"b\.png reach 70000, more than float16.*float32"):
        cast_features(features, "float16", ["a.png", "b.png"])
    assert cast_features(features, "float32", ["a.png", "b.png"]) is features


@pytest.mark.parametrize(
    ("features", "digests"),
    [
        (np.zeros((3, P, D), np.float32), np.zeros((3, 32), np.uint8)),
        (np.zeros((3, D, P), np.float16), np.zeros((3, 32), np.uint8)),
        (np.zeros((3, P, D), np.float16), np.zeros((2, 32), np.uint8)),
        (np.zeros((0, P, D), np.float16), np.zeros((0, 32), np.uint8)),
    ],
)
def test_arrays_that_do_not_fit_the_spec_are_refused(tmp_path, features, digests):
    with pytest.raises(ShardError, match="expected"):
        write_shard(tmp_path / "x.h5", features, digests, make_spec())
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_keeps_the_old_shard(tmp_path, monkeypatch):
    """Catches a writer that opens the final path, or forgets its temporary file."""
    features, digests = make_rows(3)
    write_shard(tmp_path / "x.h5", features, digests, make_spec())
    before = (tmp_path / "x.h5").read_bytes()

    def fail(*_):
        raise RuntimeError("interrupted")

    monkeypatch.setattr("mmcot_data.files.os.fsync", fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        write_shard(tmp_path / "x.h5", features + 1, digests, make_spec())
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]
    assert (tmp_path / "x.h5").read_bytes() == before


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_reading_by_question_id(tmp_path, container, dtype):
    """Catches rows of the wrong shard, shared rows and the wrong role."""
    features = make_feature_set(tmp_path, container, dtype)
    fs = open_features(str(tmp_path))
    assert fs.spec == make_spec(dtype)
    assert fs.question_ids == list(fs) == ["q0", "q1", "q2", "q3", "q5"]
    assert len(fs) == 5
    assert "q5" in fs
    assert "q4" not in fs
    assert "q6" not in fs
    expected = {"q0": 0, "q1": 1, "q2": 1, "q3": 3, "q5": 5}
    for question_id, row in expected.items():
        found = fs[question_id]
        assert (found.shape, found.dtype, found.flags.writeable) == ((P, D), dtype, False)
        assert found.tobytes() == features[row].tobytes()
    with pytest.raises(KeyError, match="q4"):
        fs["q4"]


def test_roles_are_tried_in_order(tmp_path):
    features = make_feature_set(tmp_path)
    fs = open_features(tmp_path, roles=("question", "choice_0"))
    assert fs.question_ids == ["q0", "q1", "q2", "q3", "q4", "q5"]
    np.testing.assert_array_equal(fs["q4"], features[4])
    np.testing.assert_array_equal(fs["q5"], features[5])
    fs = open_features(tmp_path, roles=("choice_0",))
    assert fs.question_ids == ["q4", "q5"]
    np.testing.assert_array_equal(fs["q5"], features[2])


def test_gather_gives_zeros_and_a_false_mask_for_absent_ids(tmp_path):
    """Catches left-over values in a reused buffer, and a mask that ignores num_patches."""
    features = make_feature_set(tmp_path)
    fs = open_features(tmp_path)
    out = np.full((5, P, D), 9, np.float16)
    found, mask = fs.gather(["q3", "nobody", "q5", "q3", "q4"], out)
    assert found is out
    for item, row in ((0, 3), (2, 5), (3, 3)):
        np.testing.assert_array_equal(found[item], features[row])
    assert not found[[1, 4]].any()
    assert mask.tolist() == [
        [True, True, True, False, False],
        [False] * P,
        [True] * P,
        [True, True, True, False, False],
        [False] * P,
    ]
    empty, mask = fs.gather([])
    assert (empty.shape, mask.shape) == ((0, P, D), (0, P))
    for wrong in (np.empty((4, P, D), np.float16), np.empty((5, P, D), np.float32)):
        with pytest.raises(ValueError, match="expected a contiguous float16"):
            fs.gather(["q3"] * 5, wrong)


def test_batches_are_gathers_of_consecutive_ids(tmp_path):
    make_feature_set(tmp_path)
    fs = open_features(tmp_path)
    ids = ["q5", "q0", "x", "q1", "q2"]
    batches = list(fs.batches(ids, 2))
    assert [len(features) for features, _ in batches] == [2, 2, 1]
    features, mask = fs.gather(ids)
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in batches]), features)
    np.testing.assert_array_equal(np.concatenate([batch for _, batch in batches]), mask)
    with pytest.raises(ValueError, match="at least 1"):
        fs.batches(ids, 0)


def _sum_of(fs, question_ids, queue):
    queue.put(float(fs.gather(question_ids)[0].astype(np.float64).sum()))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reading_in_another_process(tmp_path, method):
    """Catches maps that are pickled, or shared in a way that does not survive a fork."""
    features = make_feature_set(tmp_path)
    fs = open_features(tmp_path)
    fs.gather(["q0"])
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_sum_of, args=(fs, ["q0", "q5"], queue))
    process.start()
    found = queue.get(timeout=60)
    process.join()
    assert found == features[[0, 5]].astype(np.float64).sum()


@pytest.mark.parametrize("page", [16384, 65536])
@pytest.mark.parametrize("container", ["hdf5", "arrow"])
def test_larger_pages_than_the_alignment_of_shards(tmp_path, monkeypatch, container, page):
    """Catches a shard that is mapped over the end of the one before it, as on ARM machines."""
    shape, size = (8, 256), 16
    features, digests = make_rows(3 * size, shape=shape)
    parts = [slice(start, start + size) for start in range(0, 3 * size, size)]
    shards = [(features[part], digests[part]) for part in parts]
    index = [(f"q{row}", "question", row) for row in range(3 * size)]
    write_set(tmp_path, make_spec("float16", *shape), shards, index, container)
    monkeypatch.setattr("mmap.PAGESIZE", page)
    fs = open_features(tmp_path)
    for start in (0, size, 2 * size, 0):
        ids = [f"q{row}" for row in range(start, start + size)]
        np.testing.assert_array_equal(fs.gather(ids)[0], features[start : start + size])
    found, mask = fs.gather(["nobody", "q15", "q47"])
    assert not found[0].any()
    assert mask.any(axis=1).tolist() == [False, True, True]
    np.testing.assert_array_equal(found[1:], features[[15, 47]])


class _RecordingMap:
    def __init__(self, memory):
        self.memory = memory
        self.hints = []

    def madvise(self, option, start, length):
        assert option == mmap.MADV_WILLNEED
        assert start % mmap.PAGESIZE == 0
        self.hints.append((start, start + length))
        self.memory.madvise(option, start, length)


def test_cold_rows_are_asked_of_the_disk_before_they_are_read(tmp_path):
    """Catches hints that are lost, of other bytes, or given again when rows are in memory."""
    shape, num_rows = (8, 256), 40
    features, digests = make_rows(num_rows, shape=shape)
    index = [(f"q{row}", "question", row) for row in range(num_rows)]
    write_set(tmp_path, make_spec("float16", *shape), [(features, digests)], index)
    fs = open_features(tmp_path)
    fs._mapped._memory = memory = _RecordingMap(fs._mapped._memory)
    row_nbytes = features[0].nbytes
    fs.gather(["q7", "nobody", "q30"])
    assert len(memory.hints) == 2
    for row, (start, stop) in zip((7, 30), memory.hints, strict=True):
        assert start <= row * row_nbytes
        assert stop == (row + 1) * row_nbytes
    fs.gather(["q30", "q7"])
    assert len(memory.hints) == 2
    batches = fs.batches([f"q{row}" for row in range(20)], 4)
    next(batches)
    assert len(memory.hints) == 21, "the next batches are not asked for ahead"
    fs._hinted_batches = 1
    fs.gather(["q7"])
    fs.gather(["q7"])
    assert len(memory.hints) == 22, "rows that may have left the memory are asked for again"


def test_a_feature_set_does_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    features = make_feature_set(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    fs = open_features("set")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(fs["q0"], features[0])


def test_threads_read_a_new_feature_set_at_once(tmp_path):
    """Catches a map that one thread replaces while another has begun to use it."""
    make_feature_set(tmp_path)
    ids = ["q5", "q0", "q3", "q2", "x"]
    expected = open_features(tmp_path).gather(ids)[0].tobytes()
    for _ in range(20):
        fs = open_features(tmp_path)
        barrier = threading.Barrier(4)

        def read(fs=fs, barrier=barrier):
            barrier.wait()
            return fs.gather(ids)[0].tobytes()

        with ThreadPoolExecutor(4) as threads:
            found = [future.result() for future in [threads.submit(read) for _ in range(4)]]
        assert found == [expected] * 4


def test_more_shards_than_files_a_process_may_open(tmp_path):
    """Catches a file that stays open for each map."""
    features, digests = make_rows(40)
    shards = [(features[i : i + 1], digests[i : i + 1]) for i in range(40)]
    index = [(f"q{i}", "question", i) for i in range(40)]
    write_set(tmp_path, make_spec(), shards, index)
    fs = open_features(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    num_open = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (num_open + 5, hard))
    try:
        found, _ = fs.gather([f"q{i}" for i in range(40)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    np.testing.assert_array_equal(found, features)


def test_a_row_outlives_its_feature_set(tmp_path):
    """Catches addresses that are given back while an array still shows them."""
    features = make_feature_set(tmp_path)
    rows = [open_features(tmp_path)["q0"] for _ in range(50)]
    gc.collect()
    for row in rows:
        np.testing.assert_array_equal(row, features[0])


def test_a_pickled_feature_set_is_small(tmp_path):
    make_feature_set(tmp_path)
    fs = open_features(tmp_path)
    fs.gather(fs.question_ids)
    clone = pickle.loads(pickle.dumps(fs))
    np.testing.assert_array_equal(clone["q5"], fs["q5"])
    assert len(pickle.dumps(fs)) < 4000


def test_a_folder_that_is_no_finished_feature_set_is_refused_with_what_it_is(tmp_path):
    make_feature_set(tmp_path / "root" / "detr")
    make_feature_set(tmp_path / "unfinished")
    (tmp_path / "unfinished" / "manifest.json").unlink()
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("unfinished", r"is unfinished: .*run what makes it again"),
        ("nothing", "does not exist; expected the folder of a feature set"),
        ("root", f"is an artifact root, expected one of its feature sets: {tmp_path}/root/detr"),
        ("root/detr/manifest.json", "is a file; expected the folder"),
        ("empty", "is no feature set: it has no manifest.json; `mmcot-data extract"),
    ):
        with pytest.raises(ShardError, match=message):
            open_features(tmp_path / path)


def test_arguments_that_are_not_possible_are_refused(tmp_path):
    """Catches a misspelt check that checks nothing, and ids or roles that silently find nothing."""
    make_feature_set(tmp_path)
    for wrong in (
        {"check": "full"},
        {"check": None},
        {"combine": "both"},
        {"roles": "question"},
        {"roles": ("bogus",)},
        {"roles": ()},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            open_features(tmp_path, **wrong)
    fs = open_features(tmp_path)
    for ids in ([42], ["q0", 7], "q0", "42"):
        with pytest.raises(TypeError, match="expected a list of strings"):
            fs.gather(ids)
    with pytest.raises(KeyError, match="ids are strings"):
        fs[42]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "format version is 2"),
        (lambda m: m.pop("rows"), "rows is missing"),
        (lambda m: m["spec"].update(colour="red"), "colour is unknown"),
        (lambda m: m["spec"].update(dtype="int8"), "int8.*float16 or float32"),
        (lambda m: m.update(format_version="1"), "format version is '1'"),
        (lambda m: m["shards"][0].update(rows="4"), "rows is '4', expected int"),
        (lambda m: m["spec"].update(layer=3), "layer is 3, expected str"),
        (lambda m: m["spec"].update(num_patches=P + 1), "damaged"),
        (lambda m: m["shards"][0].update(rows=5), "damaged"),
        (lambda m: m["shards"].pop(), "point outside"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path, change, message):
    make_feature_set(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = parse_sealed_json(path.read_bytes(), "")
    change(manifest)
    write_sealed_json(path, manifest)
    with pytest.raises(ShardError, match=message):
        open_features(tmp_path)


def test_a_damaged_manifest_or_index_is_refused(tmp_path):
    make_feature_set(tmp_path)
    index = tmp_path / "index.parquet"
    content = index.read_bytes()
    index.write_bytes(content[:-1] + b"x")
    with pytest.raises(ShardError, match=r"index\.parquet is absent or not the one"):
        open_features(tmp_path)
    index.write_bytes(content)
    (tmp_path / "manifest.json").write_text('{"format_version": 1,')
    with pytest.raises(ShardError, match="does not end with its checksum"):
        open_features(tmp_path)


def test_a_truncated_or_absent_shard_is_refused_before_it_is_mapped(tmp_path):
    """A map longer than its file would end the process with SIGBUS."""
    make_feature_set(tmp_path)
    shard = tmp_path / "00001-of-00002.h5"
    content = shard.read_bytes()
    fs = open_features(tmp_path)
    shard.write_bytes(content[:-1])
    with pytest.raises(ShardError, match=f"{len(content) - 1} bytes.*{len(content)}"):
        fs.gather(["q5"])
    shard.unlink()
    with pytest.raises(ShardError, match="absent"):
        fs["q5"]
    assert fs["q0"].shape == (P, D)


def test_spec_survives_json_and_lists_its_differences():
    spec = make_spec()
    assert FeatureSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.differences(spec) == []
    other = replace(
        spec,
        revision="main",
        preprocessing=[{"step": "resize", "size": 384}, *spec.preprocessing[1:]],
        versions={"torch": "2.15.0", "timm": "1.0"},
    )
    assert spec.differences(other) == [
        "revision: expected None, found 'main'",
        "preprocessing.0.size: expected 224, found 384",
        "versions.timm: expected nothing, found '1.0'",
    ]


def test_manifest_survives_json(tmp_path):
    make_feature_set(tmp_path)
    manifest = read_manifest(tmp_path)
    write_manifest(tmp_path / "copy", manifest)
    assert read_manifest(tmp_path / "copy") == manifest


def test_reading_imports_no_model_or_picture_library(tmp_path):
    """Other people's models read shards without our stack."""
    make_feature_set(tmp_path)
    blocked = ("torch", "PIL", "transformers", "torchvision", "h5py", "pyarrow", "mmcot_model")
    code = f"""
import sys
for name in {blocked}:
    sys.modules[name] = None
from mmcot_data.shards import open_features
print(open_features({str(tmp_path)!r}).gather(["q0", "x"])[1].sum())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(P)), done.stderr
