"""Multimodal-CoT's prediction files: recognised, checked, and written as they are read."""

import json
from dataclasses import replace

import pytest

from mmcot_data.errors import DataError
from mmcot_data.prompts import build_prompt, gold_rationale
from mmcot_data.questions import Question
from mmcot_model.evaluation import Prediction, evaluate
from mmcot_model.evaluation.reference_files import (
    read_reference_predictions,
    write_reference_predictions,
)

QUESTIONS = [
    Question(
        dataset="hand",
        question_id=f"q{place}",
        split="test",
        position=place,
        question="?",
        choices=("x", "y", "z"),
        answer=place % 3,
        lecture=f"Lecture {place} about {{things}}.",
        solution=f"It is {place}.",
    )
    for place in range(12)
]
"""In the official order; tables hold them in another."""
STORED = QUESTIONS[::-1]


def write(path, preds, labels=None):
    content = {"preds": preds} if labels is None else {"preds": preds, "labels": labels}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def targets(prompt_format):
    return [build_prompt(question, prompt_format).target for question in QUESTIONS]


def test_texts_of_the_answer_stage_get_their_questions(tmp_path):
    """Catches the order of the table instead of the official one."""
    preds = [f"The answer is ({'ABC'[place % 3]})." for place in range(11)] + ["eh "]
    path = write(tmp_path / "p.json", preds, targets("QCMG-A"))
    found = read_reference_predictions(path, STORED, "test")
    assert found.has_answers
    assert found.prompt_format == "QCM-A"
    assert [p.question_id for p in found.predictions] == [q.question_id for q in QUESTIONS]
    assert [p.answer for p in found.predictions] == [*(q.answer for q in QUESTIONS[:11]), None]
    assert found.predictions[-1].text == "eh"


@pytest.mark.parametrize("prompt_format", ["QCM-E", "QCM-LE", "QCM-LEA", "QCM-ALE"])
def test_what_a_file_answers_is_recognised_by_its_labels(tmp_path, prompt_format):
    """Labels are as a T5 tokenizer leaves them: without braces, cut off at its limit."""
    labels = [text.replace("{", "").replace("}", "")[:30] for text in targets(prompt_format)]
    found = read_reference_predictions(write(tmp_path / "p.json", labels, labels), STORED, "test")
    assert found.prompt_format == prompt_format
    rationales = [prediction.rationale for prediction in found.predictions]
    if prompt_format in ("QCM-E", "QCM-LE"):
        assert rationales == labels
        assert not found.has_answers
        scores = evaluate(QUESTIONS, found.predictions, answers=False)
        assert scores.rationale.bleu1 == pytest.approx(100)
    else:
        assert rationales == [None] * len(QUESTIONS)
        assert found.has_answers


def test_files_without_labels_are_recognised_by_their_texts(tmp_path):
    answers = write(tmp_path / "a.json", ["The answer is (A)."] * 11 + ["?"])
    rationales = write(tmp_path / "r.json", ["Solution: because"] * 12)
    assert read_reference_predictions(answers, STORED, "test").has_answers
    found = read_reference_predictions(rationales, STORED, "test")
    assert not found.has_answers
    assert found.predictions[0].reference_rationale is None


def test_files_of_another_order_or_data_set_are_refused(tmp_path):
    """The reference would pair each text with another question's answer, silently."""
    for labels in (targets("QCM-E")[::-1], targets("QCM-A")[1:] + targets("QCM-A")[:1]):
        path = write(tmp_path / "p.json", labels, labels)
        with pytest.raises(DataError, match="its labels are not the gold texts of the split test"):
            read_reference_predictions(path, STORED, "test")


def many(num_questions):
    return [replace(QUESTIONS[0], question_id=str(i), position=i) for i in range(num_questions)]


@pytest.mark.parametrize("num_shifted", [15, 60])
def test_a_tail_that_is_shifted_is_refused(tmp_path, num_shifted):
    """A text was left out near the end: most labels agree, those behind it do not."""
    questions = [replace(q, solution=f"It is number {q.question_id}.") for q in many(600)]
    labels = [build_prompt(question, "QCM-E").target for question in questions]
    labels = labels[:-num_shifted] + labels[-num_shifted + 1 :] + ["Solution: more."]
    path = write(tmp_path / "p.json", labels, labels)
    with pytest.raises(DataError, match=f"{600 - num_shifted} of 600, expected 99%"):
        read_reference_predictions(path, questions, "test")


def test_labels_that_are_others_are_counted(tmp_path):
    questions = many(200)
    labels = ["The answer is (A)."] * 198 + ["The answer is (B)."] * 2
    path = write(tmp_path / "p.json", labels, labels)
    assert read_reference_predictions(path, questions, "test").num_unlike == 2


def test_letters_that_a_tokenizer_writes_in_a_plain_form_agree(tmp_path):
    """T5's turns a raised 2 into 2; nearly all labels of a unit's questions would be refused."""
    questions = [replace(q, solution="It has 3 m² of the ﬁeld.") for q in many(3)]
    labels = ["Solution: It has 3 m2 of the field."] * 3
    found = read_reference_predictions(write(tmp_path / "p", labels, labels), questions, "test")
    assert (found.prompt_format, found.num_unlike) == ("QCM-E", 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"preds": ["x"]}', "has 1 texts in 'preds'.* has 12 questions"),
        (json.dumps({"preds": ["x"] * 12, "labels": ["x"]}), "has 1 texts in 'labels'"),
        (json.dumps({"preds": [1] * 12}), "list of texts 'preds'"),
        ('{"answers": []}', "list of texts 'preds'"),
        ('["x"]', "list of texts 'preds'"),
        ("{", "not valid JSON"),
        (b"\xff", "text in UTF-8"),
        (None, "does not exist"),
    ],
)
def test_other_files_are_explained(tmp_path, content, message):
    path = tmp_path / "p.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message):
        read_reference_predictions(path, STORED, "test")


@pytest.mark.parametrize("prompt_format", ["QCM-E", "QCM-LE"])
def test_rationales_round_trip(tmp_path, prompt_format):
    predictions = [
        Prediction(question_id=q.question_id, answer=None, rationale=f"Solution: {q.question_id}")
        for q in STORED
    ]
    path = tmp_path / "p.json"
    scores = evaluate(QUESTIONS, predictions, rationale_format=prompt_format, answers=False)
    write_reference_predictions(path, QUESTIONS, predictions, scores, prompt_format=prompt_format)
    found = read_reference_predictions(path, STORED, "test")
    assert found.prompt_format == prompt_format
    for question, prediction in zip(QUESTIONS, found.predictions, strict=True):
        assert prediction.rationale == f"Solution: {question.question_id}"
        assert prediction.reference_rationale == gold_rationale(question, prompt_format)


def test_no_question_may_be_left_out_of_a_list(tmp_path):
    predictions = [Prediction(question_id="q1", answer=1)]
    scores = evaluate(QUESTIONS, predictions)
    with pytest.raises(DataError, match="11 of 12 questions have no prediction, the first is 'q0'"):
        write_reference_predictions(tmp_path / "p.json", QUESTIONS, predictions, scores)
