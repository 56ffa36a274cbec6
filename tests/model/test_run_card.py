"""The run card as people and the hub read it, and what is recorded of the machine."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from feature_sets import make_spec
from huggingface_hub import ModelCard

import mmcot_data
from mmcot_data.files import write_json
from mmcot_data.questions import Question
from mmcot_model.evaluation import Scores, evaluate
from mmcot_model.evaluation.predictions import Prediction
from mmcot_model.runs.card import write_run_card
from mmcot_model.runs.environment import environment, git_state
from mmcot_model.settings.config import TrainConfig
from mmcot_model.trained.run import TrainedRun

SPEC = {
    "encoder": "detr",
    "model_id": "facebook/detr-resnet-101-dc5",
    "weights_sha256": "0123456789abcdef" * 4,
    "num_patches": 100,
    "feature_dim": 256,
    "precision": "bf16",
    "data_licence": "CC BY-NC-SA 4.0",
}
ENVIRONMENT = {
    "python": "3.11.7",
    "cpu": "A processor",
    "cores": 2,
    "gpus": ["NVIDIA H100"],
    "processes": 4,
    "versions": {"mmcot": "9.9.9", "torch": "2.9.0", "transformers": "5.0.0"},
    "git": {"mmcot": {"commit": "c0ffee", "dirty": True}, "working directory": None},
}
UNCUT = {"limit": 512, "num": 100, "num_cut": 0}


def question(number: int, dataset: str) -> Question:
    return Question(
        dataset=dataset,
        question_id=str(number),
        split="test",
        position=number,
        question="Which?",
        choices=("a", "b"),
        answer=0,
        subject="natural science",
        grade="grade3",
    )


@pytest.fixture
def artifacts(tmp_path) -> Path:
    """Where the artifact root was; a card is written when it may be gone."""
    return tmp_path / "alice" / "shards"


def card_of(
    config: TrainConfig,
    scores: Scores | None,
    *,
    datasets: Sequence[str] = ("scienceqa",),
    **run: object,
) -> str:
    config.output.mkdir()
    if scores is not None:
        write_json(config.output / "scores.json", scores.to_json())
    described = {"artifacts": str(config.artifacts), "feature_specs": [], "cuts": {}}
    described |= {"environment": ENVIRONMENT}
    write_run_card(config.output, described | run, config, datasets)
    return (config.output / "README.md").read_text(encoding="utf-8")


def full_config(tmp_path: Path) -> TrainConfig:
    artifacts = tmp_path / "alice" / "shards"
    return TrainConfig(
        artifacts=artifacts,
        output=tmp_path / "detr-base",
        features=(artifacts / "detr",),
        model="declare-lab/flan-alpaca-base",
        train_rationales=str(artifacts / "rationales" / "mine.parquet"),
        captions="vit-gpt2",
        seed=7,
        push_to_hub="me/secret-plans",
    )


@pytest.fixture
def full(tmp_path) -> str:
    """The card of a run of both stages: 30 questions, 20 of them right, one without an answer."""
    answers = [0] * 20 + [1] * 9 + [None]
    predictions = [
        Prediction(question_id=str(i), answer=answer, rationale="a b", reference_rationale="a b c")
        for i, answer in enumerate(answers)
    ]
    scores = evaluate([question(i, "scienceqa") for i in range(30)], predictions)
    cuts = {"answer test": {"sources": UNCUT | {"num_cut": 12}, "targets": None}}
    return card_of(full_config(tmp_path), scores, feature_specs=[SPEC], cuts=cuts)


def test_the_front_matter_is_what_the_hub_reads(full):
    """Would catch metadata that is no YAML, or that huggingface_hub does not understand."""
    data = ModelCard(full).data
    assert data.library_name == "mmcot"
    assert data.pipeline_tag == "visual-question-answering"
    assert data.datasets == ["derek-thomas/ScienceQA"]
    assert data.base_model == "declare-lab/flan-alpaca-base"
    assert "multimodal-chain-of-thought" in data.tags
    (result,) = data.eval_results
    assert result.metric_value == pytest.approx(100 * 20 / 30, abs=0.005)
    assert "30 questions" in result.metric_name
    assert result.dataset_split == "test"
    assert "license" not in yaml.safe_load(full.split("---")[1]), "not ours to choose"


def test_scores_come_with_numbers_of_questions_and_intervals(full):
    """The interval of 20 of 30 by Wilson's formula, written out."""
    p, n, z = 20 / 30, 30, 1.959964
    middle, spread = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = (100 * (middle + s * spread) / (1 + z * z / n) for s in (-1, 1))
    (row,) = (line for line in full.splitlines() if line.startswith("| AVG"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["AVG", "all questions", "30", "66.67", f"{low:.1f} to {high:.1f}"]
    (empty,) = (line for line in full.splitlines() if line.startswith("| SOC"))
    assert [cell.strip() for cell in empty.strip("|").split("|")][2:] == ["0", "-", "-"]
    assert "1 of 30 answers could not be read; they count as wrong." in full
    assert "ROUGE-L" in full


def test_the_card_tells_what_was_trained_on_what(full):
    for expected in (
        "detr (100, 256)",
        "captions by vit-gpt2",
        "gold answers, from mine.parquet",
        "what stage 1 writes",
        "facebook/detr-resnet-101-dc5",
        "0123456789ab ",
        "CC BY-NC-SA 4.0",
        "answer test: 12 of 100 sources were longer than 512 tokens",
        "NVIDIA H100 by each of 4 processes",
        "Commit of mmcot: c0ffee, with changes that were not committed.",
        "mmcot-evaluate RUN",
        "mmcot-predict RUN",
    ):
        assert expected in full
    assert re.search(r"\| seed +\| 7 ", full)
    assert "Commit of working directory" not in full


def test_the_card_names_no_folder_of_the_machine(full, tmp_path):
    """Would catch a user's name that goes to the hub with a path."""
    assert "alice" not in full
    assert str(tmp_path) not in full
    assert "secret-plans" not in full


def test_the_card_of_a_rationale_stage_has_no_scores(artifacts, tmp_path):
    config = TrainConfig(artifacts=artifacts, output=tmp_path / "why", stage="rationale")
    card = card_of(config, None)
    data = ModelCard(card).data
    assert data.eval_results is None
    assert data.base_model is None
    assert data.pipeline_tag is None
    assert "rationales.parquet" in card
    assert "| answer" not in card
    assert "no picture" in card


def test_a_stage_that_was_given_learnt_nothing(artifacts, tmp_path):
    config = TrainConfig(
        artifacts=artifacts,
        output=tmp_path / "run",
        rationale_model=str(artifacts / "converted"),
        features=(artifacts / "detr",),
        answer_model="cooelf/mm-cot-answer",
        failures="random",
    )
    predictions = [Prediction(question_id="0", answer=None)]
    scores = evaluate([question(0, "scienceqa")], predictions, failures="random", seed=1)
    card = card_of(config, scores, feature_specs=[SPEC])
    assert re.search(r"\| rationale \| QCM-E +\| a folder named converted +\| nothing in", card)
    assert re.search(r"\| answer +\| QCMG-A +\| cooelf/mm-cot-answer +\| nothing in", card)
    assert "1 of 1 answers could not be read; a letter was drawn for them." in card
    assert "load_model('RUN/rationale')" not in card
    assert "load_model('MODEL')" in card
    assert "`MODEL` is the rationale stage that this run was given, a folder named conv" in card
    assert "alice" not in card


def test_a_stage_of_the_hub_is_loaded_by_its_id(artifacts, tmp_path):
    """Would catch a placeholder where a name would do, and the path of a folder in its place."""
    config = TrainConfig(
        artifacts=artifacts, output=tmp_path / "run", stage="answer", prompt_format="QCM-A"
    )
    card = card_of(replace(config, answer_model="cooelf/mm-cot-answer"), None)
    assert "load_model('cooelf/mm-cot-answer')" in card
    assert "MODEL" not in card


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, {"--question", "--choice"}),
        ({"features": (Path("detr"),)}, {"--image", "--question", "--choice"}),
        ({"captions": "vit-gpt2"}, {"--question", "--choice", "--caption"}),
        ({"stage": "answer", "prompt_format": "QCM-A"}, {"--question", "--choice"}),
        (
            {"stage": "answer", "prompt_format": "QCMG-A", "rationales": "stage1"},
            {"--question", "--choice", "--rationale"},
        ),
    ],
)
def test_the_command_of_the_card_is_one_that_the_run_takes(artifacts, tmp_path, settings, flags):
    """Would catch a picture for a run that reads none, or no rationale for one that needs it."""
    config = TrainConfig(artifacts=artifacts, output=tmp_path / "run", **settings)
    card = card_of(config, None, feature_specs=[SPEC] if config.features else [])
    (line,) = (line for line in card.splitlines() if line.startswith("mmcot-predict"))
    assert {word for word in shlex.split(line) if word.startswith("--")} == flags
    TrainedRun(
        folder=config.output,
        config=config,
        artifacts=artifacts,
        features=(),
        specs=(make_spec(),) if config.features else (),
    ).check_question(
        has_picture="--image" in line,
        caption="Ice." if "--caption" in line else None,
        rationale="Ice melts." if "--rationale" in line else None,
    )


