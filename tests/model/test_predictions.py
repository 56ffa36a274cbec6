"""Files of predictions: what goes in comes out, and what is wrong is named with its place."""

import polars as pl
import pytest

from mmcot_data.errors import DataError
from mmcot_data.questions import Question
from mmcot_model.evaluation import Prediction, read_predictions, write_predictions

QUESTIONS = [
    Question(
        dataset="hand",
        question_id=str(number),
        split="test",
        position=number,
        question="?",
        choices=("x", "y", "z"),
        answer=1,
    )
    for number in range(3)
]


def prediction(question_id, answer, **changes):
    return Prediction(question_id=question_id, answer=answer, **changes)


def test_predictions_round_trip(tmp_path):
    path = tmp_path / "predictions.parquet"
    predictions = [
        prediction("2", None, split="test", rationale="r", text="eh"),
        prediction("0", 2, split="test", rationale="", reference_rationale="g", text="(C)"),
    ]
    write_predictions(path, predictions)
    assert read_predictions(path, QUESTIONS) == predictions
    with pytest.raises(DataError, match="'0' has more than one"):
        write_predictions(path, [prediction("0", 1), prediction("0", 1)])


def test_predictions_of_another_program_need_two_columns(tmp_path):
    pl.DataFrame(
        {"question_id": ["0", "1"], "answer": [1, None], "score": [0.5, 0.1]}
    ).write_parquet(tmp_path / "p.parquet")
    (tmp_path / "p.jsonl").write_text(
        '{"question_id": "0", "answer": 1}\n{"question_id": "1", "answer": null, "n": 3}\n'
    )
    for name in ("p.parquet", "p.jsonl"):
        expected = [prediction("0", 1), prediction("1", None)]
        assert read_predictions(tmp_path / name, QUESTIONS) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no predictions"),
        ('{"question_id": "0"', "line 1: not valid JSON"),
        ('\n"0"', "line 2: expected a JSON object, found '0'"),
        ('{"question_id": "0"}', "line 1: lacks answer"),
        ('{"question_id": "0", "answer": 1}\n{"question_id": "9", "answer": 1}', "line 2.*'9' is"),
        ('{"question_id": 0, "answer": 1}', "question 0 is unknown.*as a string"),
        ('{"question_id": "0", "answer": 3}', "question '0' is 3; expected .* 0 to 2"),
        ('{"question_id": "0", "answer": -1}', "is -1; expected"),
        ('{"question_id": "0", "answer": "B"}', "is 'B'; expected"),
        ('{"question_id": "0", "answer": true}', "is True; expected"),
        ('{"question_id": "0", "answer": 1, "rationale": ["r"]}', "rationale is .*expected a text"),
        ('{"question_id": "0", "answer": 1}\n{"question_id": "0", "answer": 2}', "'0' has more"),
    ],
)
def test_wrong_predictions_are_named(tmp_path, text, message):
    path = tmp_path / "p.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path, QUESTIONS)
    assert str(path) in str(caught.value)


def test_prediction_files_of_other_kinds_are_explained(tmp_path):
    (tmp_path / "p.csv").write_text("question_id,answer\n")
    (tmp_path / "p.parquet").write_text("text")
    for name, message in [
        ("p.csv", "ends in .parquet or .jsonl"),
        ("p.parquet", "expected a parquet file"),
        ("none.jsonl", "does not exist"),
    ]:
        with pytest.raises(DataError, match=message):
            read_predictions(tmp_path / name, QUESTIONS)
