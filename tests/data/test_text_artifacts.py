"""Captions, rationales and model inputs: what goes in comes out, and what is wrong is named."""

import json

import polars as pl
import pytest

from mmcot_data.captions import Caption, read_caption_json, read_captions, write_captions
from mmcot_data.errors import DataError
from mmcot_data.inputs import model_inputs, write_inputs
from mmcot_data.questions import Question
from mmcot_data.rationales import (
    Rationale,
    gold_rationales,
    kept_rationales,
    read_rationales,
    write_rationales,
)
from mmcot_data.text_artifacts import artifact_path, read_made_by

QUESTIONS = [
    Question(
        dataset="hand",
        question_id=question_id,
        split="test",
        position=position,
        question=f"q{question_id}?",
        choices=("yes", "no"),
        answer=answer,
        lecture="L.",
        solution="S.",
    )
    for position, (question_id, answer) in enumerate([("7", 0), ("42", 1), ("3", None)])
]
MADE_BY = {"model": "größe", "num_beams": 4}


def rationale(question_id, sample=0, **changes):
    return Rationale(
        question_id=question_id,
        sample=sample,
        prompt_format="QCM-E",
        **{"rationale": f"Solution: {question_id}/{sample}"} | changes,
    )


def test_captions_come_back_by_role_with_what_made_them(tmp_path):
    """A second picture's caption must not replace that of the question's picture."""
    path = tmp_path / "captions" / "vit-gpt2.parquet"
    captions = [
        Caption(question_id="42", role="question_2", caption="another"),
        Caption(question_id="42", caption="a map"),
        Caption(question_id="7", role="choice_0", caption="a leaf"),
    ]
    write_captions(path, captions, MADE_BY)
    assert read_captions(path) == {"42": "a map"}
    assert read_captions(path, role="choice_0") == {"7": "a leaf"}
    assert read_made_by(path) == MADE_BY
    assert pl.read_parquet(path).columns == ["question_id", "role", "caption"]


def test_two_captions_of_one_picture_are_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "a.parquet"
    twice = [Caption(question_id="42", caption=text) for text in ("x", "y")]
    with pytest.raises(DataError, match=r"\('42', 'question'\) occurs 2 times"):
        write_captions(path, twice, {})
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"model": "m", "max_length": 64, "captions": {"1": "a map", "20": ""}},
        {"1": "a map", "20": ""},
        {"1": ["a map"], "20": [""]},
        {"captions": {"1": ["a map"], "20": ""}},
    ],
)
def test_caption_files_of_all_known_shapes(tmp_path, content):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content))
    assert read_caption_json(path) == {"1": "a map", "20": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "found list"),
        ('{"captions": "none"}', "found str"),
        ('{"model": "m", "max_length": 64}', "'max_length': expected a text.*64"),
        ('{"1": ["a", "b"]}', r"question '1': expected a text or a list of one"),
    ],
)
def test_caption_files_of_other_shapes_are_refused_with_the_question(tmp_path, text, message):
    path = tmp_path / "captions.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_caption_json(path)
    assert str(path) in str(caught.value)


def test_rationales_round_trip(tmp_path):
    path = tmp_path / "rationales" / "teacher.parquet"
    rows = [
        rationale("42", 1, answer=1, correct=True),
        rationale("42", 0, answer=0, correct=False, kept=False, finish_reason="length"),
        rationale("7"),
    ]
    write_rationales(path, rows, MADE_BY, QUESTIONS)
    assert read_rationales(path, QUESTIONS) == rows
    assert read_made_by(path) == MADE_BY
    assert pl.read_parquet(path).columns == [
        "question_id",
        "sample",
        "rationale",
        "answer",
        "correct",
        "kept",
        "finish_reason",
        "prompt_format",
    ]


def test_the_first_kept_sample_is_the_lowest_number_not_the_first_row():
    rows = [
        rationale("42", 2),
        rationale("42", 1),
        rationale("42", 0, kept=False),
        rationale("7", 0, kept=False),
    ]
    assert kept_rationales(rows) == {"42": "Solution: 42/1"}


