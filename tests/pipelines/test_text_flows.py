"""The flows of what goes in, run in this process against a temporary server."""

import json
from pathlib import Path

import polars as pl
import pytest
from openai_server import serve_openai
from prefect.artifacts import Artifact
from scienceqa_copies import Copies, serve_copies

from mmcot_data.cli import main
from mmcot_data.downloads import run as download_run
from mmcot_data.errors import DataError, TrainingError
from mmcot_data.questions import read_questions, select_split
from mmcot_data.scienceqa import read_scienceqa
from pipelines.caption_images import caption_images_flow
from pipelines.download_scienceqa import download_scienceqa
from pipelines.generate_rationales import generate_rationales
from pipelines.page import artifact_key

# Prefect's synchronous client does not close its connections.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module", autouse=True)
def _server(prefect_server):
    """All tests of this module talk to it."""


@pytest.fixture
def root(sample, tmp_path) -> Path:
    out = tmp_path / "shards"
    assert main(["questions", str(sample), "--out", str(out)]) == 0
    return out


def artifact(key):
    found = Artifact.get(key)
    assert found is not None
    return json.loads(found.data) if found.type == "table" else found.data


def test_keys_of_artifacts_are_what_prefect_takes():
    """Prefect refuses capitals, underscores and dots, which producers' names may have."""
    assert artifact_key("captions", "Qwen_3.8B", "x") == "captions-qwen-3-8b-x"


def test_download_makes_the_data_set_once_and_says_what_it_proved(sample, tmp_path, monkeypatch):
    """The flow must fetch by the same functions as the command, and nothing the second time."""
    copies = Copies(sample)
    monkeypatch.setattr(download_run, "CATALOGUE", copies.catalogue())
    out = tmp_path / "data"
    with serve_copies(copies) as hosts:
        state = download_scienceqa(out=out, mirrors=(hosts.mirror,), return_state=True)
        assert state.is_completed(), state.message
        before = hosts.num_gets()
        assert (
            download_scienceqa(out=out, mirrors=(hosts.mirror,), return_state=True)
            .result()
            .was_there
        )
        assert hosts.num_gets() == before
    drawn, read = read_scienceqa(sample), read_scienceqa(out)
    assert [q.question_id for q in read.questions] == [q.question_id for q in drawn.questions]
    summary = artifact(artifact_key("download", "data", "summary"))
    assert "CC BY-NC-SA 4.0" in summary
    assert float(artifact("download-data-bytes")) == 100


def test_a_download_of_something_else_fails_with_the_explanation(sample, tmp_path, monkeypatch):
    """A flow that completed with wrong data would poison all that follows."""
    copies = Copies(sample)
    monkeypatch.setattr(download_run, "CATALOGUE", copies.catalogue())
    copies.rows["val"][3]["answer"] += 1
    with serve_copies(copies) as hosts:
        state = download_scienceqa(
            out=tmp_path / "data", mirrors=(hosts.mirror,), return_state=True
        )
    assert state.is_failed()
    assert "answer" in state.message
    with pytest.raises(DataError):
        state.result()
    assert not (tmp_path / "data" / "problems.json").exists()


def test_captions_are_those_of_the_command(sample, root, tmp_path):
    """The page must not offer another way of making the same table."""
    state = caption_images_flow(captioner="tiny", data=sample, out=root, return_state=True)
    assert state.is_completed(), state.message
    arguments = ["captions", "generate", str(sample), "--captioner", "tiny"]
    assert main([*arguments, "--out", str(tmp_path / "other")]) == 0
    table, other = (
        pl.read_parquet(folder / "captions" / "tiny.parquet")
        for folder in (root, tmp_path / "other")
    )
    assert table.equals(other)
    again = caption_images_flow(captioner="tiny", data=sample, out=root, return_state=True)
    assert again.result().num_made == 0
    shown = artifact("captions-tiny-samples")
    captions = dict(table.filter(role="question").select("question_id", "caption").iter_rows())
    assert all(captions[row["question"]] == row["caption"] for row in shown)
    assert float(artifact("captions-tiny-progress")) == 100
    assert artifact("captions-tiny-failures") == []
    assert "--captions tiny" in artifact("captions-tiny-summary")


def test_gold_rationales_and_a_run_that_changes_nothing(root):
    """A second run with the same parameters must leave the table alone."""
    assert generate_rationales(artifacts=root, return_state=True).is_completed()
    path = root / "rationales" / "gold.parquet"
    before = path.stat().st_ino
    assert generate_rationales(artifacts=root, return_state=True).result() == path
    assert path.stat().st_ino == before
    coverage = artifact("rationales-gold-coverage")
    assert sum(row["rows"] for row in coverage) == len(read_questions(root))
    state = generate_rationales(artifacts=root, keep="correct", samples=2, return_state=True)
    assert state.message == "samples, keep: has no meaning for rationales by gold"
    state = generate_rationales(artifacts=root, prompt_format="QCM-LE", return_state=True)
    assert state.is_failed()
    assert "holds something else" in state.message


@pytest.mark.slow
def test_kfold_covers_the_training_questions(root, tmp_path):
    """On the text alone, with a few steps; then a stage 1 of a fold writes for another split."""
    runs = tmp_path / "runs"
    state = generate_rationales(
        by="stage1-kfold", artifacts=root, folds=2, max_steps=2, batch_size=4, runs=runs,
        return_state=True,
    )  # fmt: skip
    assert state.is_completed(), state.message
    train = [q.question_id for q in select_split(read_questions(root), "train")]
    assert pl.read_parquet(state.result())["question_id"].to_list() == train
    state = generate_rationales(
        by="stage1", artifacts=root, run=runs / "stage1-kfold" / "fold-0-of-2", splits=("val",),
        return_state=True,
    )  # fmt: skip
    assert state.is_completed(), state.message
    val = [q.question_id for q in select_split(read_questions(root), "val")]
    assert pl.read_parquet(state.result())["question_id"].to_list() == val
    state = generate_rationales(by="stage1", artifacts=root, return_state=True)
    assert "needs run" in state.message
    state = generate_rationales(by="stage1", artifacts=root, run=tmp_path, return_state=True)
    assert state.is_failed()
    with pytest.raises(TrainingError):
        state.result()


def test_a_teacher_behind_an_endpoint(root):
    """The parameters of the form have to reach the server."""
    with serve_openai(lambda _: "It floats. The answer is (A).") as server:
        state = generate_rationales(
            by="teacher", artifacts=root, model="m", url=server.url, limit=3, samples=2,
            temperature=0.5, keep="correct", producer="t", return_state=True,
        )  # fmt: skip
        assert state.is_completed(), state.message
        bodies = [request.body for request in server.requests]
    assert {body["temperature"] for body in bodies} == {0.5, 0.0}, "rationale, then its answer"
    table = pl.read_parquet(state.result())
    assert table.height == 6
    questions = {q.question_id: q for q in read_questions(root)}
    assert table["kept"].to_list() == [
        questions[question_id].answer == 0 for question_id in table["question_id"]
    ]
