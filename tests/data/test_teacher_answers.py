"""Reading the answer in a teacher's text: all usual forms, and never a guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcot_data.teacher.answers import read_answer

CHOICES = ("iron", "a glass bottle", "New York", "New York City")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # as the two-step extraction gets it, after "the answer is"
        (" (B).", 1),
        ("(b)", 1),
        ("B.", 1),
        ("B", 1),
        ("\n\nB\n", 1),
        (": B) a glass bottle", 1),
        (" **(C)** New York", 2),
        ("$\\boxed{D}$", 3),
        (" \\boxed{\\text{B}}", 1),
        ("B because glass bends", 1),
        ("A, iron", 0),
        ("A", 0),
        ("option C", 2),
        (" A glass bottle.", 1),
        ("A magnet attracts it", None),
        ("I do not know", None),
        ("new york city", 3),
        ("New York!", 2),
        ("iron", 0),
        ("ironing", None),
        ("(E)", None),
        ("(A) or (B)", None),
        ("A or B", None),
        ("(A), not (B)", None),
        ("not (A)", None),
        ("clear that iron is right, (A)", 0),
        ("clear that it is not (A)", None),
        ("The answer is (D).", 3),
        ("(B). The answer is (B).", 1),
        ("(B). The answer is (A).", None),
        ("", None),
    ],
)
def test_after_the_cue(text, expected):
    """A form that is not understood loses a right chain; a guess keeps a wrong one."""
    assert read_answer(text, CHOICES, continues=True) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Iron is a metal. The answer is (A).", 0),
        ("So the correct answer is B.", 1),
        ("Hence the answer is A because it is a metal.", 0),
        ("Glass is no metal.\n**Answer:** (C)", 2),
        ("Final answer: New York City.", 3),
        ("The answer would be option (B).", 1),
        ("The answer is:\n\n(D) New York City", 3),
        ("The answer is therefore (D).", 3),
        ("Thus the answer is iron. Glass (B) is no metal.", 0),
        ("Long text.\n(B)", 1),
        ("Long text.\nIron.", 0),
        ("One may think that the answer is (A). But the answer is (B).", None),
        ("The answer is not (A).", None),
        ("(A) is a metal, so it is attracted.", None),
        ("Iron is attracted, and glass is not.", None),
        ("The answer is hard to find.", None),
        ("The answer is (Z).", None),
    ],
)
def test_in_a_rationale(text, expected):
    """A letter or a choice that is only discussed is no answer."""
    assert read_answer(text, CHOICES) == expected


def test_choices_that_are_letters_are_no_letters_of_choices():
    """Places on a map are called A, B, …; a bare letter then has two meanings, (B) one."""
    choices = ("B", "A", "C")
    assert read_answer("The answer is B.", choices) is None
    assert read_answer("The answer is C.", choices) == 2
    assert read_answer("The answer is (B).", choices) == 1


def test_equal_choices_are_not_told_apart_by_their_text():
    """The first of two that fit would be a guess."""
    assert read_answer("The answer is iron.", ("iron", "Iron ")) is None


@pytest.mark.parametrize(
    ("text", "choices", "expected"),
    [
        ("The answer is 1,000.", ("1", "1000"), None),
        ("The answer is 1,000.", ("1", "1,000"), 1),
        ("The answer is 1.5", ("1", "2"), None),
        ("The answer is 5/8", ("5", "8"), None),
        ("The answer is 12:30", ("12", "30"), None),
        ("So the answer is 2 + 2 = 4.", ("2", "4"), None),
        ("The answer is 2, + 2.", ("2", "4"), None),
        ("The answer is 2, 3.", ("2", "3"), None),
        ("The answer is -5.", ("5", "-5"), 1),
        ("The answer is 5%.", ("5", "8"), None),
        ("The answer is 5.", ("5", "8"), 0),
        ("The answer is 5, as we saw.", ("5", "8"), 0),
        ("The answer is iron oxide.", ("iron", "wool"), None),
        ("The answer is iron, or wool.", ("iron", "wool"), None),
        ("The answer is iron; it is a metal.", ("iron", "wool"), 0),
        ('The answer is "iron."', ("iron", "wool"), 0),
        ("The answer is no one knows.", ("yes", "no"), None),
        ("The answer is A glass bottle of milk", ("iron", "a glass bottle"), None),
        ("The answer is A/B.", ("iron", "wool"), None),
    ],
)
def test_a_choice_that_goes_on_is_another_thing(text, choices, expected):
    """Its beginning would be a wrong answer, which the rule `correct` may keep by chance."""
    assert read_answer(text, choices) == expected
    continued = text.partition(" is")[2]
    if not continued.startswith(" A"):  # no letter there
        assert read_answer(continued, choices, continues=True) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't think the answer is (A).", None),
        ("I don\u2019t think the answer is (A).", None),
        ("It is wrong to say the answer is (A).", None),
        ("The wrong answer is (A).", None),
        ("I don't think the answer is (A). The answer is (B).", 1),
        ("Glass is not a metal, so the answer is (A).", 0),
        ("Glass is not a metal. The answer is (A).", 0),
    ],
)
def test_a_statement_that_is_denied_states_nothing(text, expected):
    """It would be read as the opposite of what it says."""
    assert read_answer(text, CHOICES) == expected


numbers = st.integers(0, 999).map(str)


@given(
    numbers, st.sampled_from([".", ",", ":", "/", "-", "+", "=", " + ", " = ", ", ", "e"]), numbers
)
def test_a_part_of_a_number_is_never_read(first, sign, second):
    """Every way of going on with digits makes another number of a choice."""
    choices = (first, second) if first != second else (first, "none")
    text = f"The answer is {first}{sign}{second}."
    assert read_answer(text, choices) is None
    assert read_answer(text, (*choices, f"{first}{sign}{second}")) == 2


words = st.text("abdefghjklmnopqrstuvwxyz ", min_size=1, max_size=30)


@given(words, words, st.integers(0, 3), st.sampled_from(["({})", "{}.", "{}", "{})", "**{}**"]))
def test_a_stated_letter_is_read_whatever_stands_around(before, after, index, form):
    """Neighbouring words must not change what is stated once and clearly."""
    text = f"{before}\nThe answer is {form.format('ABCD'[index])}\n{after}."
    choices = ("%1", "%2", "%3", "%4")
    assert read_answer(text, choices) == index


@given(st.text(), st.integers(2, 26), st.booleans())
def test_whatever_is_written_gives_a_choice_or_nothing(text, num_choices, continues):
    """An index beyond the choices, or an exception, would break a run of days."""
    answer = read_answer(text, ["x"] * num_choices, continues=continues)
    assert answer is None or 0 <= answer < num_choices


@given(st.text(st.characters(exclude_categories=["Lu", "Ll", "Lt"])), st.booleans())
def test_a_text_without_letters_names_nothing(text, continues):
    """Anything else would be a guess."""
    assert read_answer(text, CHOICES, continues=continues) is None
