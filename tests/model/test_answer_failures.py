"""Intervals of accuracies, and what counts for a question without an answer."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcot_data.questions import Question
from mmcot_model.evaluation import Prediction, evaluate, settled_answers
from mmcot_model.evaluation.intervals import wilson_interval


def questions(number, num_choices=5):
    return [
        Question(
            dataset="hand",
            question_id=str(place),
            split="test",
            position=place,
            question="?",
            choices=tuple("abcdefgh"[:num_choices]),
            answer=1,
        )
        for place in range(number)
    ]


@pytest.mark.parametrize(
    ("num_correct", "n", "low", "high"),
    # scipy 1.17's binomtest(...).proportion_ci(method="wilson")
    [
        (0, 10, 0.0, 27.753279986288926),
        (5, 10, 23.659309051256795, 76.34069094874320),
        (390, 481, 77.33990423110198, 84.32973943494788),
        (10, 10, 72.24672001371106, 100.0),
    ],
)
def test_intervals_equal_those_of_scipy(num_correct, n, low, high):
    assert wilson_interval(num_correct, n) == pytest.approx((low, high), rel=1e-12)


@settings(deadline=None)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_ends_of_an_interval_solve_the_score_equation(counts):
    """Its definition: the true shares that lie 1.96 standard errors from what was seen."""
    num_correct, n = counts
    low, high = (end / 100 for end in wilson_interval(num_correct, n))
    share = num_correct / n
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        deviation = 1.959963984540054**2 * end * (1 - end) / n
        assert math.isclose((share - end) ** 2, deviation, rel_tol=1e-6, abs_tol=1e-12)


def test_no_questions_have_no_interval():
    assert wilson_interval(0, 0) is None


def test_draws_do_not_depend_on_other_questions():
    """The reference's do: one failure more, and all later draws are others."""
    asked = questions(40)
    everything = settled_answers(asked, {}, "random", seed=3)
    for some in (asked[::-1], asked[7:9]):
        drawn = settled_answers(some, {}, "random", seed=3)
        assert drawn == {
            question.question_id: everything[question.question_id] for question in some
        }
    assert everything != settled_answers(asked, {}, "random", seed=4)


def test_draws_are_of_five_options_alike():
    """Also for two choices: so the reference draws."""
    drawn = list(settled_answers(questions(5000, 2), {}, "random").values())
    counts = [drawn.count(index) for index in range(5)]
    assert sum(counts) == 5000
    assert all(abs(count - 1000) < 5 * math.sqrt(5000 * 0.2 * 0.8) for count in counts)


def test_letters_that_are_no_choice_are_treated_as_in_the_reference():
    """Up to E they are wrong answers, beyond it and twice in a text they are draws."""
    asked = questions(400, 2)

    def settled(text):
        given = {
            q.question_id: Prediction(question_id=q.question_id, answer=None, text=text)
            for q in asked
        }
        return set(settled_answers(asked, given, "random").values())

    assert settled("The answer is (D).") == {3}
    for text in ("The answer is (F).", "The answer is (A). The answer is (A).", "", None):
        assert settled(text) == {0, 1, 2, 3, 4}


def test_failures_are_counted_whatever_counts_for_them():
    """Catches a count of 0 because draws have filled the gaps."""
    asked = questions(200)
    given = [Prediction(question_id=q.question_id, answer=1) for q in asked[:100]]
    wrong, drawn = (evaluate(asked, given, failures=each) for each in ("wrong", "random"))
    assert wrong.num_failed == drawn.num_failed == 100
    assert wrong.buckets["acc_average"].num_correct == 100
    assert 105 <= drawn.buckets["acc_average"].num_correct <= 135
