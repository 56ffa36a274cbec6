"""The flow, run in this process against a temporary server."""

import asyncio
import gc
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from PIL import Image
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter
from prefect.settings import PREFECT_API_URL
from prefect.utilities.schema_tools import validate

from mmcot_data import extraction
from mmcot_data.encoders import EncoderConfig, load_encoder
from mmcot_data.errors import ExtractionError
from mmcot_data.extraction import ExtractionConfig
from mmcot_data.scienceqa import read_scienceqa
from mmcot_data.shards import open_features
from pipelines.extract_features import extract_features

# Prefect's synchronous client does not close its connections.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

SHARD_SIZE = 30


def run(data, out, **parameters):
    return extract_features(
        encoder="tiny",
        data=data,
        out=str(out),
        shard_size=SHARD_SIZE,
        return_state=True,
        **parameters,
    )


def shards(folder):
    return sorted(folder.glob("*.h5"))


def written(folder):
    files = (path for path in folder.iterdir() if path.name != ".lock")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards(folder)}


def artifact(what):
    found = Artifact.get(f"features-tiny-{what}")
    return json.loads(found.data) if found.type == "table" else found.data


@pytest.fixture(scope="module")
def finished(prefect_server, sample, tmp_path_factory):
    """An artifact root in which the flow has run once, its end, and its artifacts."""
    out = tmp_path_factory.mktemp("finished")
    state = run(sample, out)
    names = ("progress", "shards", "failures", "samples", "summary")
    return out, state, {what: artifact(what) for what in names}


@pytest.fixture
def root(finished, tmp_path):
    """A copy of that artifact root."""
    return shutil.copytree(finished[0], tmp_path / "out")


def test_features_are_those_of_the_command(finished, sample, tmp_path):
    out, state, _ = finished
    assert state.is_completed()
    extraction.extract_features(
        ExtractionConfig(
            data=sample, out=tmp_path, encoder=EncoderConfig(name="tiny"), shard_size=SHARD_SIZE
        )
    )
    assert len(shards(out / "tiny")) > 1
    assert digests(out / "tiny") == digests(tmp_path / "tiny")
    for name in ("questions.parquet", "tiny/index.parquet", "tiny/manifest.json"):
        assert (out / name).read_bytes() == (tmp_path / name).read_bytes()


def test_table_shows_every_shard_as_it_is_on_disk(finished):
    out, _, artifacts = finished
    rows = pl.read_parquet(out / "tiny/index.parquet").unique("image_sha256").group_by("shard")
    num_rows = dict(rows.len().rows())
    shown = ("shard", "status", "pictures", "rows", "sha256")
    assert [{name: row[name] for name in shown} for row in artifacts["shards"]] == [
        {
            "shard": path.name,
            "status": "made by this run",
            "pictures": num_rows[path.name],
            "rows": num_rows[path.name],
            "sha256": digests(out / "tiny")[path.name][:12],
        }
        for path in shards(out / "tiny")
    ]


def test_bar_is_full_and_no_failures_are_shown(finished):
    assert float(finished[2]["progress"]) == 100
    assert finished[2]["failures"] == []


def test_pictures_are_shown(finished):
    assert "](data:image/" in finished[2]["samples"]


def test_summary_says_what_there_is_and_what_comes_next(finished, sample):
    out, state, artifacts = finished
    num_pictures = len(list(sample.glob("images/*/*/*.png")))
    assert f"mmcot-train --features {out / 'tiny'}" in artifacts["summary"]
    assert f"| pictures | {num_pictures}; all of them have features" in artifacts["summary"]
    assert "CC0" in artifacts["summary"], "the licence of the pictures"
    assert f"{num_pictures} pictures" in state.message


def test_second_run_extracts_nothing(finished, sample):
    out = finished[0]
    before = written(out / "tiny")
    state = run(sample, out)
    assert state.result().num_extracted == 0
    assert written(out / "tiny") == before
    assert {row["status"] for row in artifact("shards")} == {"was there already"}


def test_deleted_shard_comes_back_alone_and_the_same(finished, root, sample):
    before = digests(root / "tiny")
    (root / "tiny" / sorted(before)[1]).unlink()
    run(sample, root)
    assert digests(root / "tiny") == before
    made = [row["shard"] for row in artifact("shards") if row["status"] == "made by this run"]
    assert made == [sorted(before)[1]]


