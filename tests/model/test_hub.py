"""Runs are pushed to a hub on this machine, with huggingface_hub's own code."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hub_server import TOKEN, serve_hub
from huggingface_hub import constants

from mmcot_data.errors import TrainingError
from mmcot_data.files import write_json
from mmcot_data.questions import Question, write_questions
from mmcot_model.cli.evaluate import main as evaluate
from mmcot_model.evaluation import Prediction, write_predictions
from mmcot_model.runs.folder import read_config, read_run
from mmcot_model.runs.hub import check_hub_access, push_run
from mmcot_model.settings.config import TrainConfig
from mmcot_model.settings.files import read_config_file, write_config_file

PUSHED = {
    "README.md": b"---\ntags: [mmcot]\n---\n# A run\n",
    "scores.json": "{} \u00e9".encode(),
    "predictions.parquet": bytes(range(256)) * 40,
    "rationale/model.safetensors": b"weights \x00\xff" * 3000,
    "rationale/config.json": b"{1}",
    "answer/model.safetensors": b"other weights" * 2000,
    "answer/tokenizer.json": b"",
    "answer/tokenizer_config.json": b"{2}",
    "answer/generation_config.json": b"{3}",
    "answer/history.json": b"[]",
    "rationale/model-00001-of-00002.safetensors": b"part",
    "rationale/model.safetensors.index.json": b"{4}",
    "rationale/spiece.model": b"pieces",
    "error_analysis.parquet": b"analysis",
    "error_analysis.json": b"{5}",
}
REWRITTEN = {"config.json", "train.yaml", "run.json"}
KEPT_AT_HOME = (
    ".lock",
    ".scores.json.1234.tmp",
    "answer/checkpoints/checkpoint-4/model.safetensors",
    "answer/checkpoints/runs/events.out.tfevents",
    "wandb/run-1/config.json",
    "train.log",
    "answer/train.log",
    "answer/.model.safetensors.1234.tmp",
    "notes.json",
)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serve_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def run(tmp_path):
    """A run of alice's, who gave paths of all kinds."""
    folder = tmp_path / "alice" / "runs" / "tiny"
    for name, content in PUSHED.items() | {(name, b"at home") for name in KEPT_AT_HOME}:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    root = tmp_path / "alice" / "shards"
    config = TrainConfig(
        artifacts=root,
        output=folder,
        features=(root / "tiny", "s3://bucket/shards/detr"),
        model="declare-lab/flan-alpaca-base",
        rationale_model="../alice/converted",
        captions="vit-gpt2",
        train_rationales=str(root / "rationales" / "mine.parquet"),
        val_rationales="stage1",
    )
    write_json(folder / "config.json", config.to_json() | {"sha256 of questions": "0f" * 32})
    write_config_file(folder / "train.yaml", config)
    command = ["mmcot-train", "--features", str(root / "tiny"), "s3://bucket/shards/detr"]
    command += [f"--output={folder}", "--config", "~/alice/base.yaml", "--seed", "42"]
    described = {
        "artifacts": str(root),
        "test_split": "test",
        "features": [str(root / "tiny"), "s3://bucket/shards/detr"],
        "feature_specs": [],
        "environment": {"python": "3.11.7", "command": " ".join(command)},
    }
    write_json(folder / "run.json", described)
    return folder


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own
@pytest.mark.parametrize("with_xet", [True, False])
def test_what_arrives_is_the_run_byte_by_byte(hub, run, monkeypatch, with_xet):
    """Would catch checkpoints, logs or locks on the hub, and a file that is left out or changed.

    Without xet, weights go through the LFS protocol, as with older servers and libraries; with it,
    the server asks for none of them, since xet's own protocol needs a server that this is not.
    """
    if not with_xet:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        hub.lfs_suffix = ".safetensors"
    assert push_run(run, "me/tiny") == f"{hub.url}/me/tiny"
    files = hub.repositories["me/tiny"].files
    assert files.keys() == PUSHED.keys() | REWRITTEN
    assert {name: files[name] for name in PUSHED} == PUSHED
    weights = sum(name.endswith(".safetensors") for name in PUSHED)
    assert len(hub.lfs_objects) == (0 if with_xet else weights)
    assert len(hub.repositories["me/tiny"].commits) == 1
    assert not hub.repositories["me/tiny"].private


def test_no_file_names_a_folder_of_the_machine(hub, run, tmp_path):
    """Would catch a user's name that goes to the hub in settings, run.json or the command."""
    push_run(run, "me/tiny")
    files = hub.repositories["me/tiny"].files
    for name, content in files.items():
        assert b"alice" not in content, name
        assert str(tmp_path).encode() not in content, name
    settings = json.loads(files["config.json"])
    assert settings == json.loads((run / "config.json").read_text()) | {
        "artifacts": "shards",
        "output": "tiny",
        "features": ["tiny", "s3://bucket/shards/detr"],
        "rationale_model": "converted",
        "train_rationales": "mine.parquet",
    }
    said = {name: value for name, value in settings.items() if name != "sha256 of questions"}
    assert yaml.safe_load(files["train.yaml"]) == said
    at_home = json.loads((run / "run.json").read_text())
    command = "mmcot-train --features tiny s3://bucket/shards/detr --output=tiny"
    assert json.loads(files["run.json"]) == at_home | {
        "artifacts": "shards",
        "features": ["tiny", "s3://bucket/shards/detr"],
        "environment": {
            "python": "3.11.7",
            "command": f"{command} --config base.yaml --seed 42",
        },
    }


