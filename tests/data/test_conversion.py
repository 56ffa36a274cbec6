"""HDF5 to Arrow and back: the bytes that an extraction in that container would have given."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from fake_encoder import FakeEncoder, make_data, picture_path
from feature_files import features_of, import_array
from feature_sets import make_feature_set, make_rows
from local_storage_servers import serve_folder
from PIL import Image

from mmcot_data.cli import main
from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.errors import ShardError
from mmcot_data.extraction import ExtractionConfig, extract_features
from mmcot_data.files import file_sha256
from mmcot_data.interchange import convert_feature_set
from mmcot_data.sample import draw_sample
from mmcot_data.shards.manifest import MANIFEST, read_manifest, write_manifest
from mmcot_data.shards.store import open_store

OTHER = {"hdf5": "arrow", "arrow": "hdf5"}
CONTAINERS = tuple(OTHER)


def extract(data, out, container, name="fake", encoder=None, **changes):
    config = ExtractionConfig(
        data=data,
        out=out,
        encoder=EncoderConfig(name=name),
        format=container,
        max_failures="100%",
        **{"shard_size": 4, "batch_size": 2} | changes,
    )
    return extract_features(config, encoder=encoder)


def files_of(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != ".lock"}


def without_made_by(files):
    """What computed a shard stands in its commit record only."""
    records = {name: json.loads(files[name]) for name in files if "-of-" in name and "json" in name}
    for record in records.values():
        del record["made_by"], record["self_sha256"]
    return files | records


def convert(source, folder, container):
    return convert_feature_set(open_store(source), folder, container)


@pytest.fixture
def extracted(tmp_path):
    """A feature set in each container; pictures failed in every way, in one shard all of them."""
    (tmp_path / "data").mkdir()
    data = make_data(tmp_path / "data", num_questions=14)
    for number in (1, 4, 5, 6, 7, 8, 9, 13):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        path = picture_path(data, number)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:-900])
    picture_path(data, 0).unlink()
    picture_path(data, 2).write_bytes(b"no picture")
    shutil.copy(picture_path(data, 3), picture_path(data, 3, "choice_0.png"))
    shutil.copy(picture_path(data, 1), picture_path(data, 3, "choice_1.png"))
    shutil.copy(picture_path(data, 9), picture_path(data, 8, "image_2.png"))
    for container in CONTAINERS:
        extract(data, tmp_path / container, container, encoder=FakeEncoder())
    return tmp_path


@pytest.mark.parametrize("container", CONTAINERS)
def test_conversion_gives_the_files_of_an_extraction(extracted, container):
    """Catches lost failures, pixel digests and shards without rows: commits, index and manifest."""
    there, other = extracted / container / "fake", extracted / OTHER[container] / "fake"
    assert any(commit.count(b'"rows": 0') for commit in files_of(there).values())
    convert(there, extracted / "new/fake", OTHER[container])
    assert files_of(extracted / "new/fake") == files_of(other)
    convert(extracted / "new/fake", extracted / "back", container)
    assert files_of(extracted / "back") == files_of(there)


@pytest.mark.parametrize("container", CONTAINERS)
def test_commit_records_are_not_needed(extracted, container):
    there, other = extracted / container / "fake", extracted / OTHER[container] / "fake"
    for path in there.glob("*-of-*.json"):
        path.unlink()
    convert(there, extracted / "new", OTHER[container])
    converted = files_of(extracted / "new")
    assert without_made_by(converted) == without_made_by(files_of(other))


def test_an_extraction_finds_its_features_in_a_converted_set(extracted):
    convert(extracted / "hdf5/fake", extracted / "new/fake", "arrow")
    before = files_of(extracted / "new/fake")
    summary = extract(extracted / "data", extracted / "new", "arrow", encoder=FakeEncoder())
    assert summary.num_extracted == 0
    assert files_of(extracted / "new/fake") == before


def test_the_drawn_sample_in_both_containers(tmp_path):
    draw_sample(tmp_path / "sample", num_questions=100, num_workers=1)
    options = {"name": "tiny", "shard_size": 16, "batch_size": 8}
    for container in CONTAINERS:
        extract(tmp_path / "sample", tmp_path / container, container, **options)
    convert(tmp_path / "hdf5/tiny", tmp_path / "new", "arrow")
    assert files_of(tmp_path / "new") == files_of(tmp_path / "arrow/tiny")
    convert(tmp_path / "new", tmp_path / "back", "hdf5")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "hdf5/tiny")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_imported_set_is_converted(tmp_path, dtype):
    """Its rows may be of no question, and nothing is known of its pictures."""
    rows = {"a": 4, "b": 0, "c": 4}
    made = {
        container: import_array(
            make_rows(7, dtype)[0], tmp_path / container, rows, container=container, shard_size=3
        ).folder
        for container in CONTAINERS
    }
    convert(made["arrow"], tmp_path / "new", "hdf5")
    assert files_of(tmp_path / "new") == files_of(made["hdf5"])


@pytest.mark.parametrize("container", CONTAINERS)
def test_padding_and_floats_stay(tmp_path, container):
    make_feature_set(tmp_path / "set", container, "float32")
    convert(tmp_path / "set", tmp_path / "new", OTHER[container])
    assert features_of(tmp_path / "new") == features_of(tmp_path / "set")
    convert(tmp_path / "new", tmp_path / "back", container)
    assert files_of(tmp_path / "back") == files_of(tmp_path / "set")


def test_an_interrupted_conversion_continues(extracted):
    store = open_store(extracted / "hdf5/fake")

    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_feature_set(store, extracted / "new", "arrow", stop)
    assert len(list((extracted / "new").glob("*.arrow"))) == 1
    convert_feature_set(store, extracted / "new", "arrow")
    assert files_of(extracted / "new") == files_of(extracted / "arrow/fake")


def test_a_conversion_from_a_url(extracted, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MMCOT_CACHE", str(extracted / "cache"))
    (extracted / "served").mkdir()
    (extracted / "hdf5/fake").rename(extracted / "served/fake")
    with serve_folder(extracted / "served") as server:
        command = ["export", f"{server.url}/fake", "--to", "arrow", "--out"]
        assert main([*command, str(extracted / "new")]) == 0, capsys.readouterr().err
    expected = files_of(extracted / "arrow/fake")
    assert without_made_by(files_of(extracted / "new")) == without_made_by(expected)
    assert "4 rows in 3 arrow shards" in capsys.readouterr().out


def test_a_damaged_row_is_not_converted(tmp_path):
    make_feature_set(tmp_path / "set")
    record = read_manifest(tmp_path / "set").shards[1]
    content = bytearray((tmp_path / "set" / record.file).read_bytes())
    content[record.data_offset + record.data_nbytes - 1] ^= 1
    (tmp_path / "set" / record.file).write_bytes(content)
    with pytest.raises(ShardError, match="checksum of row 1 is wrong"):
        convert(tmp_path / "set", tmp_path / "new", "arrow")
    assert not (tmp_path / "new" / MANIFEST).exists()


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_set_is_not_converted_into_itself(tmp_path, container):
    """Catches the advice to delete the only copy."""
    make_feature_set(tmp_path / "set", "hdf5")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    with pytest.raises(ShardError, match="is the feature set itself"):
        convert(tmp_path / "set", tmp_path / "link", container)


def test_an_index_that_hides_failures_is_refused(extracted):
    """Catches failed pictures that vanish, so that a later extraction shifts rows."""
    folder = extracted / "hdf5/fake"
    for path in folder.glob("*-of-*.json"):
        path.unlink()
    index = pl.read_parquet(folder / "index.parquet").filter(pl.col("status") == "ok")
    index.write_parquet(folder / "index.parquet")
    changes = {
        "index_sha256": file_sha256(folder / "index.parquet"),
        "index_nbytes": (folder / "index.parquet").stat().st_size,
    }
    write_manifest(folder, replace(read_manifest(folder), **changes))
    with pytest.raises(ShardError, match="contradict each other"):
        convert(folder, extracted / "new", "arrow")
