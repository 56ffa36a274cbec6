"""What an import does not believe, and what an export does not write."""

import io
import json
import os
import pickle
import resource
import subprocess
import sys
from contextlib import contextmanager

import datasets
import h5py
import numpy as np
import pytest
import torch
from fake_encoder import make_data, picture_path
from feature_files import import_array, write_name_map
from feature_sets import make_feature_set, make_rows

from mmcot_data.cli import main
from mmcot_data.errors import DataError, DiskFullError, ShardError, SpecMismatchError
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
from mmcot_data.shards.store import open_store

EXPORTS = {
    "npy": lambda store, out: export_array(store, out, "npy").path,
    "pth": lambda store, out: export_array(store, out, "pth").path,
    "h5": lambda store, out: export_group_file(store, out / "x.h5"),
    "hf": lambda store, out: export_hf_dataset(store, out / "hf"),
}


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.command = f"touch {path}"

    def __reduce__(self):
        return os.system, (self.command,)


def open_array(path, rows=None):
    rows = {"a": "0", "b": "1"} if rows is None else rows
    return open_array_file(path, write_name_map(path.with_suffix(".json"), rows))


def write_bytes(path, content):
    path.write_bytes(content)
    return path


def save(path, value, **options):
    torch.save(value, path, **options)
    return path


def save_npy(path, value):
    np.save(path, value)
    return path


@pytest.mark.parametrize("kind", ["npy objects", "npy that is a pickle", "pth", "old pth"])
def test_no_object_is_unpickled(tmp_path, kind):
    """Catches a loader that runs what a stranger put into a file of features."""
    done = tmp_path / "it-ran"
    payload = Payload(done)
    if kind == "npy objects":
        path = save_npy(tmp_path / "x.npy", np.array([payload, payload], dtype=object))
    elif kind == "npy that is a pickle":
        path = write_bytes(tmp_path / "x.npy", pickle.dumps(payload))
    else:
        path = tmp_path / "x.pth"
        save(path, [payload], _use_new_zipfile_serialization=kind == "pth")
    with pytest.raises(ShardError, match="unpickled"):
        open_array(path)
    assert not done.exists()
    pickle.loads(pickle.dumps(payload))
    assert done.exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: save_npy(p / "x.npy", np.ones((2, 3))), "float64, expected float16 or float32"),
        (lambda p: save_npy(p / "x.npy", np.ones((2, 3, 1, 1), "f4")), r"\(2, 3, 1, 1\), expected"),
        (lambda p: save_npy(p / "x.npy", np.ones((2, 0), "f4")), r"shape \(2, 0\)"),
        (lambda p: save_npy(p / "x.npy", np.array([(1, 2)] * 2, "f4,f4")), "expected float16"),
        (lambda p: write_bytes(p / "x.npy", b""), "can't be read as a .npy"),
        (lambda p: write_bytes(p / "x.npy", b"PK\x03\x04"), "can't be read as a .npy"),
        (lambda p: p / "absent.npy", "does not exist"),
        (lambda p: save(p / "x.pth", {"a": torch.ones(2, 3)}), "holds a dict, expected one tensor"),
        (lambda p: save(p / "x.pth", torch.ones(2, 3, dtype=torch.bfloat16)), "holds bfloat16"),
        (
            lambda p: save(p / "x.pth", torch.ones(2, 3), _use_new_zipfile_serialization=False),
            "torch.save",
        ),
        (lambda p: write_bytes(p / "x.pth", b"no tensor"), "can't be read"),
        (lambda p: write_bytes(p / "x.pth", b""), "can't be read"),
    ],
)
def test_other_arrays_are_refused(tmp_path, make, message):
    with pytest.raises(ShardError, match=message):
        open_array(make(tmp_path))


def test_a_cut_array_is_refused(tmp_path):
    content = io.BytesIO()
    np.save(content, np.ones((20, 3, 4), np.float16))
    with pytest.raises(ShardError, match="fetch it again"):
        open_array(write_bytes(tmp_path / "x.npy", content.getvalue()[:-1]))
    torch.save(torch.ones(20, 3, 4), tmp_path / "x.pth")
    content = (tmp_path / "x.pth").read_bytes()
    with pytest.raises(ShardError, match="can't be read"):
        open_array(write_bytes(tmp_path / "x.pth", content[:500]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": "0", "b": "1", "a": "1"}', "1 ids occur more than once, the first is 'a'"),
        ('{"a": "0", "b": "2"}', r"from 0 to 1 .*\n  question 'b' has row '2'"),
        ('{"a": -1}', "question 'a' has row -1"),
        ('{"a": "-1"}', "question 'a' has row '-1'"),
        ('{"a": "one"}', "'one'"),
        ('{"a": 1.0}', "row 1.0"),
        ('{"a": true}', "row True"),
        ('{"a": null}', "row None"),
        ('{"a": "٣"}', "question 'a'"),
        (f'{{"a": "{"9" * 5000}"}}', "question 'a'"),
        (f'{{"a": {"9" * 5000}}}', "no JSON object by question id"),
        (json.dumps({str(i): "x" for i in range(14)}), "and 4 more"),
        ('["a", "b"]', "expected a JSON object"),
        ("{}", "expected a JSON object"),
        ('{"a"', "no JSON object by question id"),
    ],
)
def test_bad_name_maps_are_refused(tmp_path, text, message):
    path = save_npy(tmp_path / "x.npy", np.ones((2, 3), np.float16))
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(DataError, match=message):
        open_array_file(path, tmp_path / "map.json")


