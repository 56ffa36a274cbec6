"""Features of other programs' files and back, bit by bit; read by those programs' own readers."""

import json
import math

import datasets
import h5py
import numpy as np
import polars as pl
import pytest
import torch
from fake_encoder import make_data, picture_path
from feature_files import ROLES, features_of, import_array
from feature_sets import D, P, make_feature_set, make_rows, make_spec, write_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmcot_data.cli import main
from mmcot_data.files import file_sha256
from mmcot_data.interchange import (
    Claims,
    export_array,
    export_group_file,
    export_hf_dataset,
    import_features,
    open_array_file,
    open_group_file,
    open_hf_dataset,
)
from mmcot_data.shards import open_features
from mmcot_data.shards.index import INDEX_SCHEMA
from mmcot_data.shards.store import open_store

DTYPES = ("float16", "float32")


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), to=st.sampled_from(["npy", "pth"]))
def test_an_array_comes_back_bit_by_bit(data, dtype, to, tmp_path_factory):
    """Catches rounding, a lost sign of zero, flushed subnormals and a wrong shape."""
    tmp_path = tmp_path_factory.mktemp("array")
    shape = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=3))
    width = int(dtype[-2:])
    elements = st.floats(width=width, allow_nan=False, allow_infinity=False)
    array = data.draw(arrays(dtype, tuple(shape), elements=elements))
    summary = import_array(array, tmp_path, shard_size=2)
    stored = open_features(summary.folder)
    assert b"".join(stored[key].tobytes() for key in stored.question_ids) == array.tobytes()
    done = export_array(open_store(summary.folder), tmp_path / "back", to)
    if to == "npy":
        assert done.path.read_bytes() == (tmp_path / "source.npy").read_bytes()
    else:
        tensor = torch.load(done.path, weights_only=True)
        assert tensor.numpy().dtype == dtype
        assert tensor.shape == array.shape
        assert tensor.numpy().tobytes() == array.tobytes()
        again = open_array_file(done.path, done.name_map)
        summary = import_features(again, tmp_path / "again", Claims(encoder="x"), shard_size=3)
        assert features_of(summary.folder) == features_of(tmp_path / "out/x")
    names = json.loads(done.name_map.read_text())
    assert names == json.loads((tmp_path / "source.json").read_text())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("container", ["hdf5", "arrow"])
@pytest.mark.parametrize("to", ["npy", "pth", "h5", "hf"])
def test_a_feature_set_comes_back(tmp_path, dtype, container, to):
    """Catches a row given to another question, a lost mask and a spec that changes on the way."""
    make_feature_set(tmp_path / "set", container, dtype, grid=(2, 2))
    store = open_store(tmp_path / "set")
    if to == "h5":
        export_group_file(store, tmp_path / "x.h5")
        file = open_group_file(tmp_path / "x.h5")
    elif to == "hf":
        export_hf_dataset(store, tmp_path / "x")
        file = open_hf_dataset(tmp_path / "x")
    else:
        done = export_array(store, tmp_path / "x", to)
        file = open_array_file(done.path, done.name_map)
    knows_spec = to in ("h5", "hf")
    claims = Claims() if knows_spec else Claims(encoder="fake")
    summary = import_features(file, tmp_path / "out", claims, shard_size=2, container=container)
    found, expected = features_of(summary.folder), features_of(tmp_path / "set")
    assert list(found) == list(expected)
    if knows_spec:
        assert found == expected
        assert open_store(summary.folder).spec == store.spec
        digests = pl.read_parquet(tmp_path / "set/index.parquet")["image_sha256"].drop_nulls()
        found_digests = pl.read_parquet(summary.folder / "index.parquet")["image_sha256"]
        assert set(found_digests) <= set(digests)
    else:
        assert {key: row[0] for key, row in found.items()} == {
            key: row[0] for key, row in expected.items()
        }
    if to == "hf":
        for roles in (("question",), ("choice_0",)):
            ours = open_features(summary.folder, roles=roles)
            theirs = open_features(tmp_path / "set", roles=roles)
            assert ours.question_ids == theirs.question_ids


def test_other_programs_read_what_is_exported(tmp_path):
    make_feature_set(tmp_path / "set", dtype="float16")
    ours = open_features(tmp_path / "set", roles=ROLES)
    store = open_store(tmp_path / "set")

    done = export_array(store, tmp_path / "npy", "npy")
    array = np.load(done.path, mmap_mode="r")
    rows = json.loads(done.name_map.read_text())
    assert done.path.name == "fake.npy"
    assert list(rows) == ours.question_ids
    for key, row in rows.items():
        assert isinstance(row, str)
        assert array[int(row)].tobytes() == ours[key].tobytes()

    assert export_hf_dataset(store, tmp_path / "hf") == 7
    dataset = datasets.load_from_disk(str(tmp_path / "hf"))
    assert json.loads(dataset.info.description) == json.loads(json.dumps(store.spec.to_json()))
    assert dataset.info.license == "CC0-1.0"
    one_role = {role: open_features(tmp_path / "set", roles=(role,)) for role in ROLES}
    index = pl.read_parquet(tmp_path / "set/index.parquet").drop_nulls("row")
    for row, place in zip(
        dataset.with_format("torch", dtype=torch.float16), index.iter_rows(named=True), strict=True
    ):
        names = ("question_id", "role", "image_sha256")
        assert [row[name] for name in names] == [place[name] for name in names]
        assert row["num_patches"] == place["num_patches"]
        assert row["features"].dtype == torch.float16
        expected = one_role[place["role"]][place["question_id"]]
        assert row["features"].numpy().tobytes() == expected.tobytes()


