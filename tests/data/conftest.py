"""An S3 server for the tests that ask for one."""

import itertools
import tempfile

import pytest

_NAMES = itertools.count()


@pytest.fixture(scope="module")
def served():
    from object_storage import serve_objects

    with serve_objects() as server:
        yield server


@pytest.fixture
def environment(served, tmp_path):
    return {
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "secret-test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": served.url,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_MAX_ATTEMPTS": "1",
        "MMCOT_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path / "tmp"),
    }


@pytest.fixture
def server(served, environment, monkeypatch, tmp_path):
    """The server as the environment's S3; clients are quick to try again."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mmcot_data.shards.bucket._DELAYS", (0.01, 0.02, 0.03))
    monkeypatch.setattr("mmcot_data.shards.object_folder._POLL_SECONDS", 0.02)
    served.asked.clear()
    served.fail = lambda _: None
    served.lose_answer = lambda _: False
    served.ignores_conditions = False
    return served


@pytest.fixture
def bucket(server):
    name = f"bucket-{next(_NAMES)}"
    server.make_bucket(name)
    return name