def test_an_absent_name_map_is_explained(tmp_path, capsys):
    path = save_npy(tmp_path / "x.npy", np.ones((2, 3), np.float16))
    assert main(["import", str(path), "--out", str(tmp_path), "--encoder", "x"]) == 1
    assert "name_map.json does not exist" in capsys.readouterr().err


def test_values_that_are_not_finite_are_refused(tmp_path):
    array = make_rows(5)[0]
    array[3, 1, 2] = np.inf
    with pytest.raises(ShardError, match=r"source.npy: row 3 \(question '3'\) holds values"):
        import_array(array, tmp_path)
    assert not (tmp_path / "out/x/manifest.json").exists()


def test_another_file_into_the_same_folder_is_refused(tmp_path):
    import_array(make_rows(5, seed=0)[0], tmp_path)
    with pytest.raises(SpecMismatchError, match=r"preprocessing\.0\.sha256"):
        import_array(make_rows(5, seed=1)[0], tmp_path)


def test_other_pictures_into_the_same_folder_are_refused(tmp_path):
    """Catches shards of one folder that know different digests of the same pictures."""
    (tmp_path / "data").mkdir()
    data = make_data(tmp_path / "data")
    import_array(make_rows(5)[0], tmp_path, shard_size=2, data=data)
    picture_path(data, 1).write_bytes(picture_path(data, 2).read_bytes())
    with pytest.raises(ShardError, match="request_sha256"):
        import_array(make_rows(5)[0], tmp_path, shard_size=2, data=data)


def test_claims_that_contradict_the_file_are_refused(tmp_path):
    make_feature_set(tmp_path / "set")
    export_group_file(open_store(tmp_path / "set"), tmp_path / "x.h5")
    file = open_group_file(tmp_path / "x.h5")
    with pytest.raises(SpecMismatchError, match="encoder: expected 'other', found 'fake'"):
        import_features(file, tmp_path / "out", Claims(encoder="other"))
    with h5py.File(tmp_path / "x.h5", "r+") as content:
        del content.attrs["spec"]
    with pytest.raises(ShardError, match="with --encoder"):
        import_features(open_group_file(tmp_path / "x.h5"), tmp_path / "out", Claims())


def test_a_row_of_two_pictures_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    data = make_data(tmp_path / "data")
    with pytest.raises(DataError, match=r"row 0 is of the picture .*, and that of question '1'"):
        import_array(np.ones((1, 2), np.float16), tmp_path, {"0": 0, "1": 0}, data=data)


def test_other_datasets_are_refused(tmp_path):
    with pytest.raises(ShardError, match="can't be read as a dataset"):
        open_hf_dataset(tmp_path)
    other = datasets.Dataset.from_dict({"question_id": ["a"], "role": ["x"], "features": [[[1.0]]]})
    other.save_to_disk(str(tmp_path / "other"))
    with pytest.raises(ShardError, match="lists of one fixed size"):
        open_hf_dataset(tmp_path / "other")
    rows = {"question_id": [1], "role": ["x"], "features": [[[1.0]]]}
    columns = {"question_id": datasets.Value("int64"), "role": datasets.Value("string")}
    columns["features"] = datasets.List(datasets.List(datasets.Value("float16"), 1), 1)
    numbered = datasets.Dataset.from_dict(rows, features=datasets.Features(columns))
    numbered.save_to_disk(str(tmp_path / "numbered"))
    with pytest.raises(ShardError, match="expected strings in question_id"):
        open_hf_dataset(tmp_path / "numbered")
    other.remove_columns("role").save_to_disk(str(tmp_path / "less"))
    with pytest.raises(ShardError, match="no column role"):
        open_hf_dataset(tmp_path / "less")


