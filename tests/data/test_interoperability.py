"""Other readers on our files: what each of them can open, and what it cannot."""

import json
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import h5py
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from feature_sets import D, P, make_feature_set

from mmcot_data.shards import open_features
from mmcot_data.shards.manifest import read_manifest

SHARD = "00000-of-00002"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(params=["float16", "float32"])
def arrow(request, tmp_path):
    return tmp_path, make_feature_set(tmp_path, "arrow", request.param)[:4]


def read_table(folder):
    return pa.ipc.open_file(pa.memory_map(str(folder / f"{SHARD}.arrow"))).read_all()


@pytest.mark.parametrize("container", ["hdf5", "arrow"])
def test_the_reader_in_the_format_description(tmp_path, container):
    """Catches a description that is not the format: its code reads every row."""
    features = make_feature_set(tmp_path, container)
    text = (DOCS / "shard-format.md").read_text(encoding="utf-8")
    code = "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    namespace = {}
    exec(code, namespace)
    shards = namespace["Shards"](tmp_path)
    index = pl.read_parquet(tmp_path / "index.parquet").filter(pl.col("row").is_not_null())
    places = index.select("question_id", "role", "shard", "row").rows()
    expected = {"q0": 0, "q1": 1, "q2": 1, "q3": 3, "q4": 4, "q5": 5}
    for question_id, role, file, number in places:
        row = 2 if (question_id, role) == ("q5", "choice_0") else expected[question_id]
        np.testing.assert_array_equal(shards.row(file, number), features[row])


def test_numpy_maps_the_features(tmp_path):
    for container in ("hdf5", "arrow"):
        features = make_feature_set(tmp_path / container, container)
        record = read_manifest(tmp_path / container).shards[0]
        path = tmp_path / container / record.file
        rows = np.memmap(path, np.float16, "r", record.data_offset, (record.rows, P, D))
        np.testing.assert_array_equal(rows, features[:4])


def test_h5py(tmp_path):
    features = make_feature_set(tmp_path)
    with h5py.File(tmp_path / f"{SHARD}.h5") as file:
        np.testing.assert_array_equal(file["features"][1:3], features[1:3])
        assert file["features"].attrs["dim_labels"].tolist() == ["image", "patch", "feature"]
        assert json.loads(file.attrs["spec"])["encoder"] == "fake"


def test_pyarrow_without_a_copy(arrow):
    folder, features = arrow
    source = pa.memory_map(str(folder / f"{SHARD}.arrow"))
    start = source.read_buffer(source.size()).address
    source.seek(0)
    column = pa.ipc.open_file(source).get_batch(0)["features"]
    values = column.flatten().flatten().to_numpy(zero_copy_only=True)
    np.testing.assert_array_equal(values.reshape(-1, P, D), features)
    assert values.ctypes.data == start + read_manifest(folder).shards[0].data_offset
    tensor = pa.fixed_shape_tensor(column.type.value_type.value_type, (P, D))
    storage = pa.FixedSizeListArray.from_arrays(column.flatten().flatten(), P * D)
    found = pa.ExtensionArray.from_storage(tensor, storage).to_numpy_ndarray()
    np.testing.assert_array_equal(found, features)


def test_polars(arrow):
    folder, features = arrow
    table = pl.read_ipc(folder / f"{SHARD}.arrow")
    np.testing.assert_array_equal(table["features"].to_numpy(), features)
    assert table["num_patches"].to_list() == [P, P, P, P - 2]


def test_hugging_face_datasets(arrow):
    """A table in memory or mapped is taken as it is; ``from_file`` wants another kind of file."""
    datasets = pytest.importorskip("datasets")
    folder, features = arrow
    data = datasets.Dataset(datasets.table.InMemoryTable(read_table(folder)))
    data = data.select_columns("features").with_format("numpy", dtype=features.dtype)
    found = data[:]["features"]
    np.testing.assert_array_equal(np.asarray(found), features)
    with pytest.raises(pa.ArrowInvalid):
        datasets.Dataset.from_file(str(folder / f"{SHARD}.arrow"))


def test_duckdb_reads_all_but_half_floats(arrow):
    folder, features = arrow
    shard = read_table(folder)
    connection = duckdb.connect()
    if features.dtype == np.float32:
        found = connection.sql("SELECT features FROM shard").fetchnumpy()["features"]
        np.testing.assert_array_equal(np.stack([np.stack(row) for row in found]), features)
    else:
        with pytest.raises(duckdb.Error):
            connection.sql("SELECT features FROM shard").fetchall()
        shard = shard.drop_columns("features")
    rows = connection.sql("SELECT num_patches FROM shard").fetchall()
    assert [count for (count,) in rows] == [P, P, P, P - 2]
    index = connection.read_parquet(str(folder / "index.parquet"))
    rows = index.filter("status = 'ok' AND role = 'question'").select("question_id").fetchall()
    assert [question_id for (question_id,) in rows] == ["q0", "q1", "q2", "q3", "q5"]


def test_torch_takes_a_row_without_a_copy(tmp_path):
    torch = pytest.importorskip("torch")
    features = make_feature_set(tmp_path)
    fs = open_features(tmp_path)
    row = torch.from_numpy(fs.gather(["q1"])[0])
    assert row.dtype == torch.float16
    np.testing.assert_array_equal(row[0].numpy(), features[1])


@pytest.mark.slow
def test_ray_data(tmp_path):
    """In a process of its own: Ray starts a cluster."""
    pytest.importorskip("ray")
    features = make_feature_set(tmp_path, "arrow")
    code = f"""
import numpy as np, pyarrow as pa, ray
table = pa.ipc.open_file(pa.memory_map({str(tmp_path / f"{SHARD}.arrow")!r})).read_all()
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
rows = ray.data.from_arrow(table).take_all()
print(np.asarray([np.stack(row["features"]) for row in rows], np.float64).sum())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = features[:4].astype(np.float64).sum()
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(expected, abs=1e-9)
