"""The published rows, and the subsets that can be chosen."""

from dataclasses import replace

import pytest

from mmcot_data.errors import DataError
from mmcot_data.questions import Question
from mmcot_model.evaluation import Prediction, evaluate
from mmcot_model.evaluation.published import PUBLISHED, comparability, render_paper_table
from mmcot_model.evaluation.subsets import Condition, select_where

QUESTION = Question(
    dataset="scienceqa",
    question_id="0",
    split="test",
    position=0,
    question="?",
    choices=("x", "y"),
    answer=1,
    subject="natural science",
    skill="add",
    grade="grade3",
)


def asked(number, **changes):
    return [
        replace(QUESTION, question_id=str(place), position=place, **changes)
        for place in range(number)
    ]


def test_averages_of_published_rows_lie_within_their_buckets():
    """Catches figures in another order: an average lies between those of disjoint parts of it."""
    for row in PUBLISHED:
        assert len(row.accuracies) == 9
        if None not in row.accuracies:
            natural, social, language, _, _, _, lower, upper, average = row.accuracies
            assert min(natural, social, language) <= average <= max(natural, social, language)
            assert min(lower, upper) <= average <= max(lower, upper)
            # the subjects' questions in ScienceQA's test split; the rows are rounded
            subjects = (2252 * natural + 889 * social + 1100 * language) / 4241
            assert subjects == pytest.approx(average, abs=0.02), row.model


def test_scores_are_comparable_with_the_whole_test_split_only():
    whole = asked(4241)
    assert comparability(whole, "test") is None
    assert comparability(whole[:481], "test") == "not comparable: 481 of 4241 questions"
    assert comparability(whole, "val") == "not comparable: the split val, not test"
    others = asked(4241, dataset="aokvqa")
    assert comparability(others, "test") == "not comparable: questions of aokvqa, not of ScienceQA"


def test_paper_table_marks_rows_that_cannot_be_compared():
    scores = evaluate([QUESTION], [Prediction(question_id="0", answer=1)])
    lines = render_paper_table(scores, "mine", "not comparable: 1 of 4241 questions").splitlines()
    own = next(line for line in lines if line.startswith("| mine"))
    assert "not comparable: 1 of 4241" in own
    assert own.endswith("| 100.00 |")
    first = [line for line in lines if "Multimodal-CoT v1" in line]
    assert len(first) == 2
    assert all("teacher-forced rationales, not comparable" in line for line in first)
    assert all("not comparable" not in line for line in lines if "Multimodal-CoT v5" in line)


def test_conditions_on_a_field_are_alternatives_and_on_several_must_all_hold():
    questions = [
        *asked(2),
        replace(QUESTION, question_id="2", skill="read"),
        replace(QUESTION, question_id="3", skill="read", grade="grade4"),
        replace(QUESTION, question_id="4", skill="draw"),
    ]

    def chosen(*texts):
        conditions = [Condition.parse(text) for text in texts]
        return [q.question_id for q in select_where(questions, conditions)]

    assert chosen() == ["0", "1", "2", "3", "4"]
    assert chosen("skill=read") == ["2", "3"]
    assert chosen("skill=read", "skill=draw") == ["2", "3", "4"]
    assert chosen("skill=read", "grade=grade3") == ["2"]
    with pytest.raises(DataError, match="fulfils skill=draw and grade=grade4"):
        chosen("skill=draw", "grade=grade4")
    with pytest.raises(DataError, match="no question has the skill 'reed'; there are: 'read', "):
        chosen("skill=reed")


def test_values_may_hold_an_equals_sign():
    questions = [replace(QUESTION, skill="solve x = 3")]
    assert select_where(questions, [Condition.parse("skill=solve x = 3")]) == questions


@pytest.mark.parametrize("text", ["skill", "answer=1", "=x", "question_id=3"])
def test_other_conditions_are_refused(text):
    with pytest.raises(ValueError, match="expected FIELD=VALUE"):
        Condition.parse(text)


def test_of_many_values_the_most_similar_are_named():
    questions = [replace(QUESTION, skill=f"skill {place}") for place in range(40)]
    with pytest.raises(DataError, match=r"there are: 'skill 3\d', .* and 28 more"):
        select_where(questions, [Condition("skill", "skill 399")])