def test_a_card_tells_the_settings_of_the_run_not_of_a_file_that_people_edit(artifacts, tmp_path):
    """Would catch a finished training that ends in an error, or a card with other settings."""
    config = TrainConfig(artifacts=artifacts, output=tmp_path / "run", stage="rationale", seed=7)
    config.output.mkdir()
    (config.output / "train.yaml").write_text("seed: 8\nno such setting: [")
    described = {"artifacts": str(artifacts), "feature_specs": [], "cuts": {}}
    write_run_card(config.output, described | {"environment": ENVIRONMENT}, config, ["mine"])
    card = (config.output / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\| seed +\| 7 ", card)
    assert "Questions of mine, split train." in card


def test_a_card_without_names_of_data_sets_claims_none(artifacts, tmp_path):
    config = TrainConfig(artifacts=artifacts, output=tmp_path / "run")
    scores = evaluate([question(0, "scienceqa")], [Prediction(question_id="0", answer=0)])
    card = card_of(config, scores, datasets=())
    assert "Questions, split train." in card
    data = ModelCard(card).data
    assert data.datasets is None
    assert data.eval_results is None, "the hub's form of a result names a data set"


def test_the_card_is_the_same_each_time(full, tmp_path):
    run = tmp_path / "detr-base"
    cuts = {"answer test": {"sources": UNCUT | {"num_cut": 12}, "targets": None}}
    described = {"artifacts": str(tmp_path / "alice" / "shards"), "feature_specs": [SPEC]}
    described |= {"cuts": cuts, "environment": ENVIRONMENT}
    write_run_card(run, described, full_config(tmp_path), ["scienceqa"])
    assert (run / "README.md").read_text(encoding="utf-8") == full


def git(folder: Path, *arguments: str) -> str:
    who = {
        f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | who,
    )
    return done.stdout.strip()


def test_the_commit_is_the_one_that_git_says(tmp_path):
    """Would catch a run that is credited to code that it was not made with."""
    assert git_state(tmp_path) is None, "no repository"
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    assert git_state(tmp_path) == {"commit": None, "dirty": True}
    git(tmp_path, "commit", "-qm", "x")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "output").write_text("not code")
    clean = {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    assert git_state(tmp_path / "runs") == clean
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path) == clean | {"dirty": True}