@pytest.mark.parametrize("to", EXPORTS)
def test_a_damaged_row_is_never_exported(tmp_path, to):
    """Catches an export that spreads a flipped bit; and one that leaves half a file."""
    make_feature_set(tmp_path / "set")
    store = open_store(tmp_path / "set")
    record = store.manifest.shards[1]
    path = tmp_path / "set" / record.file
    content = bytearray(path.read_bytes())
    content[record.data_offset + record.data_nbytes - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match="checksum of row 1 is wrong"):
        EXPORTS[to](store, tmp_path / "out")
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert left == []


@pytest.mark.parametrize("to", EXPORTS)
def test_nothing_is_overwritten(tmp_path, to):
    make_feature_set(tmp_path / "set")
    store = open_store(tmp_path / "set")
    EXPORTS[to](store, tmp_path / "out")
    with pytest.raises(ShardError, match="exists already"):
        EXPORTS[to](store, tmp_path / "out")


def test_another_name_map_is_not_overwritten(tmp_path):
    make_feature_set(tmp_path / "set", encoder="a")
    make_feature_set(tmp_path / "same", encoder="b")
    export_array(open_store(tmp_path / "set"), tmp_path / "out", "npy")
    names = json.loads((tmp_path / "out/name_map.json").read_text())
    write_name_map(tmp_path / "out/name_map.json", {key: int(row) for key, row in names.items()})
    export_array(open_store(tmp_path / "same"), tmp_path / "out", "npy")
    with pytest.raises(DataError, match=r"name_map\.json is of other questions"):
        export_array(open_store(tmp_path / "set"), tmp_path / "out", "pth", roles=("choice_0",))
    with pytest.raises(ShardError, match="no features for the image roles question_2"):
        export_array(open_store(tmp_path / "set"), tmp_path / "out", "pth", roles=("question_2",))


@contextmanager
def largest_file(nbytes):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("to", EXPORTS)
def test_a_full_disk_is_an_error(tmp_path, to):
    """Catches HDF5 ending the process, and half a file that stays."""
    summary = import_array(make_rows(64, shape=(16, 64))[0], tmp_path)
    store = open_store(summary.folder)
    with largest_file(100_000), pytest.raises(DiskFullError, match="make room"):
        EXPORTS[to](store, tmp_path / "full")
    left = [path.name for path in (tmp_path / "full").iterdir()]
    assert left == []
    EXPORTS[to](store, tmp_path / "full")


def test_datasets_may_be_absent(tmp_path, monkeypatch):
    make_feature_set(tmp_path / "set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ShardError, match=r"pip install 'mmcot\[datasets\]'"):
        export_hf_dataset(open_store(tmp_path / "set"), tmp_path / "hf")


@pytest.mark.parametrize(
    "arguments",
    [
        "export set --to arrow --out x --share-rows",
        "export set --to hf-dataset --out x --roles question",
        "export set --to npy --out x.npy",
        "import x.npy --question-map x.json --out x",
        "import x.h5 --name-map x.json --out x",
        "import x.txt --out x",
        "import x.npy --grid 12 --out x",
        "import x.npy --shard-size 0 --out x",
    ],
)
def test_bad_usage(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    assert end.value.code == 2


def test_what_a_killed_export_left_is_removed(tmp_path):
    """Catches temporary files of gigabytes that stay for ever, and one that is still written."""
    make_feature_set(tmp_path / "set")
    out = tmp_path / "out"
    out.mkdir()
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    for name in (f".fake.npy.{dead}.tmp", f".fake.npy.{os.getppid()}.tmp", ".fake.npy.x.tmp"):
        (out / name).write_bytes(b"half")
    assert exit_code(["export", tmp_path / "set", "--to", "npy", "--out", out]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        f".fake.npy.{os.getppid()}.tmp",
        ".fake.npy.x.tmp",
        "fake.npy",
        "name_map.json",
    ]


def test_roles_that_are_none_are_refused(tmp_path, capsys):
    assert exit_code(["export", tmp_path, "--to", "npy", "--roles", "picture", "--out", "x"]) == 2
    assert "list of image roles" in capsys.readouterr().err


def exit_code(command):
    try:
        return main([str(word) for word in command])
    except SystemExit as end:
        return end.code


def test_places_that_are_mixed_up_are_refused(tmp_path, capsys):
    """Catches a feature set that is written over an artifact root, and a folder called s3:."""
    root = tmp_path / "shards"
    make_feature_set(root / "fake")
    before = sorted(root.rglob("*"))
    for command, code, message in (
        (["export", root / "fake", "--to", "arrow", "--out", root], 1, "is an artifact root"),
        (["export", root, "--to", "npy", "--out", tmp_path / "x"], 1, "is an artifact root"),
        (["export", root / "fake", "--to", "npy", "--out", "s3://b/x"], 2, "is a URL"),
        (["import", root / "fake", "--out", root], 2, "is a feature set already"),
    ):
        assert exit_code(command) == code
        assert message in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before
