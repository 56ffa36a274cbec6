"""The flow, run in this process against a temporary server."""

import base64
import hashlib
import io
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
from PIL import Image
from prefect.artifacts import Artifact
from prefect.utilities.schema_tools import validate

from mmcot_data import extraction
from mmcot_data.encoders import EncoderConfig
from mmcot_data.errors import ExtractionError
from mmcot_data.extraction import ExtractionConfig
from mmcot_data.scienceqa import read_scienceqa
from mmcot_data.shards import open_features
from pipelines.artifacts import artifact_key, shard_progress
from pipelines.extract_features import extract_features

# Prefect's synchronous client does not close its connections.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

SHARD_SIZE = 30


def run(data, out, **parameters):
    return extract_features(
        encoder="tiny", data=data, out=out, shard_size=SHARD_SIZE, return_state=True, **parameters
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
    assert artifacts["shards"] == [
        {
            "shard": path.name,
            "pictures": num_rows[path.name],
            "rows": num_rows[path.name],
            "bytes": path.stat().st_size,
            "sha256": digests(out / "tiny")[path.name][:12],
            "status": "extracted",
        }
        for path in shards(out / "tiny")
    ]


def test_bar_is_full_and_no_failures_are_shown(finished):
    assert float(finished[2]["progress"]) == 100
    assert finished[2]["failures"] == []


def test_samples_are_pictures_of_the_data_set(finished, sample):
    """The first square of the sheet shows the first picture that has features."""
    [encoded] = re.findall(r"\(data:image/png;base64,(.*)\)", finished[2]["samples"])
    sheet = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    first = Image.open(read_scienceqa(sample).images[0].path).convert("RGBA")
    white = Image.new("RGBA", first.size, "white")
    mean = np.asarray(Image.alpha_composite(white, first).convert("RGB")).mean((0, 1))
    ratio = 160 / max(first.size)
    left, top = (8 + round((160 - side * ratio) / 2) for side in first.size)
    shown = sheet.crop((left, top, 168 - (left - 8), 168 - (top - 8)))
    np.testing.assert_allclose(np.asarray(shown).mean((0, 1)), mean, atol=4)


def test_summary_says_what_there_is_and_what_comes_next(finished, sample):
    out, state, artifacts = finished
    num_pictures = len(list(sample.glob("images/*/*/*.png")))
    assert f"mmcot-train --features {out / 'tiny'}" in artifacts["summary"]
    assert f"| pictures | {num_pictures}, 0 of them without features |" in artifacts["summary"]
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
    statuses = [row["status"] for row in artifact("shards")]
    assert statuses[:2] == ["was there already", "extracted"]
    assert statuses.count("extracted") == 1


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

    def extract_shard(plan, number, *rest):
        calls.append(number)
        if number == 0:
            raise ExtractionError("this one is broken")
        if calls.count(number) == 1 and number == 1:
            raise OSError("the disk was busy")
        return original(plan, number, *rest)

    original = extraction.extract_shard
    monkeypatch.setattr(extraction, "extract_shard", extract_shard)
    state = run(sample, tmp_path)
    assert state.is_failed()
    assert "1 of" in state.message
    assert "shard 0: ExtractionError: this one is broken" in state.message
    assert (calls.count(0), calls.count(1)) == (1, 2)
    assert [path.name[:5] for path in shards(tmp_path / "tiny")][:1] == ["00001"]
    assert [row["status"] for row in artifact("shards")][:2] == ["failed", "extracted"]

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
    ],
)
def test_parameters_are_checked_when_a_run_is_submitted(parameters):
    assert refusal(parameters)


def test_parameters_take_what_people_type():
    typed = {"encoder": "hf:org/model", "max_failures": 10, "splits": ["test", "minival"]}
    assert refusal(typed) == []
    expected = typed | {"splits": ("test", "minival")}
    assert extract_features.validate_parameters(typed).items() >= expected.items()


def test_keys_are_what_prefect_accepts(tmp_path):
    assert (
        artifact_key(tmp_path / "hf-Org-name_v1.5", "shards") == "features-hf-org-name-v1-5-shards"
    )
    assert artifact_key(tmp_path / "-detr-", "summary") == "features-detr-summary"


def test_bar_moves_at_intervals_and_at_the_end(monkeypatch):
    """Not once a batch: an update costs a request."""
    updates, now = [], [0.0]
    monkeypatch.setattr("pipelines.artifacts.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "pipelines.artifacts.update_progress_artifact", lambda *arguments: updates.append(arguments)
    )
    report = shard_progress("id", "shard", 100, 200)
    for done in range(10, 60, 10):
        now[0] += 1
        report(done, 50)
    assert [percent for _, percent, _ in updates] == [60, 70, 75]
    assert "150 of 200 pictures; shard at 10.0 pictures/s" in updates[-1][2]
