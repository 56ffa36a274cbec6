"""The report of two made-up runs, read back."""

import json
import re

import pytest
from PIL import Image

from mmcot_data.cli import main as data_main
from mmcot_data.errors import TrainingError
from mmcot_data.files import write_json
from mmcot_data.prompts import gold_rationale
from mmcot_data.questions import read_questions, select_split
from mmcot_model.cli.evaluate import main as mmcot_evaluate
from mmcot_model.evaluation import Prediction, write_predictions
from mmcot_model.settings.config import TrainConfig
from pipelines.report import write_report
from pipelines.reported_runs import accuracy_table, answered, is_right, read_run, skill_table


@pytest.fixture
def runs(sample, tmp_path):
    """One run that is always right and one that always answers (A)."""
    artifacts = tmp_path / "shards"
    assert data_main(["questions", str(sample), "--out", str(artifacts)]) == 0
    test = select_split(read_questions(artifacts), "test")
    for name in ("right", "first"):
        predictions = [
            Prediction(
                question_id=q.question_id,
                answer=q.answer if name == "right" else 0,
                rationale=gold_rationale(q, "QCM-E") if name == "right" else None,
                text="The answer is (A).",
            )
            for q in test
        ]
        write_predictions(tmp_path / name / "predictions.parquet", predictions)
        losses = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"train_runtime": 3.0}]
        write_json(tmp_path / name / "answer" / "history.json", losses)
        described = {"artifacts": str(artifacts), "test_split": "test"}
        write_json(tmp_path / name / "run.json", described)
        config = TrainConfig(artifacts=artifacts, output=tmp_path / name)
        write_json(tmp_path / name / "config.json", config.to_json())
    return [read_run(name, tmp_path / name) for name in ("first", "right")], test


def test_tables_count_what_is_there(runs):
    """Would catch accuracies of the wrong run or over the wrong questions."""
    reported, test = runs
    header, counts, first, right = accuracy_table(reported)
    assert header == ["run", "NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "AVG"]
    assert counts[-1] == str(len(test))
    assert set(right[1:]) <= {"100.0", "-"}
    share = 100 * sum(q.answer == 0 for q in test) / len(test)
    assert first[-1] == f"{share:.1f}"
    rows = {row[0]: row for row in skill_table(reported)}
    image = [q for q in test if q.has_image]
    assert rows["all image questions"][2] == str(len(image))
    chance = 100 * sum(1 / len(q.choices) for q in image) / len(image)
    assert rows["all image questions"][3] == f"{chance:.1f}"


def test_unreadable_answers_count_as_the_run_counts_them(runs, tmp_path):
    """Would catch a report whose accuracies are others than those of the run's scores.json."""
    _, test = runs
    folder = tmp_path / "first"
    config = TrainConfig(artifacts=tmp_path / "shards", output=folder, failures="random", seed=7)
    write_json(folder / "config.json", config.to_json())
    unread = [Prediction(question_id=q.question_id, answer=None, text="?") for q in test]
    write_predictions(folder / "predictions.parquet", unread)
    assert mmcot_evaluate([str(folder), "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    run = read_run("drawn", folder)
    assert run.scores.to_json() == scores
    right = [question for question in test if is_right(run, question)]
    assert 0 < len(right) < len(test)
    assert f"{100 * len(right) / len(test):.2f}" == scores["answer"]["acc_average"]
    all_questions = skill_table([run])[-2:]
    assert sum(float(row[4]) * int(row[2]) / 100 for row in all_questions) == pytest.approx(
        len(right), abs=0.1
    )
    letter = "ABCDE"[right[0].answer]
    assert answered(run, right[0]) == f"nothing, which counts as ({letter})"


def test_report_is_a_page_on_its_own(runs, sample, tmp_path):
    reported, test = runs
    page = write_report(tmp_path / "report", reported, sample).read_text()
    shown = min(60, len(test))
    assert page.count('class="card"') == page.count("answers (") == shown
    assert page.count(": right</p>") == shown
    assert not re.search(r'(src|href)="(?!data:)', page), "nothing is loaded from elsewhere"
    for question in test[:5]:
        if question.has_image:
            assert question.question in page
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "index.html",
        "contact-sheet.png",
        "curves.png",
        "table.md",
    }
    for name in ("contact-sheet.png", "curves.png"):
        with Image.open(tmp_path / "report" / name) as image:
            image.load()
    table = (tmp_path / "report" / "table.md").read_text()
    assert "| right | 100.0 |" in table


def test_unfinished_run_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({}))
    with pytest.raises(TrainingError, match=r"run\.json does not exist"):
        read_run("x", tmp_path / "run")