def test_the_commit_of_the_code_itself_is_recorded():
    """Would catch a module that moved and looks for the checkout beside or inside of it."""
    root = Path(mmcot_data.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        pytest.skip("mmcot is installed: this is no checkout")
    assert environment()["git"]["mmcot"]["commit"] == git(root, "rev-parse", "HEAD")


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path(__file__).parent) is None


def test_the_environment_is_told_without_names(monkeypatch, tmp_path):
    """Would catch a user's home folder or the host in a file that goes to the hub."""
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.chdir(tmp_path)
    words = ["--features", "/home/alice/my shards/detr", "--seed", "7"]
    monkeypatch.setattr(sys, "argv", ["/home/alice/.venv/bin/mmcot-train", *words])
    found = json.loads(json.dumps(environment()))
    assert shlex.split(found["command"]) == [
        "mmcot-train",
        "--features",
        "~/my shards/detr",
        "--seed",
        "7",
    ]
    assert found["versions"]["torch"] == version("torch")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert found["git"]["working directory"] is None
    text = json.dumps(found)
    assert "alice" not in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)


def test_settings_that_differ_from_the_recipe_are_told(artifacts, tmp_path):
    """Would catch a card that hides what was changed, or lists the whole of the defaults."""
    config = TrainConfig(artifacts=artifacts, output=tmp_path / "run", stage="rationale")
    card = card_of(replace(config, max_steps=5, warmup=0.25), None)
    rows = dict(re.findall(r"^\| (\w+) +\| (\S+) +\|$", card.split("## Settings")[1], re.MULTILINE))
    assert rows["max_steps"] == "5"
    assert rows["warmup"] == "0.25"
    assert rows["stage"] == "rationale"
    assert "weight_decay" not in rows
    assert "captions" not in rows
