"""Scores against hand counts, and against values of nltk 3.6.6, rouge 1.0.1 and the reference."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcot_data.errors import DataError
from mmcot_data.questions import Question
from mmcot_model.evaluation import (
    Prediction,
    evaluate,
    render_table,
    score_answers,
    score_rationales,
)
from mmcot_model.evaluation.rationale_scores import bleu, rouge_l

SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = SHARED / "reference" / "mm-cot-evaluation.json"
PROBLEMS = SHARED / "scienceqa" / "real" / "problems.json"


def question(question_id, **changes):
    record = {
        "dataset": "hand",
        "question_id": question_id,
        "split": "test",
        "position": int(question_id),
        "question": "?",
        "choices": ("x", "y", "z"),
        "answer": 1,
        "subject": "natural science",
        "grade": "grade2",
        "solution": f"because of {question_id} things",
    }
    return Question(**record | changes)


# Right answers are 1 everywhere.
QUESTIONS = [
    question("0", hint="h", has_image=True),
    question("1", hint="h", grade="grade7"),
    question("2", subject="social science", has_image=True, grade="grade6"),
    question("3", subject="social science", grade="grade12", image_roles=("choice_0",)),
    question("4", grade="kindergarten"),
]


def prediction(question_id, answer, **changes):
    return Prediction(question_id=question_id, answer=answer, **changes)


def test_nine_buckets_with_hand_counted_members():
    """Catches text and image context taken as exclusive, and choice images counted as context."""
    scores = score_answers(QUESTIONS, {"0": 1, "1": 0, "2": 1, "3": 1, "4": 1})
    assert {key: (s.num_correct, s.n) for key, s in scores.buckets.items()} == {
        "acc_natural": (2, 3),
        "acc_social": (2, 2),
        "acc_language": (0, 0),
        "acc_has_text": (1, 2),
        "acc_has_image": (2, 2),
        "acc_no_context": (2, 2),
        "acc_grade_1_6": (2, 2),
        "acc_grade_7_12": (1, 2),
        "acc_average": (4, 5),
    }
    assert scores.num_failed == 0
    assert scores.buckets["acc_language"].accuracy is None
    assert scores.buckets["acc_average"].accuracy == 80


def test_missing_and_null_answers_are_wrong_and_counted():
    """The reference draws a random choice here, which is right in a third of the cases."""
    scores = score_answers(QUESTIONS, {"0": 1, "1": None, "9": 1})
    assert scores.num_failed == 4
    assert scores.buckets["acc_average"].accuracy == 20


def test_a_hidden_answer_cannot_be_scored():
    with pytest.raises(DataError, match=r"question '5'.*hides its answer"):
        score_answers([*QUESTIONS, question("5", answer=None)], {})


@pytest.mark.parametrize(
    ("predicted", "reference", "bleu1", "bleu4", "rouge"),
    [
        (
            "the cat sat on the mat. it purred",
            "the cat is on the mat. it purred loudly",
            0.772184789761521,
            0.5247357977607321,
            0.7999999950222222,
        ),
        (
            "magnets attract",
            "magnets that are near attract each other",
            0.0820849986238988,
            1.495450763465957e-232,
            0.4444444409876544,
        ),
        ("a b c", "a b c", 1.0, 1.2213386697554703e-77, 0.999999995),
        ("x y", "a b", 0.0, 0.0, 0.0),
        ("b c. a b", "a b. c a b", 0.7788007830714049, 0.7788007830714049, 0.999999995),
        ("a b a c", "b c a", 0.75, 1.6954057018456463e-231, 0.6666666616666668),
    ],
)
def test_scores_of_single_texts_equal_those_of_nltk_and_rouge(
    predicted, reference, bleu1, bleu4, rouge
):
    """Catches smoothing, another brevity penalty, words counted more than once, other sentences."""
    assert bleu(predicted, reference, max_order=1) == pytest.approx(bleu1, rel=1e-12)
    assert bleu(predicted, reference, max_order=4) == pytest.approx(bleu4, rel=1e-9, abs=0)
    assert rouge_l(predicted, reference) == pytest.approx(rouge, rel=1e-12)


def test_rouge_takes_prediction_and_reference_in_the_exchanged_order_of_the_original():
    assert rouge_l("b c. a b", "a b. c a b") == pytest.approx(0.999999995)
    assert rouge_l("a b. c a b", "b c. a b") == pytest.approx(2 / 3)


def test_a_blank_between_full_stops_is_a_word_as_in_the_original():
    # rouge 1.0.1 says 0.8571428522448981: three matches of four predicted and three wanted words
    assert rouge_l("a b. . c", "a b. c") == pytest.approx(6 / 7)


def test_texts_on_which_the_original_ends_in_an_error_score_zero():
    for predicted, reference in [(".", "a b c"), ("..", "a"), ("a", "."), (".", ".")]:
        assert rouge_l(predicted, reference) == 0
        assert bleu(predicted, reference, max_order=4) == 0


def test_empty_texts_are_left_out_as_in_the_reference():
    """An empty prediction counts in BLEU but not in ROUGE, an empty reference in neither."""
    scores = score_rationales([("a b c d", "a b c d"), ("  ", "a b"), ("a", " ")])
    assert scores.bleu1 == pytest.approx(50)
    assert scores.bleu4 == pytest.approx(50)
    assert scores.rouge == pytest.approx(100)
    nothing = score_rationales([])
    assert (nothing.bleu1, nothing.bleu4, nothing.rouge) == (None, None, None)


_ODD = (
    st.text(max_size=12) | st.text("ab. \n", max_size=12) | st.sampled_from(["", ".", "..", " . "])
)


@settings(deadline=None)
@given(st.lists(st.tuples(_ODD, _ODD)))
def test_any_texts_score_between_0_and_100(pairs):
    """Catches what the original ends with: an error on texts of full stops, blanks of all kinds."""
    scores = score_rationales(pairs)
    for value in (scores.bleu1, scores.bleu4, scores.rouge):
        assert value is None or 0 <= value <= 100 + 1e-9


def test_json_has_the_keys_of_the_reference_and_more():
    predictions = [
        prediction("0", 1, rationale="Solution: because of 0 things"),
        prediction("1", 2, rationale="same words", reference_rationale="same words"),
        prediction("2", None),
    ]
    scores = evaluate(QUESTIONS[:3], predictions)
    assert scores.to_json() == {
        "answer": {
            "acc_natural": "50.00",
            "acc_social": "0.00",
            "acc_language": None,
            "acc_has_text": "50.00",
            "acc_has_image": "50.00",
            "acc_no_context": None,
            "acc_grade_1_6": "50.00",
            "acc_grade_7_12": "0.00",
            "acc_average": "33.33",
        },
        "n": {
            "acc_natural": 2,
            "acc_social": 1,
            "acc_language": 0,
            "acc_has_text": 2,
            "acc_has_image": 2,
            "acc_no_context": 0,
            "acc_grade_1_6": 2,
            "acc_grade_7_12": 1,
            "acc_average": 3,
        },
        "interval": {
            "acc_natural": {"low": 9.45, "high": 90.55},
            "acc_social": {"low": 0.0, "high": 79.35},
            "acc_language": None,
            "acc_has_text": {"low": 9.45, "high": 90.55},
            "acc_has_image": {"low": 9.45, "high": 90.55},
            "acc_no_context": None,
            "acc_grade_1_6": {"low": 9.45, "high": 90.55},
            "acc_grade_7_12": {"low": 0.0, "high": 79.35},
            "acc_average": {"low": 6.15, "high": 79.23},
        },
        "num_failed": 1,
        "failures": "wrong",
        "rationale": {
            "bleu1": pytest.approx(200 / 3),
            "bleu4": pytest.approx(100 / 3),  # two words have no 4-gram
            "rouge": pytest.approx(100),
        },
    }


def test_without_any_rationale_there_is_no_rationale_score():
    """Not zero: a model that answers in one step writes none."""
    scores = evaluate(QUESTIONS, [prediction("0", 1)])
    assert set(scores.to_json()["rationale"].values()) == {None}
    assert "Rationales: none." in render_table(scores)


def test_the_default_reference_is_the_gold_rationale_of_the_asked_format():
    asked = [question("0", lecture="one two three")]
    predictions = [prediction("0", 1, rationale="Solution: because of 0 things")]
    assert evaluate(asked, predictions, rationale_format="QCM-E").rationale.bleu1 == 100
    assert evaluate(asked, predictions).rationale.bleu1 < 100


def test_an_empty_reference_of_the_file_is_not_replaced_by_gold():
    predictions = [prediction("0", 1, rationale="because", reference_rationale="")]
    assert evaluate(QUESTIONS[:1], predictions).rationale.bleu1 is None


def test_table_shows_every_bucket_with_n():
    table = render_table(evaluate(QUESTIONS, [prediction("0", 1), prediction("2", 1)]))
    cells = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in table.splitlines()
        if line.startswith("|")
    ]
    assert [(row[0], *row[2:]) for row in cells[2:]] == [
        ("NAT", "3", "33.33", "6.1 to 79.2"),
        ("SOC", "2", "50.00", "9.5 to 90.5"),
        ("LAN", "0", "-", "-"),
        ("TXT", "2", "50.00", "9.5 to 90.5"),
        ("IMG", "2", "100.00", "34.2 to 100.0"),
        ("NO", "2", "0.00", "0.0 to 65.8"),
        ("G1-6", "2", "100.00", "34.2 to 100.0"),
        ("G7-12", "2", "0.00", "0.0 to 65.8"),
        ("AVG", "5", "40.00", "11.8 to 76.9"),
    ]
    assert "3 questions without an answer" in table


def test_scores_of_rationales_alone_hold_no_accuracy():
    """Catches 0 % for a stage that answers nothing."""
    predictions = [prediction("0", None, rationale="r", reference_rationale="r")]
    scores = evaluate(QUESTIONS[:1], predictions, answers=False)
    assert set(scores.to_json()["answer"].values()) == {None}
    assert (scores.num_failed, scores.rationale.bleu1) == (0, 100)
    assert "no answers to score" in render_table(scores)


@pytest.mark.skipif(
    not (GOLDEN.exists() and PROBLEMS.exists()), reason="the reference's scores are not here"
)
def test_scores_of_the_reference_on_real_questions():
    """481 real test questions, scored by the reference's own code."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    problems = json.loads(PROBLEMS.read_text(encoding="utf-8"))
    questions = [
        question(
            key,
            choices=tuple(problems[key]["choices"]),
            has_image=bool(problems[key]["image"]),
            **{k: problems[key][k] for k in ("answer", "hint", "subject", "grade")},
        )
        for key in golden["answers"]
    ]
    predictions = [
        prediction(
            key,
            answer,
            rationale=golden["rationale_predictions"][key],
            reference_rationale=golden["rationale_references"][key],
        )
        for key, answer in golden["answers"].items()
    ]
    scores = evaluate(questions, predictions).to_json()
    assert scores["answer"] == golden["scores"]["answer"]
    assert scores["rationale"] == pytest.approx(golden["scores"]["rationale"], rel=1e-12)
    assert list(scores["n"].values()) == [306, 74, 101, 263, 167, 151, 311, 170, 481]