def test_relative_paths_and_names_stay(hub, run, monkeypatch, tmp_path):
    """Would catch ids of the hub that are cut like paths."""
    monkeypatch.chdir(tmp_path)
    config = replace(read_config(run), rationale_model="runs/a/rationale", train_rationales=None)
    write_json(run / "config.json", config.to_json())
    push_run(run, "me/tiny")
    found = json.loads(hub.repositories["me/tiny"].files["config.json"])
    assert found["rationale_model"] == "runs/a/rationale"
    assert found["model"] == "declare-lab/flan-alpaca-base"
    assert found["train_rationales"] is None


def test_what_is_downloaded_is_a_run_again(hub, run, tmp_path, capsys, monkeypatch):
    """Would catch settings on the hub that mmcot itself can't read, and that places are guessed."""
    asked = Question(
        dataset="hand",
        question_id="0",
        split="test",
        position=0,
        question="?",
        choices=("x", "y"),
        answer=1,
    )
    write_questions(tmp_path / "elsewhere" / "questions.parquet", [asked])
    predictions = [Prediction(question_id="0", answer=1, split="test")]
    write_predictions(run / "predictions.parquet", predictions)
    push_run(run, "me/tiny")
    copy = tmp_path / "copy"
    for name, content in hub.repositories["me/tiny"].files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    config = read_config(copy)
    assert TrainConfig(**read_config_file(copy / "train.yaml")) == config
    assert config == replace(
        read_config(run),
        artifacts=Path("shards"),
        output=Path("tiny"),
        features=(Path("tiny"), "s3://bucket/shards/detr"),
        rationale_model="converted",
        train_rationales="mine.parquet",
    )
    assert read_run(copy)["test_split"] == "test"
    assert evaluate([str(copy), "--artifacts", str(tmp_path / "elsewhere")]) == 0
    assert "100.00" in capsys.readouterr().out
    assert evaluate([str(copy)]) == 1
    assert "questions.parquet" in capsys.readouterr().err


def test_a_second_push_replaces_the_run_and_nothing_else(hub, run):
    """Would catch a repository that mixes two runs, or loses what its owner put there."""
    push_run(run, "ours/tiny", private=True)
    first = dict(hub.repositories["ours/tiny"].files)
    theirs = {
        "LICENSE": b"CC0",
        "pictures/config.json": b"{}",
        "answer/card.txt": b"of the owner",
        "notes/answer/config.json": b"{}",
        ".gitattributes": b"*",
    }
    files = hub.repositories["ours/tiny"].files
    files |= theirs
    for name in ("answer/tokenizer.json", "error_analysis.parquet", "error_analysis.json"):
        (run / name).unlink()
        del first[name]
    (run / "scores.json").write_bytes(b"{2}")
    push_run(run, "ours/tiny", private=True)
    assert files == first | {"scores.json": b"{2}"} | theirs
    assert hub.repositories["ours/tiny"].private


def test_an_unfinished_run_is_not_pushed(hub, run):
    (run / "run.json").unlink()
    with pytest.raises(TrainingError, match="holds no finished run"):
        push_run(run, "me/tiny")
    assert hub.requests == []


def test_a_run_of_another_version_is_not_pushed(hub, run):
    """Would catch a traceback, and a run.json that goes out as it is."""
    (run / "run.json").write_text('{"artifacts": "/home/alice/shards", "test_split": "test"}')
    with pytest.raises(TrainingError, match="made by another version"):
        push_run(run, "me/tiny")
    assert hub.requests == []


@pytest.mark.parametrize("repo_id", ["me/tiny", "ME/tiny", "ours/tiny", "tiny"])
def test_access_is_granted_where_the_token_may_write(hub, repo_id):
    check_hub_access(repo_id)
    assert hub.requests == ["GET /api/whoami-v2"], "a check that leaves nothing on the hub"


@pytest.mark.parametrize(
    ("repo_id", "expected"),
    [("theirs/tiny", "repository of me or ours"), ("a/b/c", "cannot be a repository")],
)
def test_a_repository_of_others_is_refused_before_training(hub, repo_id, expected):
    with pytest.raises(TrainingError, match=expected):
        check_hub_access(repo_id)


def test_a_token_that_may_only_read_is_refused_before_training(hub):
    hub.role = "read"
    with pytest.raises(TrainingError, match="may only read"):
        check_hub_access("me/tiny")


def test_a_missing_token_is_explained(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(TrainingError, match="hf auth login"):
        check_hub_access("me/tiny")


def test_an_invalid_token_is_explained_and_stays_secret(hub, monkeypatch, run):
    monkeypatch.setenv("HF_TOKEN", "hf_outdated")
    for action in (lambda: check_hub_access("me/tiny"), lambda: push_run(run, "me/tiny")):
        with pytest.raises(TrainingError, match="refuses the token") as caught:
            action()
        assert "hf_outdated" not in str(caught.value)


def test_an_absent_hub_is_explained(hub, monkeypatch, run):
    """Would catch a traceback of the HTTP library, whose errors are no OSError."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for action in (lambda: check_hub_access("me/tiny"), lambda: push_run(run, "me/tiny")):
        with pytest.raises(TrainingError, match="the hub does not take me/tiny"):
            action()


def test_offline_mode_is_explained(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(TrainingError, match="HF_HUB_OFFLINE"):
        check_hub_access("me/tiny")


@pytest.mark.parametrize(
    ("end", "status", "expected"),
    [
        ("/api/repos/create", 403, "write access"),
        ("/preupload/main", 403, "write access"),
        ("/commit/main", 422, "does not take me/tiny"),
    ],
)
def test_a_refusal_in_the_middle_is_explained(hub, run, end, status, expected):
    hub.refusals[end] = status
    with pytest.raises(TrainingError, match=expected):
        push_run(run, "me/tiny")
