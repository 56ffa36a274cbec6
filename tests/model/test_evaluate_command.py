"""mmcot-evaluate: which questions it scores, what it writes, how it explains what is wrong."""

import json

import pytest

from mmcot_data.questions import Question, write_questions
from mmcot_model.cli.evaluate import main
from mmcot_model.evaluation import Prediction, write_predictions


def question(question_id, split="test"):
    return Question(
        dataset="hand",
        question_id=question_id,
        split=split,
        position=int(question_id),
        question="?",
        choices=("x", "y"),
        answer=1,
    )


@pytest.fixture
def run(tmp_path):
    """A finished run beside its artifact root; one prediction is for the val split."""
    write_questions(
        tmp_path / "shards" / "questions.parquet",
        [question("0"), question("1"), question("2"), question("3"), question("5", split="val")],
    )
    folder = tmp_path / "runs" / "a"
    write_predictions(
        folder / "predictions.parquet",
        [
            Prediction(question_id="0", answer=1, split="test"),
            Prediction(question_id="5", answer=1, split="val"),
        ],
    )
    (folder / "run.json").write_text('{"artifacts": "../../shards", "test_split": "test"}')
    return folder


def test_command_scores_a_run_from_any_working_folder(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir("/")
    output = tmp_path / "out" / "scores.json"
    assert main([str(run), "--json", str(output)]) == 0
    captured = capsys.readouterr()
    assert "| AVG    | all questions    | 4 |    25.00 |" in captured.out
    assert "1 of 2 predictions are for questions outside of the split test" in captured.err
    scores = json.loads(output.read_text())
    assert scores["answer"]["acc_average"] == "25.00"
    assert scores["n"]["acc_average"] == 4


def test_command_scores_a_file_of_predictions(run, tmp_path, capsys):
    path = tmp_path / "p.jsonl"
    path.write_text('{"question_id": "5", "answer": 1, "rationale": "r"}\n')
    shards = str(tmp_path / "shards")
    assert main(["--predictions", str(path), "--artifacts", shards, "--split", "val"]) == 0
    captured = capsys.readouterr()
    assert "| AVG    | all questions    | 1 |   100.00 |" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run", "--predictions", "p.jsonl"],
        ["--predictions", "p.jsonl"],
        ["run", "--split", "x"],
    ],
)
def test_command_refuses_wrong_usage_with_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: mmcot-evaluate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run_json", "message"),
    [
        (None, "run.json does not exist; expected the output folder"),
        ("{", "not valid JSON"),
        ('{"artifacts": "x"}', "'test_split'"),
        ('{"artifacts": "none", "test_split": "test"}', "questions.parquet does not exist"),
        ('{"artifacts": "../../shards", "test_split": "exam"}', "no split 'exam'"),
    ],
)
def test_command_explains_errors_in_one_paragraph_with_exit_code_1(run, capsys, run_json, message):
    if run_json is None:
        (run / "run.json").unlink()
    else:
        (run / "run.json").write_text(run_json)
    assert main([str(run)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("mmcot-evaluate: error: ")
    assert error.count("\n") == 1