@pytest.fixture
def damaged(sample, tmp_path):
    """The data set with a picture of its own for one question, cut in half."""
    data = shutil.copytree(sample, tmp_path / "damaged")
    image = next(image for image in read_scienceqa(data).images if image.role == "question")
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(content, "PNG")
    image.path.write_bytes(content.getvalue()[: len(content.getvalue()) // 2])
    return data, image


def test_corrupt_picture_is_listed(prefect_server, damaged, tmp_path):
    data, image = damaged
    state = run(data, tmp_path / "out", max_failures=1)
    assert state.is_completed()
    [row] = artifact("failures")
    assert row.pop("explanation").startswith(str(image.path))
    assert row == {
        "question_id": image.question_id,
        "role": "question",
        "file": str(image.path.relative_to(data)),
        "reason": "truncated",
    }
    assert image.question_id not in open_features(tmp_path / "out/tiny")


def test_too_many_failures_fail_the_run_and_say_what_to_do(prefect_server, damaged, tmp_path):
    data, image = damaged
    state = run(data, tmp_path / "out", max_failures=0)
    assert state.is_failed()
    assert image.question_id in state.message
    assert "--max-failures" in state.message
    assert len(shards(tmp_path / "out/tiny")) > 1, "complete shards stay"


def test_failed_shard_does_not_stop_the_others(prefect_server, sample, tmp_path, monkeypatch):
    """An error of the disk is tried again, another one is not; both are of one shard only."""
    calls, scans = [], []

    def scan_source(*arguments):
        scans.append(arguments)
        if len(scans) == 1:
            raise OSError("the disk was busy")
        return scan(*arguments)

    scan = extraction.scan_source
    monkeypatch.setattr(extraction, "scan_source", scan_source)

    def extract_shard(task, *rest, **options):
        number = task.number
        calls.append(number)
        if number == 0:
            raise ExtractionError("this one is broken")
        if calls.count(number) == 1 and number == 1:
            raise OSError("the disk was busy")
        return original(task, *rest, **options)

    original = extraction.extract_shard
    monkeypatch.setattr("pipelines.shard_work.extract_shard", extract_shard)
    state = run(sample, tmp_path)
    assert state.is_failed()
    assert "1 of" in state.message
    assert "shard 0: ExtractionError: this one is broken" in state.message
    assert (calls.count(0), calls.count(1)) == (1, 2)
    assert [path.name[:5] for path in shards(tmp_path / "tiny")][:1] == ["00001"]
    statuses = [row["status"] for row in artifact("shards")]
    assert statuses[0] == "failed: ExtractionError: this one is broken"
    assert set(statuses[1:]) == {"made by this run"}

    monkeypatch.undo()
    calls.clear()
    assert run(sample, tmp_path).result().num_extracted == SHARD_SIZE


def test_explained_error_is_the_message_of_the_run(prefect_server, tmp_path, caplog):
    state = run(tmp_path / "nowhere", tmp_path)
    assert state.is_failed()
    assert f"{tmp_path / 'nowhere'} does not exist" in state.message
    logged = [record for record in caplog.records if record.getMessage() == state.message]
    assert [record.levelname for record in logged] == ["ERROR"]


def test_settings_that_exclude_each_other_are_explained(prefect_server, tmp_path):
    state = run(tmp_path, tmp_path, random_weights=1, revision="main")
    assert state.is_failed()
    assert "revision" in state.message


def refusal(parameters):
    """Why the server refuses to create a run; it looks at the schema that was deployed."""
    schema = extract_features.parameters.model_dump_for_openapi()
    return [error.message for error in validate(parameters, schema)]


@pytest.mark.parametrize(
    "parameters",
    [
        {"encoder": "vgg"},
        {"encoder": "hf:"},
        {"shard_size": 0},
        {"batch_size": 0},
        {"precision": "fp64"},
        {"max_failures": "some"},
        {"max_failures": -1},
        {"splits": "test"},
        {"format": "npy"},
        {"runner": "processes"},
        {"num_workers": 0},
    ],
)
def test_parameters_are_checked_when_a_run_is_submitted(parameters):
    assert refusal(parameters)


def test_parameters_take_what_people_type():
    typed = {"encoder": "hf:org/model", "max_failures": 10, "splits": ["test", "minival"]}
    assert refusal(typed) == []
    expected = typed | {"splits": ("test", "minival")}
    assert extract_features.validate_parameters(typed).items() >= expected.items()


def test_two_runs_at_once_share_the_work(finished, sample, tmp_path):
    """Catches shards that are made twice, and a run that ends before the other one's shards do."""
    with ThreadPoolExecutor(2) as threads:
        states = list(threads.map(lambda _: run(sample, tmp_path), range(2)))
    summaries = [state.result() for state in states]
    assert digests(tmp_path / "tiny") == digests(finished[0] / "tiny")
    num_distinct = summaries[0].num_distinct
    assert sum(summary.num_extracted for summary in summaries) == num_distinct
    assert {summary.num_distinct for summary in summaries} == {num_distinct}


def test_encoder_is_loaded_once_and_given_up(finished, sample, tmp_path, monkeypatch):
    """Catches a second copy in the memory of the device, and one that stays there."""
    loaded = []

    def load(*arguments):
        encoder = load_encoder(*arguments)
        loaded.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr("pipelines.extraction_run.load_encoder", load)
    monkeypatch.setattr("pipelines.shard_work.load_planned_encoder", lambda _: load())
    run(sample, tmp_path)
    gc.collect()
    assert [reference() for reference in loaded] == [None]


def test_settings_of_workers_are_explained(prefect_server, sample, tmp_path):
    state = run(sample, tmp_path, num_workers=2)
    assert state.is_failed()
    assert "expected runner dask or ray" in state.message


@pytest.fixture
def unused_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.slow
def test_unreachable_cluster_fails_the_run_in_seconds(finished, sample, root, unused_port):
    """Where all shards are there, no cluster is needed."""
    address = f"tcp://127.0.0.1:{unused_port}"
    assert run(sample, root, runner="dask", address=address).is_completed()
    shards(root / "tiny")[0].unlink()
    start = time.monotonic()
    state = run(sample, root, runner="dask", address=address)
    assert state.is_failed()
    assert f"no Dask cluster can be reached at {address}" in state.message
    assert time.monotonic() - start < 20


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_workers_in_other_processes_make_the_same_shards(finished, sample, tmp_path, runner):
    """Two real workers; the log of each shard arrives although they are ended at once."""
    pytest.importorskip(f"prefect_{runner}")
    state = run(sample, tmp_path, runner=runner, num_workers=2)
    assert digests(tmp_path / "tiny") == digests(finished[0] / "tiny")
    assert state.result().num_extracted == state.result().num_distinct
    lines = run_log(state)
    for shard in shards(tmp_path / "tiny"):
        assert sum(line.startswith(f"{shard.name}: ") for line in lines) == 1


@pytest.mark.slow
def test_killed_worker_costs_nothing(finished, sample, tmp_path):
    """The process of a Dask worker, again and again: the shards are all made, and the same."""
    psutil = pytest.importorskip("psutil")
    pytest.importorskip("prefect_dask")
    before = set(psutil.Process().children(recursive=True))
    killed = 0
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(run, sample, tmp_path, runner="dask", num_workers=2)
        while not future.done():
            time.sleep(0.05)
            if killed < 2 and len(shards(tmp_path / "tiny")) > killed:
                new = set(psutil.Process().children(recursive=True)) - before
                next(p for p in new if "spawn_main" in " ".join(p.cmdline())).kill()
                killed += 1
    assert killed == 2
    assert future.result().is_completed(), future.result().message
    assert digests(tmp_path / "tiny") == digests(finished[0] / "tiny")


@pytest.mark.slow
def test_two_processes_share_the_work(finished, sample, tmp_path):
    """As two Prefect workers do, on one machine or on two."""
    code = (
        "from pipelines.extract_features import extract_features as flow\n"
        f"summary = flow(encoder='tiny', data={str(sample)!r}, out={str(tmp_path)!r},"
        f" shard_size={SHARD_SIZE}, return_state=True).result()\n"
        "print('extracted', summary.num_extracted, summary.num_distinct)\n"
    )
    environment = os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    counts = []
    for process in processes:
        output, _ = process.communicate(timeout=200)
        counts += re.findall(r"^extracted (\d+) (\d+)$", output, re.MULTILINE)
    assert len(counts) == 2
    assert sum(int(extracted) for extracted, _ in counts) == int(counts[0][1])
    assert digests(tmp_path / "tiny") == digests(finished[0] / "tiny")


def run_log(state):
    """What the log of a run says, once it has arrived at the server."""
    run_id = state.state_details.flow_run_id
    time.sleep(4)  # Prefect sends logs every two seconds

    async def read():
        async with get_client() as client:
            return await client.read_logs(LogFilter(flow_run_id={"any_": [run_id]}), limit=200)

    return [log.message for log in asyncio.run(read())]
