"""mmcot-train and mmcot-evaluate on a small drawn sample, end to end."""

import json
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from mmcot_data.cli import main as data_main
from mmcot_data.questions import read_questions, select_split
from mmcot_data.sample import draw_sample
from mmcot_model.cli.evaluate import main as evaluate_main
from mmcot_model.cli.train import main as train_main

QUICK = ["--max-steps", "4", "--batch-size", "8", "--max-rationale", "12", "--max-answer", "8"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    draw_sample(folder / "data", num_questions=120, num_workers=1)
    out = folder / "shards"
    assert data_main(["extract", str(folder / "data"), "--encoder", "tiny", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def run(artifacts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "both"
    assert train(artifacts, folder) == 0
    return folder


def train(artifacts: Path, output: Path, *more: str) -> int:
    features = ["--features", str(artifacts / "tiny")]
    return train_main([*features, "--output", str(output), *QUICK, *more])


def test_two_stages_leave_everything_by_question_id(artifacts, run):
    test = select_split(read_questions(artifacts), "test")
    predictions = pl.read_parquet(run / "predictions.parquet")
    rationales = pl.read_parquet(run / "rationales.parquet")
    ids = [question.question_id for question in test]
    assert predictions["question_id"].to_list() == rationales["question_id"].to_list() == ids
    assert predictions["rationale"].to_list() == rationales["rationale"].to_list()
    gold = dict(zip(ids, predictions["reference_rationale"], strict=True))
    assert all(gold[q.question_id] == f"Solution: {q.solution}" for q in test)
    assert (run / "rationale" / "model.safetensors").is_file()
    assert (run / "answer" / "model.safetensors").is_file()
    described = json.loads((run / "run.json").read_text())
    spec = json.loads((artifacts / "tiny" / "manifest.json").read_text())["spec"]
    assert described["feature_specs"] == [spec]


def test_evaluate_prints_what_the_run_scored(run, tmp_path, capsys):
    assert evaluate_main([str(run), "--json", str(tmp_path / "scores.json")]) == 0
    assert "AVG" in capsys.readouterr().out
    written = json.loads((run / "scores.json").read_text())
    assert json.loads((tmp_path / "scores.json").read_text()) == written
    assert written["n"]["acc_average"] == len(pl.read_parquet(run / "predictions.parquet"))


def test_a_run_folder_is_never_overwritten(artifacts, run, capsys):
    assert train(artifacts, run) == 1
    assert "--resume" in capsys.readouterr().err
    assert train(artifacts, run, "--resume", "--seed", "7") == 1
    assert "seed: was 42, now 7" in capsys.readouterr().err


def test_resume_of_a_finished_run_changes_nothing(artifacts, run):
    """Would catch the record of another command, machine or cut in the place of the first."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    before = {path: path.read_bytes() for path in files}
    assert run / "run.json" in before
    assert train(artifacts, run, "--resume") == 0
    assert {path: path.read_bytes() for path in files} == before


def test_text_only_and_one_stage(artifacts, tmp_path):
    arguments = ["--artifacts", str(artifacts), "--stage", "answer", *QUICK]
    assert train_main([*arguments, "--output", str(tmp_path / "text")]) == 0
    assert not (tmp_path / "text" / "rationales.parquet").exists()
    rows = pl.read_parquet(tmp_path / "text" / "predictions.parquet")
    assert rows["rationale"].is_null().all()


def test_rationale_stage_alone_and_answers_from_an_artifact(artifacts, tmp_path):
    assert train(artifacts, tmp_path / "stage1", "--stage", "rationale") == 0
    rationales = tmp_path / "stage1" / "rationales.parquet"
    assert not (tmp_path / "stage1" / "answer").exists()
    more = ["--stage", "answer", "--prompt-format", "QCMG-A", "--rationales", str(rationales)]
    assert train(artifacts, tmp_path / "answer", *more) == 0
    rows = pl.read_parquet(tmp_path / "answer" / "predictions.parquet")
    assert rows["rationale"].to_list() == pl.read_parquet(rationales)["rationale"].to_list()
    form = rows["reference_rationale"].str.contains("^Solution: ")
    assert form.all(), "scored against gold rationales of the same form"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--features"),
        (["--features", "x", "--prompt-format", "QCM-A"], "--stage both takes"),
        (["--features", "x", "--stage", "answer", "--prompt-format", "QCMG-A"], "--rationales"),
        (["--features", "x", "--batch-size", "0"], "batch_size"),
    ],
)
def test_wrong_usage_is_explained(arguments, expected, capsys):
    with pytest.raises(SystemExit, match="2"):
        train_main(arguments)
    assert expected in capsys.readouterr().err


def test_absent_features_are_explained(artifacts, tmp_path, capsys):
    arguments = ["--features", str(artifacts / "clip"), "--output", str(tmp_path / "r")]
    assert train_main(arguments) == 1
    assert "clip" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_help_teaches(capsys):
    with pytest.raises(SystemExit, match="0"):
        train_main(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "QCM-E" in text


@pytest.mark.slow
def test_training_needs_no_image_library_and_no_prefect(artifacts, tmp_path):
    """Blocks the imports and trains two steps of each stage in a fresh process."""
    script = (
        "import sys\n"
        "for name in ('PIL', 'torchvision', 'prefect', 'timm'):\n"
        "    sys.modules[name] = None\n"
        "from mmcot_model.cli.train import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    features, output = str(artifacts / "tiny"), str(tmp_path / "run")
    more = ["--max-steps", "2", "--max-rationale", "8", "--batch-size", "4"]
    finished = subprocess.run(
        [sys.executable, "-c", script, "--features", features, "--output", output, *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "run" / "run.json").is_file()


def test_features_are_trained_on(artifacts, tmp_path):
    """Would catch features that are read and then lost on the way to the model."""
    out = tmp_path / "shards"
    data = artifacts.parent / "data"
    extract = ["extract", str(data), "--encoder", "tiny", "--random-weights", "5"]
    assert data_main([*extract, "--out", str(out)]) == 0
    for name, root in (("a", artifacts), ("b", out)):
        assert train(root, tmp_path / name, "--stage", "answer") == 0
    weights = [(tmp_path / name / "answer" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] != weights[1]


def test_features_of_another_data_set_are_refused(artifacts, tmp_path, capsys):
    """Would catch a run that trains on the text alone because no id matches."""
    other = tmp_path / "other"
    other.mkdir()
    table = pl.read_parquet(artifacts / "questions.parquet")
    renamed = table.with_columns(question_id=pl.lit("other-") + pl.col("question_id"))
    renamed.write_parquet(other / "questions.parquet")
    arguments = ["--artifacts", str(other)]
    assert train(artifacts, tmp_path / "run", *arguments) == 1
    assert "expected features of the same data set" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_features_of_some_splits_are_refused_for_others(artifacts, tmp_path, capsys):
    """Would catch training pictures that count as absent because nobody extracted them."""
    out, data = tmp_path / "shards", artifacts.parent / "data"
    extract = ["extract", str(data), "--encoder", "tiny", "--split", "test"]
    assert data_main([*extract, "--out", str(out)]) == 0
    assert train(out, tmp_path / "run") == 1
    assert "without --split" in capsys.readouterr().err


def test_resume_refuses_other_features_at_the_same_place(artifacts, tmp_path, capsys):
    """Would catch a run that goes on with features it was not trained on."""
    out, data = tmp_path / "shards", artifacts.parent / "data"
    extract = ["extract", str(data), "--encoder", "tiny", "--out", str(out)]
    assert data_main(extract) == 0
    assert train(out, tmp_path / "run", "--stage", "answer") == 0
    shutil.rmtree(out / "tiny")
    assert data_main([*extract, "--random-weights", "5"]) == 0
    capsys.readouterr()
    assert train(out, tmp_path / "run", "--stage", "answer", "--resume") == 1
    assert "sha256 of features: was" in capsys.readouterr().err


def test_a_stage_without_its_last_file_is_trained_again(artifacts, tmp_path):
    """Would catch a stage that counts as trained although a kill left its weights unwritten."""
    run = tmp_path / "run"
    assert train(artifacts, run, "--stage", "answer") == 0
    weights = (run / "answer" / "model.safetensors").read_bytes()
    for name in ("answer/model.safetensors", "answer/history.json", "run.json"):
        (run / name).unlink()
    assert train(artifacts, run, "--stage", "answer", "--resume") == 0
    assert (run / "answer" / "model.safetensors").read_bytes() == weights


def test_a_start_that_fails_claims_no_folder(artifacts, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert train(artifacts, tmp_path / "run", "--model", str(empty)) == 1
    assert "expected a folder or a hub id" in capsys.readouterr().err
    assert train(artifacts, tmp_path / "run", "--stage", "answer") == 0


def test_hidden_answers_are_noticed_before_training(artifacts, tmp_path, capsys):
    root = tmp_path / "root"
    root.mkdir()
    table = pl.read_parquet(artifacts / "questions.parquet")
    hidden = pl.when(pl.col("split") == "test").then(None).otherwise(pl.col("answer"))
    table.with_columns(answer=hidden).write_parquet(root / "questions.parquet")
    assert train_main(["--artifacts", str(root), "--output", str(tmp_path / "run"), *QUICK]) == 1
    assert "have no answer to test" in capsys.readouterr().err


def test_evaluate_refuses_predictions_of_another_split(run, capsys):
    assert evaluate_main([str(run), "--split", "val"]) == 1
    assert "choose another --split" in capsys.readouterr().err


def test_what_is_cut_off_is_said(artifacts, tmp_path, caplog):
    arguments = ["--stage", "rationale", "--max-source", "20"]
    assert train(artifacts, tmp_path / "run", *arguments) == 0
    assert "longer than 20 tokens" in caplog.text
    (cut,) = {
        what["sources"]["num_cut"]
        for name, what in json.loads((tmp_path / "run" / "run.json").read_text())["cuts"].items()
        if name == "rationale test"
    }
    assert cut == len(select_split(read_questions(artifacts), "test"))


@pytest.mark.parametrize("prompt_format", ["QCM-LEA", "QCM-ALE"])
def test_one_stage_with_rationale_trains_on_whole_targets(
    artifacts, tmp_path, prompt_format, caplog
):
    """Would catch targets that are cut to the length of an answer, and lose it."""
    more = ["--stage", "answer", "--prompt-format", prompt_format, "--max-rationale", "120"]
    assert train(artifacts, tmp_path / "run", *more) == 0
    assert "targets are longer" not in caplog.text


def test_features_are_read_from_a_url(artifacts, tmp_path, monkeypatch):
    """Catches a second read of the index or the manifest by path."""
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("MMCOT_CACHE", str(tmp_path / "cache"))
    handler = partial(QuietHandler, directory=artifacts)
    quick = [*QUICK, "--stage", "answer", "--prompt-format", "QCM-A", "--artifacts", str(artifacts)]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/tiny"
        try:
            command = ["--features", url, "--output", str(tmp_path / "url"), *quick]
            assert train_main(command) == 0
        finally:
            server.shutdown()
    command = ["--features", str(artifacts / "tiny"), "--output", str(tmp_path / "path"), *quick]
    assert train_main(command) == 0
    runs = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("url", "path")]
    assert [run["features"] for run in runs] == [[url], [str((artifacts / "tiny").resolve())]]
    assert runs[0]["sha256"] == runs[1]["sha256"]
    predictions = [
        pl.read_parquet(tmp_path / name / "predictions.parquet") for name in ("url", "path")
    ]
    assert predictions[0].equals(predictions[1])


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
