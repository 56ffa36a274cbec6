"""What an error analysis counts, on answers that are counted by hand."""

from mmcot_data.questions import Question
from mmcot_model.evaluation.intervals import Share
from mmcot_model.trained.error_counts import (
    ConditionAnswer,
    count_by_skill,
    count_errors,
    render_error_tables,
)

QUESTIONS = [
    Question(
        dataset="hand",
        question_id=str(place),
        split="test",
        position=place,
        question="?",
        choices=("x", "y", "z"),
        answer=1,
        skill=skill,
    )
    for place, skill in enumerate(["add", "add", "add", "read", "read", ""])
]
ANSWERS = {
    "as_run": [1, 1, 0, 0, None, 1],
    "gold_rationale": [1, 1, 1, 2, None, 1],
    "no_picture": [0, 1, 1, 0, 2, None],
}
PICTURED = {"no_picture": [0, 1, 0, 1, None, 0]}
"""Answers without the picture that are others only where there is one, in 0, 3 and 5."""


def rows(answers=ANSWERS):
    return [
        ConditionAnswer(
            question_id=str(place),
            condition=condition,
            rationale="r",
            text="",
            answer=answer,
            correct=answer == 1,
        )
        for condition, given in answers.items()
        for place, answer in enumerate(given)
    ]


ABOUT = {"pictures": ["0", "3", "other"], "differing": ["1", "2", "3"]}


def test_counts_over_all_questions():
    """Catches changes counted as corrections, and shares of all instead of those in question."""
    counts = count_errors(QUESTIONS, rows(), **ABOUT)
    assert (counts.n, counts.num_pictures) == (6, 2)
    assert list(counts.conditions) == ["as_run", "gold_rationale", "no_picture"]
    run, gold, blind = counts.conditions.values()
    assert (run.correct, run.changed) == (Share(3, 6), Share(0, 6))
    assert (run.corrected, run.spoiled) == (Share(0, 3), Share(0, 3))
    assert (gold.correct, gold.changed) == (Share(4, 6), Share(2, 6))
    assert (gold.corrected, gold.spoiled) == (Share(1, 3), Share(0, 3))
    assert (blind.correct, blind.changed) == (Share(2, 6), Share(4, 6))
    assert (blind.corrected, blind.spoiled) == (Share(1, 3), Share(2, 3))
    assert counts.differs_in_wrong == Share(2, 3)
    assert counts.differs_in_right == Share(1, 3)


def test_counts_of_skills_add_up():
    overall = count_errors(QUESTIONS, rows(), **ABOUT)
    skills = count_by_skill(QUESTIONS, rows(), **ABOUT)
    assert list(skills) == ["", "add", "read"]
    assert [counts.n for counts in skills.values()] == [1, 3, 2]
    for name, each in overall.conditions.items():
        for kind in ("correct", "changed", "corrected", "spoiled"):
            parts = [getattr(counts.conditions[name], kind) for counts in skills.values()]
            total = getattr(each, kind)
            assert sum(part.count for part in parts) == total.count
            assert sum(part.of for part in parts) == total.of
    assert sum(counts.num_pictures for counts in skills.values()) == overall.num_pictures


def test_tables_say_what_was_counted():
    overall = count_errors(QUESTIONS, rows(), **ABOUT)
    text = render_error_tables(overall, count_by_skill(QUESTIONS, rows(), **ABOUT))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["no picture", "6", "33.3", "9.7 to 70.0", "4", "1 of 3", "2 of 3"] in cells
    assert [
        "read",
        "2",
        "0.0 (0.0 to 65.8)",
        "0.0 (0.0 to 65.8)",
        "1",
        "0.0 (0.0 to 65.8)",
        "1",
        "0 of 2",
        "1 of 2",
    ] in cells
    assert "(none)" in [row[0] for row in cells]
    assert "gold rationale corrects: 1 of 3, 33.3% (6.1 to 79.2)." in text
    assert "of wrong answers 2 of 3, 66.7% (20.8 to 93.9), of right answers 1 of 3" in text
    # wrong without the picture that they have: 0 and 3, of which the run has 0 right
    assert (
        "Of the 2 of 6 questions that have a picture, wrong answers without it that are right "
        "with it: 1 of 2, 50.0% (9.5 to 90.5)."
    ) in text


def test_questions_that_never_had_a_picture_are_not_wrong_without_it():
    """Catches 2 of 4: questions 2 and 4 are wrong as ever, for want of no picture."""
    counts = count_errors(
        QUESTIONS, rows(ANSWERS | PICTURED), pictures=["0", "3", "5"], differing=[]
    )
    assert counts.wrong_without_picture == Share(2, 2)
    found = counts.to_json()["wrong_without_picture"]
    assert found["right_with_it"]["count"] == found["right_with_it"]["of"] == 2
    seeing = {"as_run": ANSWERS["as_run"], "no_picture_in_answer": PICTURED["no_picture"]}
    counts = count_errors(QUESTIONS, rows(seeing), pictures=["0"], differing=None)
    assert counts.to_json()["wrong_without_picture"] is None


def test_a_run_without_rationales_or_errors_has_no_such_figures():
    right = {"as_run": [1] * 6, "no_picture": [1] * 6}
    counts = count_errors(QUESTIONS, rows(right), pictures=[], differing=None)
    assert counts.to_json()["rationale_differs_from_gold"] == {"wrong": None, "right": None}
    corrected = counts.to_json()["conditions"]["no_picture"]["corrected"]
    assert corrected == {"count": 0, "of": 0, "percent": None, "interval": None}
    text = render_error_tables(counts, {})
    assert "gold" not in text
    assert "right with it: there are none" in text
