"""A feature set at a URL reads like one in a folder."""

import multiprocessing
import pickle

import numpy as np
import pytest
from feature_sets import make_feature_set
from local_storage_servers import serve_folder

from mmcot_data.errors import ShardError
from mmcot_data.shards import open_features

IDS = ["q5", "nobody", "q0", "q3", "q2"]


@pytest.fixture
def served(tmp_path, monkeypatch):
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", str(tmp_path / "absent")),
        ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent")),
        ("NO_PROXY", "127.0.0.1"),
        ("MMCOT_CACHE", str(tmp_path / "cache")),
    ):
        monkeypatch.setenv(name, value)
    make_feature_set(tmp_path / "served" / "bucket" / "fake")
    with serve_folder(tmp_path / "served") as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


def open_remote(server, store="http"):
    options = {"http": {}, "s3": {"endpoint_url": server.url}, "gs": {"token": "anon"}}[store]
    url = f"{server.url}/bucket/fake" if store == "http" else f"{store}://bucket/fake"
    return open_features(url, storage_options=options)


def paths(server):
    return [request.path.rpartition("/")[2].rpartition("%2F")[2] for request in server.gets()]


@pytest.mark.parametrize("store", ["http", "s3", "gs"])
def test_the_same_features_as_in_the_folder(served, store):
    local = open_features(served.folder / "bucket" / "fake")
    features = open_remote(served, store)
    assert (features.spec, features.question_ids) == (local.spec, local.question_ids)
    for found, expected in zip(features.gather(IDS), local.gather(IDS), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert features["q5"].tobytes() == local["q5"].tobytes()


def test_a_shard_is_fetched_when_its_first_row_is_read_and_never_again(served):
    features = open_remote(served)
    assert sorted(set(paths(served))) == ["index.parquet", "manifest.json"]
    features.gather(["q0", "q3"])
    assert "00000-of-00002.h5" in paths(served)
    assert "00001-of-00002.h5" not in paths(served)
    features.gather(IDS)
    served.requests.clear()
    open_remote(served).gather(IDS)
    assert set(paths(served)) == {"manifest.json"}


def test_changed_files_at_the_url_are_refused(served):
    folder = served.folder / "bucket" / "fake"
    for name in ("00000-of-00002.h5", "index.parquet", "manifest.json"):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(ShardError, match=r"is not the file|is damaged"):
            open_remote(served).gather(["q0"])


def test_a_damaged_copy_in_the_cache_is_found(served, tmp_path):
    open_remote(served).gather(IDS)
    (shard,) = (
        path
        for path in (tmp_path / "cache").rglob("*.h5")
        if path.read_bytes() == (served.folder / "bucket/fake/00000-of-00002.h5").read_bytes()
    )
    content = bytearray(shard.read_bytes())
    content[4096] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ShardError, match=r"row 0 is wrong.*delete .*cache.* to download"):
        open_remote(served).gather(["q0"])


def test_an_unfinished_or_absent_set_is_refused(served):
    (served.folder / "bucket" / "fake" / "manifest.json").unlink()
    with pytest.raises(ShardError, match=r"manifest\.json.*no such file"):
        open_remote(served)


def _gather(features, queue):
    queue.put(features.gather(IDS)[0].tobytes())


def test_reading_in_another_process(served):
    features = open_remote(served)
    features.gather(["q0"])
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_gather, args=(features, queue))
    process.start()
    found = queue.get(timeout=60)
    process.join()
    assert found == features.gather(IDS)[0].tobytes()
    assert pickle.loads(pickle.dumps(features)).gather(IDS)[0].tobytes() == found
