"""mmcot-evaluate: which questions it scores, what it writes, how it explains what is wrong."""

import json
import subprocess
import sys

import pytest

from mmcot_data.questions import Question, write_questions
from mmcot_model.cli.evaluate import main
from mmcot_model.evaluation import Prediction, write_predictions
from mmcot_model.settings.config import TrainConfig


def question(question_id, split="test", **changes):
    return Question(
        dataset="hand",
        question_id=question_id,
        split=split,
        position=int(question_id),
        question="?",
        choices=("x", "y"),
        answer=1,
        **changes,
    )


@pytest.fixture
def run(tmp_path):
    """A finished run beside its artifact root; one prediction is for the val split."""
    write_questions(
        tmp_path / "shards" / "questions.parquet",
        [
            question("0", skill="add"),
            question("1", skill="add"),
            question("2", skill="read"),
            question("3", skill="read", grade="grade3"),
            question("5", split="val"),
        ],
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
    write_config(folder)
    return folder


def write_config(folder, **settings):
    config = TrainConfig(artifacts=folder, output=folder, **settings)
    (folder / "config.json").write_text(json.dumps(config.to_json()))


def test_command_scores_a_run_from_any_working_folder(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir("/")
    output = tmp_path / "out" / "scores.json"
    assert main([str(run), "--json", str(output)]) == 0
    captured = capsys.readouterr()
    assert "| AVG    | all questions    | 4 |    25.00 |  4.6 to 69.9 |" in captured.out
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
    assert "| AVG    | all questions    | 1 |   100.00 | 20.7 to 100.0 |" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run", "--predictions", "p.jsonl"],
        ["--predictions", "p.jsonl"],
        ["run", "--split", "x"],
        ["run", "--where", "skill"],
        ["run", "--where", "answer=1"],
        ["run", "--features", "shards/detr"],
        ["run", "--error-analysis", "--where", "skill=x"],
        ["run", "--export-reference", "p.json", "--where", "skill=x"],
        ["--predictions", "p.jsonl", "--artifacts", "a", "--teacher-forced"],
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


def scores_of(run, tmp_path, *arguments):
    output = tmp_path / "scores.json"
    assert main([str(run), "--json", str(output), *arguments]) == 0
    return json.loads(output.read_text())


def test_command_scores_the_questions_of_a_skill(run, tmp_path, capsys):
    """Catches conditions that are forgotten, and alternatives taken as all to be fulfilled."""
    assert scores_of(run, tmp_path, "--where", "skill=add")["n"]["acc_average"] == 2
    assert "2 of 4 questions of test: skill=add" in capsys.readouterr().out
    both = scores_of(run, tmp_path, "--where", "skill=add", "--where", "skill=read")
    assert both["n"]["acc_average"] == 4
    assert main([str(run), "--where", "skill=adds"]) == 1
    assert "no question has the skill 'adds'; there are: 'add', 'read'" in capsys.readouterr().err


def test_command_takes_failures_and_seed_from_the_run(run, tmp_path):
    """Catches scores that differ from those that the run itself wrote."""
    assert scores_of(run, tmp_path)["failures"] == "wrong"
    write_config(run, failures="random", seed=7)
    drawn = scores_of(run, tmp_path)
    assert (drawn["failures"], drawn["num_failed"]) == ("random", 3)
    assert drawn == scores_of(run, tmp_path, "--failures", "random", "--seed", "7")
    assert scores_of(run, tmp_path, "--failures", "wrong")["answer"]["acc_average"] == "25.00"


def test_command_prints_published_figures_and_says_what_is_not_comparable(run, capsys):
    assert main([str(run), "--paper"]) == 0
    printed = capsys.readouterr().out
    assert "85.79 | 84.44 | 85.31 |" in printed
    assert "a is not comparable: questions of hand, not of ScienceQA." in printed


def test_command_exports_and_reads_files_of_the_reference(run, tmp_path, capsys):
    """Catches another order, and texts that are not what is parsed again."""
    write_predictions(
        run / "predictions.parquet",
        [
            Prediction(question_id="3", answer=1, text="The answer is (B)."),
            Prediction(question_id="0", answer=None, text="hm"),
            Prediction(question_id="2", answer=0),
            Prediction(question_id="1", answer=1, text="So: The answer is (B)"),
        ],
    )
    path = tmp_path / "predictions_ans_test.json"
    before = scores_of(run, tmp_path, "--export-reference", str(path))
    content = json.loads(path.read_text())
    assert content["preds"] == [
        "hm",
        "So: The answer is (B)",
        "The answer is (A).",
        "The answer is (B).",
    ]
    assert content["labels"] == ["The answer is (B)."] * 4
    assert content["num_fail"] == 1
    assert content["scores"]["answer"] == before["answer"]
    output = tmp_path / "again.json"
    arguments = ["--predictions", str(path), "--artifacts", str(tmp_path / "shards")]
    assert main([*arguments, "--json", str(output)]) == 0
    assert json.loads(output.read_text()) == before
    capsys.readouterr()
    assert main([*arguments, "--split", "val"]) == 1
    assert "has 4 texts in 'preds', the split val" in capsys.readouterr().err


def test_command_says_how_sure_the_order_of_a_list_is(tmp_path, capsys):
    """Catches scores of texts that stand at other questions, with nothing said about it."""
    write_questions(
        tmp_path / "shards" / "questions.parquet", [question(str(place)) for place in range(200)]
    )
    path = tmp_path / "p.json"
    texts = ["The answer is (B)."] * 200
    arguments = ["--predictions", str(path), "--artifacts", str(tmp_path / "shards")]
    for content, message in (
        ({"preds": texts}, "has no labels: whether its texts are in the order of the split is not"),
        ({"preds": texts, "labels": texts}, ""),
        (
            {"preds": texts, "labels": [*texts[:-1], "The answer is (A)."]},
            "1 of its 200 labels are not the gold texts",
        ),
    ):
        path.write_text(json.dumps(content))
        assert main(arguments) == 0
        error = capsys.readouterr().err
        assert message in error
        assert bool(error) == bool(message)


def test_command_compares_no_rationales_with_the_paper(run, tmp_path, capsys):
    """Catches minutes with a model, and a table, before what was known from the start."""
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"preds": ["Solution: it is."] * 4}))
    arguments = ["--predictions", str(path), "--artifacts", str(tmp_path / "shards"), "--paper"]
    assert main([*arguments, "--similarity", str(tmp_path / "no model")]) == 1
    captured = capsys.readouterr()
    assert "holds rationales only: --paper compares answers" in captured.err
    assert captured.out == ""


def test_scoring_imports_no_torch(run):
    """Blocks the import in a fresh process."""
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers'):\n"
        "    sys.modules[name] = None\n"
        "from mmcot_model.cli.evaluate import main\n"
        "assert main([sys.argv[1], '--paper']) == 0\n"
        "sys.exit(main([sys.argv[1], '--error-analysis']))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(run)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 1, finished.stderr
    assert "is not installed; --similarity, --teacher-forced and" in finished.stderr
    assert "pip install 'mmcot[train]'" in finished.stderr