def test_a_large_dataset_is_several_files(tmp_path, monkeypatch):
    """Catches rows lost or doubled where a file or a part ends."""
    monkeypatch.setattr("mmcot_data.interchange.hf_dataset._FILE_NBYTES", 3 * P * D * 2)
    monkeypatch.setattr("mmcot_data.interchange.stored_rows._PART_NBYTES", 2 * P * D * 2)
    make_feature_set(tmp_path / "set")
    export_hf_dataset(open_store(tmp_path / "set"), tmp_path / "hf")
    assert len(list((tmp_path / "hf").glob("data-*-of-00003.arrow"))) == 3
    summary = import_features(open_hf_dataset(tmp_path / "hf"), tmp_path, Claims(), shard_size=4)
    assert features_of(summary.folder) == features_of(tmp_path / "set")


def test_the_order_of_the_index_is_kept(tmp_path):
    """Catches questions sorted by name or by row; and shared rows that are mixed up."""
    rows, digests = make_rows(4)
    index = [
        ("9", "question", 2),
        ("10", "question", 0),
        ("8", "question", 2),
        ("7", "question", 1),
    ]
    write_set(tmp_path / "set", make_spec(), [(rows, digests)], index)
    store, ids = open_store(tmp_path / "set"), ["9", "10", "8", "7"]
    full = export_array(store, tmp_path / "full", "npy")
    assert list(json.loads(full.name_map.read_text()).items()) == list(
        zip(ids, "0123", strict=True)
    )
    assert np.load(full.path).tobytes() == rows[[2, 0, 2, 1]].tobytes()
    shared = export_array(store, tmp_path / "shared", "npy", share_rows=True)
    names = json.loads(shared.name_map.read_text())
    assert list(names.items()) == list(zip(ids, "0102", strict=True))
    assert np.load(shared.path).tobytes() == rows[[2, 0, 1]].tobytes()
    export_group_file(store, tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert list(file) == ids
    file = open_group_file(tmp_path / "x.h5")
    assert (file.num_rows, [question.row for question in file.questions]) == (3, [0, 1, 0, 2])


def test_rows_that_are_shared_and_unused(tmp_path):
    array = make_rows(6)[0]
    rows = {"b": 1, "a": "0", "c": 1, "e": 4}
    summary = import_array(array, tmp_path, rows, shard_size=2)
    assert (summary.num_questions, summary.num_rows, summary.num_unused) == (4, 6, 3)
    stored = open_features(summary.folder)
    for key, row in rows.items():
        assert stored[key].tobytes() == array[int(row)].tobytes()
    store = open_store(summary.folder)
    shared = export_array(store, tmp_path / "shared", "npy", share_rows=True)
    assert np.load(shared.path).tobytes() == array[[0, 1, 4]].tobytes()
    names = json.loads(shared.name_map.read_text())
    assert names == {"a": "0", "b": "1", "c": "1", "e": "2"}
    full = export_array(store, tmp_path / "full", "npy")
    assert np.load(full.path).tobytes() == array[[0, 1, 1, 4]].tobytes()


@pytest.mark.parametrize(
    "array", [np.asfortranarray(make_rows(5)[0]), make_rows(5)[0].astype(">f2")]
)
def test_other_orders_of_bytes(tmp_path, array):
    """Catches values that are taken for others where a file is not laid out as ours."""
    stored = open_features(import_array(array, tmp_path, shard_size=2).folder)
    np.testing.assert_array_equal(stored.gather(stored.question_ids)[0], array)


def test_what_an_import_says_of_itself(tmp_path):
    summary = import_array(np.ones((3, 4, 2), np.float32), tmp_path)
    source = tmp_path / "source.npy"
    imported = {"step": "imported", "file": "source.npy", "sha256": file_sha256(source)}
    spec = summary.spec.to_json()
    assert spec == make_spec("float32", 4, 2).to_json() | {
        "encoder": "x",
        "model_id": "unknown",
        "weights_sha256": None,
        "layer": "unknown",
        "preprocessing": [imported | {"layout": "npy (rows, patches, features)"}],
        "precision": "unknown",
        "backend": "unknown",
        "versions": {},
        "data_licence": "unknown",
    }
    index = pl.read_parquet(summary.folder / "index.parquet")
    assert index.schema == INDEX_SCHEMA
    assert index["image_sha256"].null_count() == 3


def test_a_data_set_gives_roles_digests_and_sizes(tmp_path):
    """Catches pictures given to other questions than those whose features they have."""
    (tmp_path / "data").mkdir()
    data = make_data(tmp_path / "data")
    problems = json.loads((data / "problems.json").read_text())
    problems["3"]["image"] = None
    (data / "problems.json").write_text(json.dumps(problems))
    choice = picture_path(data, 3).rename(picture_path(data, 3, "choice_0.png"))
    picture_path(data, 5).unlink()
    rows = {str(number): 12 - number for number in range(13)}
    summary = import_array(np.ones((13, 2, 2), np.float16), tmp_path, rows, data=data)
    assert (summary.num_unknown, summary.num_missing) == (1, 1)
    assert summary.spec.data_licence == "CC BY-NC-SA 4.0"
    assert (tmp_path / "out/questions.parquet").is_file()
    index = pl.read_parquet(summary.folder / "index.parquet")
    by_id = {row["question_id"]: row for row in index.iter_rows(named=True)}
    assert by_id["3"]["role"] == "choice_0"
    assert by_id["3"]["image_sha256"] == file_sha256(choice)
    assert (by_id["1"]["width"], by_id["1"]["height"]) == (48, 32)
    assert data / by_id["1"]["file"] == picture_path(data, 1)
    assert [by_id[key]["image_sha256"] for key in ("5", "12")] == [None, None]
    with h5py.File(summary.folder / "00000-of-00001.h5") as shard:
        digests = {key: shard["image_sha256"][rows[key]].tobytes().hex() for key in rows}
    assert digests["1"] == file_sha256(picture_path(data, 1))
    assert digests["5"] == digests["12"] == "00" * 32


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
def test_an_interrupted_import_continues(tmp_path, container):
    """Catches shards of two imports in one folder, and work that is done twice."""
    array = make_rows(7)[0]

    def stop(done, total):
        if done >= 4:
            raise KeyboardInterrupt

    options = {"shard_size": 2, "container": container}
    whole = import_array(array, tmp_path / "whole", **options).folder
    with pytest.raises(KeyboardInterrupt):
        import_array(array, tmp_path / "cut", on_progress=stop, **options)
    cut = tmp_path / "cut/out/x"
    assert not (cut / "manifest.json").exists()
    first = {path: path.stat().st_mtime_ns for path in cut.glob("*-of-*")}
    assert len(first) == 4
    seen = []
    import_array(array, tmp_path / "cut", on_progress=lambda *done: seen.append(done), **options)
    assert seen[0] == (4, 7)
    assert {path: path.stat().st_mtime_ns for path in first} == first
    names = sorted(path.name for path in whole.iterdir() if path.name != ".lock")
    assert names == sorted(path.name for path in cut.iterdir() if path.name != ".lock")
    for name in names:
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_pooled_features_keep_their_shape(tmp_path):
    """resnet.npy is (rows, features), and so is ours; (rows, 1, features) stay what they are."""
    features, digests = make_rows(2, shape=(1, D))
    write_set(
        tmp_path / "set",
        make_spec(num_patches=1),
        [(features, digests)],
        [("a", "question", 0), ("b", "question", 1)],
    )
    done = export_array(open_store(tmp_path / "set"), tmp_path / "npy", "npy")
    assert np.load(done.path).shape == done.shape == (2, D)
    summary = import_array(features, tmp_path / "three")
    done = export_array(open_store(summary.folder), tmp_path / "back", "npy")
    assert np.load(done.path).shape == (2, 1, D)


def test_the_commands(tmp_path, capsys):
    make_feature_set(tmp_path / "fake")
    out = tmp_path / "files"
    for to, place in (("npy", out), ("pth", out), ("h5-per-image", out / "fake.h5")):
        code = main(["export", str(tmp_path / "fake"), "--to", to, "--out", str(place)])
        assert code == 0, capsys.readouterr().err
    main(["export", str(tmp_path / "fake"), "--to", "hf-dataset", "--out", str(out / "hf")])
    expected = features_of(tmp_path / "fake")
    for name in ("fake.npy", "fake.pth", "fake.h5", "hf"):
        flags = ["--encoder", "fake", "--grid", "2,2"] if name[-4:] in (".npy", ".pth") else []
        root = tmp_path / f"from-{name}"
        assert main(["import", str(out / name), "--out", str(root), *flags]) == 0
        assert features_of(root / "fake").keys() == expected.keys()
        assert open_features(root / "fake").spec.grid == ((2, 2) if flags else None)
    text = capsys.readouterr()
    assert "6 questions, float16 of shape (6, 5, 7)" in text.out
    assert "6 questions, 5 pictures" in text.out
    assert "mmcot-data questions DATA" in text.out
    main(
        [
            "export",
            str(tmp_path / "fake"),
            "--to",
            "npy",
            "--out",
            str(tmp_path / "r"),
            "--roles",
            "choice_0",
        ]
    )
    assert "2 questions" in capsys.readouterr().out
    assert math.prod(np.load(tmp_path / "r/fake.npy").shape) == 2 * P * D
