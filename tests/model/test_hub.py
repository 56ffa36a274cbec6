"""Runs are pushed to a hub on this machine, with huggingface_hub's own code."""

import pytest
from hub_server import TOKEN, serve_hub
from huggingface_hub import constants

from mmcot_data.errors import TrainingError
from mmcot_model.runs.hub import check_hub_access, push_run

PUSHED = {
    "README.md": b"---\ntags: [mmcot]\n---\n# A run\n",
    "config.json": b"{}",
    "train.yaml": b"seed: 1\n",
    "run.json": b'{"artifacts": "shards"}',
    "scores.json": "{} \u00e9".encode(),
    "predictions.parquet": bytes(range(256)) * 40,
    "rationale/model.safetensors": b"weights \x00\xff" * 3000,
    "rationale/config.json": b"{1}",
    "answer/model.safetensors": b"other weights" * 2000,
    "answer/tokenizer.json": b"",
}
KEPT_AT_HOME = (
    ".lock",
    ".scores.json.1234.tmp",
    "answer/checkpoints/checkpoint-4/model.safetensors",
    "answer/checkpoints/runs/events.out.tfevents",
    "wandb/run-1/config.json",
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
    folder = tmp_path / "runs" / "tiny"
    for name, content in PUSHED.items() | {(name, b"at home") for name in KEPT_AT_HOME}:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
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
    assert hub.repositories["me/tiny"].files == PUSHED
    assert len(hub.lfs_objects) == (0 if with_xet else 2)
    assert len(hub.repositories["me/tiny"].commits) == 1
    assert not hub.repositories["me/tiny"].private


def test_a_second_push_replaces_the_run_and_nothing_else(hub, run):
    """Would catch a repository that mixes two runs, or loses what its owner put there."""
    push_run(run, "ours/tiny", private=True)
    files = hub.repositories["ours/tiny"].files
    files |= {"LICENSE": b"CC0", "pictures/config.json": b"{}", ".gitattributes": b"*"}
    (run / "answer" / "tokenizer.json").unlink()
    (run / "scores.json").write_bytes(b"{2}")
    push_run(run, "ours/tiny", private=True)
    expected = PUSHED | {"scores.json": b"{2}", "LICENSE": b"CC0", "pictures/config.json": b"{}"}
    del expected["answer/tokenizer.json"]
    assert files == expected | {".gitattributes": b"*"}
    assert hub.repositories["ours/tiny"].private


def test_an_unfinished_run_is_not_pushed(hub, run):
    (run / "run.json").unlink()
    with pytest.raises(TrainingError, match="holds no finished run"):
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