def test_duplicate_and_unknown_rationales_are_refused_at_both_ends(tmp_path):
    path = tmp_path / "r.parquet"
    with pytest.raises(DataError, match=r"r.parquet: question_id sample \('7', 3\) occurs 2"):
        write_rationales(path, [rationale("7", 3), rationale("42"), rationale("7", 3)], {})
    with pytest.raises(DataError, match="unknown questions, the first for '8'"):
        write_rationales(path, [rationale("7"), rationale("8")], {}, QUESTIONS)
    write_rationales(path, [rationale("8")], {})
    with pytest.raises(DataError, match="unknown questions, the first for '8'"):
        read_rationales(path, QUESTIONS)
    table = pl.read_parquet(path)
    pl.concat([table, table]).write_parquet(path)
    with pytest.raises(DataError, match=r"\('8', 0\) occurs 2"):
        read_rationales(path)


def test_damaged_tables_are_explained(tmp_path):
    path = tmp_path / "r.parquet"
    write_rationales(path, [rationale("7")], {})
    table = pl.read_parquet(path)
    table.drop("kept").write_parquet(path)
    with pytest.raises(DataError, match=r"expected the columns .*kept \(Boolean\)"):
        read_rationales(path)
    with pytest.raises(DataError, match="made_by"):
        read_made_by(path)
    table.with_columns(rationale=pl.lit(None, pl.String)).write_parquet(path)
    with pytest.raises(DataError, match="expected a rationale in each row, found 1 nulls"):
        read_rationales(path)
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="expected a parquet file"):
        read_rationales(path)
    with pytest.raises(DataError, match=r"x.parquet does not exist; producers in .*: r$"):
        read_rationales(tmp_path / "x.parquet")


def test_gold_rationales_are_right_where_the_answer_is_known(tmp_path):
    rows = gold_rationales(QUESTIONS, "QCM-E")
    assert [(r.question_id, r.rationale, r.answer, r.correct) for r in rows] == [
        ("7", "Solution: S.", 0, True),
        ("42", "Solution: S.", 1, True),
        ("3", "Solution: S.", None, None),
    ]
    write_rationales(tmp_path / "gold.parquet", rows, {"producer": "gold"}, QUESTIONS)


@pytest.mark.parametrize("producer", ["", "../x", "a/b", ".hidden"])
def test_a_producer_is_a_file_name(tmp_path, producer):
    with pytest.raises(DataError, match="producer"):
        artifact_path(tmp_path, "captions", producer)


def test_artifact_path(tmp_path):
    expected = tmp_path / "rationales" / "t5-base.v2.parquet"
    assert artifact_path(tmp_path, "rationales", "t5-base.v2") == expected


def test_inputs_are_joined_by_question_id_not_by_position(tmp_path):
    rationales = {"3": "R3", "42": "R42", "7": "R7", "99": "other split"}
    inputs = model_inputs(QUESTIONS, "QCMG-A", captions={"42": "a map"}, rationales=rationales)
    options = "Options: (A) yes (B) no"
    assert [(row.question_id, row.source, row.target) for row in inputs] == [
        ("7", f"Question: q7? Context: N/A {options} R7 Answer:", "The answer is (A)."),
        ("42", f"Question: q42? Context: a map {options} R42 Answer:", "The answer is (B)."),
        ("3", f"Question: q3? Context: N/A {options} R3 Answer:", None),
    ]


def test_a_missing_rationale_is_an_error_not_the_gold_one():
    with pytest.raises(DataError, match="2 of 3 questions have no rationale, the first is '42'"):
        model_inputs(QUESTIONS, "QCMG-A", rationales={"7": "R7"})


def test_inputs_are_written_as_parquet_and_as_json_lines(tmp_path):
    inputs = model_inputs(QUESTIONS, "QCM-A")
    expected = [
        {"question_id": row.question_id, "source": row.source, "target": row.target}
        for row in inputs
    ]
    write_inputs(tmp_path / "inputs.parquet", inputs)
    assert pl.read_parquet(tmp_path / "inputs.parquet").to_dicts() == expected
    write_inputs(tmp_path / "inputs.jsonl", inputs)
    lines = (tmp_path / "inputs.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == expected
    with pytest.raises(DataError, match=r"parquet or \.jsonl"):
        write_inputs(tmp_path / "inputs.csv", inputs)
