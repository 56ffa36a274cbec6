"""The flow with a bucket as artifact root: a real S3 server (moto), a real Prefect server."""

import hashlib
import itertools
import json

import pytest
from object_storage import serve_objects
from prefect.artifacts import Artifact

from mmcot_data.shards import open_features
from pipelines.extract_features import extract_features
from pipelines.prepare_data import prepare_data

# Prefect's synchronous client does not close its connections.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.server,
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    ),
]

NAMES = itertools.count()
WORKERS = {"threads": {}, "dask": {"runner": "dask", "num_workers": 2}}


@pytest.fixture(scope="module")
def server():
    with serve_objects() as server:
        yield server


@pytest.fixture
def bucket(prefect_server, server, monkeypatch, tmp_path):
    """An empty bucket, for this process and for those that it starts."""
    environment = {
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "secret-test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server.url,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "MMCOT_CACHE": str(tmp_path / "cache"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{next(NAMES)}"
    server.make_bucket(name)
    return name


def run(data, out, **parameters):
    return extract_features(
        encoder="tiny", data=data, out=str(out), shard_size=30, return_state=True, **parameters
    )


def files_of(root):
    """What an artifact root holds; commit records without what made the shard."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]
    return comparable({path.relative_to(root).as_posix(): path.read_bytes() for path in paths})


def comparable(files):
    records = {name for name in files if name.endswith(".h5.json")}
    shown = {name: hashlib.sha256(files[name]).hexdigest() for name in files.keys() - records}
    return shown | {name: json.loads(files[name])["shard"] for name in records}


@pytest.fixture(scope="module")
def local(prefect_server, sample, tmp_path_factory):
    root = tmp_path_factory.mktemp("local")
    assert run(sample, root).is_completed()
    return files_of(root)


@pytest.mark.parametrize("runner", WORKERS)
def test_bucket_holds_what_a_folder_would(local, server, bucket, sample, runner):
    """Would catch a URL that became a path, half uploads, and pages that only read folders."""
    if runner != "threads":
        pytest.importorskip(f"prefect_{runner}")
    out = f"s3://{bucket}/shards"
    state = run(sample, out, **WORKERS[runner])
    assert state.is_completed(), state.message
    assert comparable(server.objects(bucket, "shards/")) == local
    assert server.uploads(bucket) == []
    features = open_features(f"{out}/tiny")
    assert features.gather(features.question_ids[:40])[0].shape[0] == 40
    artifacts = {
        what: Artifact.get(f"features-tiny-{what}")
        for what in ("progress", "shards", "failures", "samples", "summary")
    }
    assert float(artifacts["progress"].data) == 100
    assert {row["status"] for row in json.loads(artifacts["shards"].data)} == {"made by this run"}
    assert json.loads(artifacts["failures"].data) == []
    assert "](data:image/" in artifacts["samples"].data
    assert "can't be shown" not in artifacts["samples"].data
    assert f"mmcot-train --features {out}/tiny" in artifacts["summary"].data


def test_object_that_is_gone_is_made_again_alone(local, server, bucket, sample):
    out = f"s3://{bucket}/shards"
    run(sample, out)
    server.remove(bucket, "shards/tiny/00001-of-00003.h5")
    assert run(sample, out).result().num_extracted == 30
    assert comparable(server.objects(bucket, "shards/")) == local
    assert run(sample, out).result().num_extracted == 0


def test_data_is_prepared_into_a_bucket(local, server, bucket, sample):
    """All but captions and rationales, which are refused before anything is done."""
    out = f"s3://{bucket}/shards"
    parameters = {"dataset": "sample", "data": sample, "num_questions": 100, "shard_size": 30}
    state = prepare_data(
        out=out, encoders=("tiny",), rationales=None, return_state=True, **parameters
    )
    assert state.is_completed(), state.message
    assert comparable(server.objects(bucket, "shards/")) == local
    page = Artifact.get(f"prepare-{sample.name}-shards-summary").data
    assert f"mmcot-train --features {out}/tiny" in page


def test_missing_bucket_is_explained(server, bucket, sample):
    """Would catch hours of computation before the first upload fails."""
    state = run(sample, "s3://no-such-bucket/shards")
    assert state.is_failed()
    assert "s3://no-such-bucket/shards" in state.message
