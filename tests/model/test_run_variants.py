"""What else a run can be asked for: other sources, trained stages, validation, the reference."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from feature_sets import make_rows, make_spec, write_set

from mmcot_data.cli import main as data_main
from mmcot_data.prompts import gold_rationale
from mmcot_data.questions import read_questions, select_split
from mmcot_data.rationales import gold_rationales, write_rationales
from mmcot_data.sample import draw_sample
from mmcot_model.cli.train import main as train_main
from mmcot_model.fusion import FusionT5
from mmcot_model.runs.folder import read_config
from mmcot_model.settings.config import TrainConfig

QUICK = ["--max-steps", "3", "--batch-size", "8", "--max-rationale", "12", "--max-answer", "8"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Path:
    """Questions and features of a width and number of patches that no encoder has."""
    folder = tmp_path_factory.mktemp("variants")
    draw_sample(folder / "data", num_questions=100, num_workers=1)
    out = folder / "shards"
    assert data_main(["questions", str(folder / "data"), "--out", str(out)]) == 0
    for name, shape, seed in (("one", (5, 7), 0), ("two", (3, 4), 1)):
        write_features(out, name, shape, seed)
    return out


def write_features(out, name, shape, seed) -> None:
    asked = [(q.question_id, role) for q in read_questions(out) for role in q.image_roles]
    index = [(question_id, role, row) for row, (question_id, role) in enumerate(asked)]
    spec = make_spec(encoder=name, num_patches=shape[0], feature_dim=shape[1])
    write_set(out / name, spec, [make_rows(len(index), seed=seed, shape=shape)], index)


def train(artifacts: Path, output: Path, *more: str, features=("one",)) -> int:
    places = [str(artifacts / name) for name in features]
    return train_main(["--features", *places, "--output", str(output), *QUICK, *more])


@pytest.fixture(scope="module")
def both(artifacts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "both"
    assert train(artifacts, folder, "--keep", "best", "--eval-questions", "4") == 0
    return folder


def test_validation_chooses_the_weights_of_both_stages(artifacts, both):
    """Would catch validation on other questions, or without the rationales that stage 1 wrote."""
    for stage, metric in (("rationale", "eval_rougeL"), ("answer", "eval_accuracy")):
        history = json.loads((both / stage / "history.json").read_text())
        assert [row["step"] for row in history if metric in row] == [3]
    questions = read_questions(artifacts)
    val = {q.question_id for q in select_split(questions, "val")}
    test = {q.question_id for q in select_split(questions, "test")}
    written = set(pl.read_parquet(both / "rationales.parquet")["question_id"])
    assert test < written
    assert len(written - test) == 4
    assert written - test < val
    assert set(pl.read_parquet(both / "predictions.parquet")["question_id"]) == test


def test_trained_stages_are_used_as_they_are(artifacts, both, tmp_path):
    """Would catch stages that are trained once more, and answers from other weights: so published
    checkpoints are tested."""
    given = ["--rationale-model", str(both / "rationale"), "--answer-model", str(both / "answer")]
    assert train(artifacts, tmp_path / "run", *given) == 0
    assert not (tmp_path / "run" / "rationale").exists()
    assert not (tmp_path / "run" / "answer").exists()
    found = pl.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert found.equals(pl.read_parquet(both / "predictions.parquet"))


def test_places_of_models_do_not_depend_on_where_they_are_read(both, artifacts, monkeypatch):
    """Would catch a relative folder that is another one, or a hub id, from another directory."""
    monkeypatch.chdir(both)
    config = TrainConfig(artifacts=artifacts, output=Path("x"), rationale_model="rationale")
    assert config.to_json()["rationale_model"] == str(both / "rationale")
    assert config.to_json()["model"] == "tiny"


def test_weights_that_changed_are_not_gone_on_with(artifacts, both, tmp_path, capsys):
    """Would catch a given stage that is exchanged between a stop and its resumption."""
    given = tmp_path / "given"
    shutil.copytree(both / "rationale", given)
    more = ["--stage", "rationale", "--rationale-model", str(given)]
    assert train(artifacts, tmp_path / "run", *more) == 0
    weights = given / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert train(artifacts, tmp_path / "run", *more, "--resume") == 1
    assert "sha256 of rationale_model model.safetensors" in capsys.readouterr().err


def test_two_feature_sets_reach_the_model(artifacts, tmp_path):
    """Would catch one of the sets being left out."""
    stage = ["--stage", "answer"]
    assert train(artifacts, tmp_path / "run", *stage, features=("one", "two")) == 0
    model = FusionT5.from_pretrained(tmp_path / "run" / "answer")
    assert model.config.encoders == ["one", "two"]
    assert (model.config.num_patches, model.config.patch_dim) == (8, 11)
    fresh = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [spec["encoder"] for spec in fresh["feature_specs"]] == ["one", "two"]
    weight = model.encoder.image_dense.weight.detach().numpy()
    spread = np.abs(weight).mean(axis=0)
    assert (spread[:7] > 0).all()
    assert (spread[7:] > 0).all()
    config = read_config(tmp_path / "run")
    assert config.features == (artifacts / "one", artifacts / "two")


def test_only_the_picture_that_is_read_must_be_there(artifacts, tmp_path, capsys):
    """Would catch published features, one row a question, that are refused for choice images."""
    questions = read_questions(artifacts)
    assert any({"question", "choice_0"} <= set(q.image_roles) for q in questions), "the hard case"
    first = [
        (q.question_id, next(role for role in ("question", "choice_0") if role in q.image_roles))
        for q in questions
        if {"question", "choice_0"} & set(q.image_roles)
    ]
    spec = make_spec(encoder="imported")
    for name, asked in (("whole", first), ("short", first[:-1])):
        rows = [(question_id, role, row) for row, (question_id, role) in enumerate(asked)]
        write_set(tmp_path / name, spec, [make_rows(len(rows))], rows)
    more = ["--artifacts", str(artifacts), "--image-roles", "question", "choice_0"]
    common = [*more, "--stage", "answer", "--train-split", "trainval", *QUICK]
    whole = ["--features", str(tmp_path / "whole"), "--output", str(tmp_path / "run")]
    assert train_main([*whole, *common]) == 0
    short = ["--features", str(tmp_path / "short"), "--output", str(tmp_path / "no")]
    assert train_main([*short, *common]) == 1
    assert "lacks 1 of the" in capsys.readouterr().err


def test_gold_rationales_are_an_upper_bound_that_says_so(artifacts, both, tmp_path, caplog):
    caplog.set_level("WARNING")
    more = ["--rationales", "gold-le", "--rationale-model", str(both / "rationale")]
    assert train(artifacts, tmp_path / "run", *more) == 0
    assert "upper bound" in caplog.text
    gold = {q.question_id: gold_rationale(q, "QCM-LE") for q in read_questions(artifacts)}
    rows = pl.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert rows["rationale"].to_list() == [gold[key] for key in rows["question_id"]]
    wrote = pl.read_parquet(tmp_path / "run" / "rationales.parquet")
    assert wrote["rationale"].to_list() != rows["rationale"].to_list()


def test_validation_needs_rationales(artifacts, both, tmp_path, capsys):
    """Would catch an answer stage that is validated without rationales, silently."""
    table = pl.read_parquet(both / "rationales.parquet")
    test = [q.question_id for q in select_split(read_questions(artifacts), "test")]
    kept = table.filter(pl.col("question_id").is_in(test))["question_id"].to_list()
    rows = [r for r in gold_rationales(read_questions(artifacts), "QCM-E") if r.question_id in kept]
    write_rationales(tmp_path / "tested.parquet", rows, {"producer": "test"})
    answer = ["--stage", "answer", "--prompt-format", "QCMG-A", "--keep", "best"]
    given = ["--rationales", str(tmp_path / "tested.parquet")]
    assert train(artifacts, tmp_path / "run", *answer, *given) == 1
    assert "--val-rationales, or --keep last" in " ".join(capsys.readouterr().err.split())
    assert train(artifacts, tmp_path / "run", *answer, *given, "--val-rationales", "gold-e") == 0


def test_the_reference_in_every_switch(artifacts, tmp_path):
    """Would catch a switch that is recorded and not obeyed."""
    more = ["--reference", "--max-source", "40", "--stage", "answer"]
    assert train(artifacts, tmp_path / "run", *more) == 0
    config = read_config(tmp_path / "run")
    assert config.image_roles == ("question", "choice_0")
    assert (config.padding, config.label_padding) == ("fixed", "counted")
    assert (config.truncation, config.failures) == ("right", "random")
    model = FusionT5.from_pretrained(tmp_path / "run" / "answer")
    assert model.config.absent_image == "zeros"
    losses = [
        row["loss"]
        for row in json.loads((tmp_path / "run" / "answer" / "history.json").read_text())
        if "loss" in row
    ]
    assert train(artifacts, tmp_path / "plain", "--stage", "answer", "--max-source", "40") == 0
    plain = json.loads((tmp_path / "plain" / "answer" / "history.json").read_text())
    assert losses[0] != pytest.approx(plain[0]["loss"], rel=1e-3), "padding is counted"


@pytest.mark.slow
def test_torchrun_makes_the_same_run(artifacts, tmp_path):
    """Would catch two processes that both write, answer only half of the questions, or train on
    other batches than one process that accumulates the same."""
    more = ["--stage", "answer", "--batch-size", "4", "--precision", "fp32"]
    assert train(artifacts, tmp_path / "one", *more, "--gradient-accumulation", "2") == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", str(port), "-m", "mmcot_model.cli.train"),
    ]
    command = ["--features", str(artifacts / "one"), "--output", str(tmp_path / "two"), *QUICK]
    finished = subprocess.run(
        [*launcher, *command, *more],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("AVG") == 1
    one, two = (pl.read_parquet(tmp_path / name / "predictions.parquet") for name in ("one", "two"))
    assert one["question_id"].to_list() == two["question_id"].to_list()
    ours, theirs = (
        FusionT5.from_pretrained(tmp_path / name / "answer").state_dict() for name in ("one", "two")
    )
    for name, weight in ours.items():
        if not name.endswith("in_proj_bias"):  # its keys' part has no gradient but rounding
            np.testing.assert_allclose(theirs[name], weight, rtol=1e-3, atol=2e-4, err_msg=name)
