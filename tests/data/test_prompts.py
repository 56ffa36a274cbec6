"""The reference's prompts, to the byte; the hand-written texts follow its rules, not our code."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcot_data.errors import DataError
from mmcot_data.prompts import (
    PROMPT_FORMATS,
    RATIONALE_FORMATS,
    build_prompt,
    gold_rationale,
    parse_answer,
)
from mmcot_data.questions import OPTION_LETTERS, Question

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "mm-cot-prompts.json"

QUESTION = Question(
    dataset="hand",
    question_id="1",
    split="train",
    position=0,
    question="Which\nis  colder?",
    choices=("ice", "hot \n tea", "sand"),
    answer=1,
    hint="Look at\nthe table.",
    lecture="Heat flows.\nAnswer: it does.",
    solution="Tea is hot.\nSo it is not cold.",
)
QCM = "Question: Which is colder? Context: Look at the table. Options: (A) ice (B) hot tea (C) sand"


def question(**changes):
    record = {name: getattr(QUESTION, name) for name in Question.__dataclass_fields__}
    return Question(**record | changes)


@pytest.mark.parametrize(
    ("prompt_format", "source", "target"),
    [
        ("QCM-A", f"{QCM} Answer:", "The answer is (B)."),
        ("QCM-E", f"{QCM} Solution:", r"Solution: Tea is hot.\nSo it is not cold."),
        (
            "QCM-LE",
            f"{QCM} Solution:",
            r"Solution: Heat flows.\n it does. Tea is hot.\nSo it is not cold..",
        ),
        (
            "QCMG-A",
            QCM
            + r" Solution: Heat flows.\nAnswer: it does. Tea is hot.\nSo it is not cold. Answer:",
            "The answer is (B).",
        ),
        (
            "QCM-LEA",
            f"{QCM} Solution:",
            r"Heat flows.\n it does. Tea is hot.\nSo it is not cold. The answer is (B).",
        ),
        (
            "QCM-ALE",
            f"{QCM} Solution:",
            r"The answer is (B). BECAUSE: Heat flows.\n it does. Tea is hot.\nSo it is not cold.",
        ),
    ],
)
def test_default_texts_have_the_quirks_of_the_reference(prompt_format, source, target):
    prompt = build_prompt(QUESTION, prompt_format)
    assert (prompt.source, prompt.target) == (source, target)


@pytest.mark.parametrize(
    ("prompt_format", "target"),
    [
        ("QCM-E", "Solution: Tea is hot. So it is not cold."),
        (
            "QCM-LE",
            "Solution: Heat flows. Answer: it does. Tea is hot. So it is not cold.",
        ),
        (
            "QCM-LEA",
            "Heat flows. Answer: it does. Tea is hot. So it is not cold. The answer is (B).",
        ),
        (
            "QCM-ALE",
            "The answer is (B). BECAUSE: Heat flows. Answer: it does. Tea is hot. "
            "So it is not cold.",
        ),
    ],
)
def test_without_quirks_no_backslash_no_lost_word_no_extra_stop(prompt_format, target):
    assert build_prompt(QUESTION, prompt_format, quirks=False).target == target


def test_without_quirks_the_gold_rationale_in_the_source_has_no_backslash():
    source = build_prompt(QUESTION, "QCMG-A", quirks=False).source
    assert source == (
        f"{QCM} Solution: Heat flows. Answer: it does. Tea is hot. So it is not cold. Answer:"
    )


@pytest.mark.parametrize(
    ("prompt_format", "lecture", "solution", "target"),
    [
        ("QCM-E", "L.", "", "Solution:"),
        ("QCM-LE", "", "", "Solution: ."),
        ("QCM-LE", "L.", "", "Solution: L. ."),
        ("QCM-LE", "", "S.", "Solution: S.."),
        ("QCM-LE", "Answer: yes.", "S", "Solution: yes. S."),
        ("QCM-ALE", "", "", "The answer is (B). BECAUSE:"),
        ("QCM-LEA", "", "", "The answer is (B)."),
    ],
)
def test_edge_cases_measured_on_the_reference(prompt_format, lecture, solution, target):
    prompt = build_prompt(question(lecture=lecture, solution=solution), prompt_format)
    assert prompt.target == target


def test_without_quirks_nothing_follows_because_where_there_is_no_reason():
    empty = question(lecture=" ", solution="")
    assert build_prompt(empty, "QCM-ALE", quirks=False).target == "The answer is (B)."


@pytest.mark.parametrize(
    ("hint", "caption", "context"),
    [
        ("", None, "N/A"),
        (" \n", "", "N/A"),
        ("A hint.", None, "A hint."),
        ("", "a map", "a map"),
        ("A hint.", "a\nmap ", "A hint. a map"),
    ],
)
def test_context_is_hint_then_caption(hint, caption, context):
    source = build_prompt(question(hint=hint), "QCM-A", caption=caption).source
    assert f" Context: {context} Options: " in source


def test_stage_two_reads_the_given_rationale_not_the_gold_one():
    source = build_prompt(QUESTION, "QCMG-A", rationale="Solution: it\n is warm.").source
    assert source == f"{QCM} Solution: it is warm. Answer:"
    assert build_prompt(QUESTION, "QCMG-A", rationale="").source == f"{QCM} Answer:"


@pytest.mark.parametrize("quirks", [True, False])
def test_stage_two_on_gold_reads_the_gold_rationale_of_qcm_le(quirks):
    """A second wording of the gold rationale would let training and evaluation drift apart."""
    gold = gold_rationale(QUESTION, "QCM-LE", quirks=quirks)
    given = build_prompt(QUESTION, "QCMG-A", rationale=gold, quirks=quirks)
    assert given == build_prompt(QUESTION, "QCMG-A", quirks=quirks)


def test_gold_rationale_has_the_parts_of_its_stage_one_format():
    plain = question(lecture="L.", solution="S.")
    assert gold_rationale(plain, "QCM-E") == "Solution: S."
    assert gold_rationale(plain, "QCM-LE") == "Solution: L. S."


def test_a_hidden_answer_gives_no_target_only_where_it_is_needed():
    hidden = question(answer=None)
    targets = {name: build_prompt(hidden, name).target for name in PROMPT_FORMATS}
    assert {name for name, target in targets.items() if target} == set(RATIONALE_FORMATS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_prompt(QUESTION, "QCM-AE"), "no prompt format 'QCM-AE'.*QCMG-A"),
        (lambda: build_prompt(QUESTION, "QCM-LE", rationale="x"), "only QCMG-A"),
        (lambda: gold_rationale(QUESTION, "QCM-ALE"), "QCM-E, QCM-LE"),
    ],
)
def test_wrong_requests_are_explained(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is (B).", 1),
        ("because of this. The answer is (A), I think", 0),
        ("The answer is (A). The answer is (A).", None),
        ("The answer is (A). BECAUSE: The answer is (B).", None),
        ("the answer is (A)", None),
        ("The answer is B.", None),
        ("The answer is (b).", None),
        ("( B )", None),
        ("B.", None),
        ("The answer is (D).", None),
        ("", None),
    ],
)
def test_parse_answer_takes_one_real_choice_or_nothing(text, answer):
    assert parse_answer(text, num_choices=3) == answer


# Any text but parentheses, which would look like further option letters.
texts = st.text(st.characters(codec="utf-8", exclude_characters="()"), max_size=12) | st.just(
    "two  words\n\n and\tmore"
)


@st.composite
def questions(draw):
    choices = draw(st.lists(texts, min_size=2, max_size=8))
    return question(
        question=draw(texts),
        choices=tuple(choices),
        answer=draw(st.integers(0, len(choices) - 1)),
        hint=draw(texts),
        lecture=draw(texts),
        solution=draw(texts),
    )


@settings(deadline=None)
@given(questions(), st.sampled_from(PROMPT_FORMATS), st.booleans())
def test_any_question_gives_one_line_with_its_letters_in_order(drawn, prompt_format, quirks):
    prompt = build_prompt(drawn, prompt_format, quirks=quirks)
    for text in (prompt.source, prompt.target):
        assert not re.search(r"[^\S ]|  |^ | $", text)
    assert prompt.source.startswith("Question:")
    letters = re.findall(r"\(([A-Z])\)", prompt.source)
    assert letters == list(OPTION_LETTERS[: len(drawn.choices)])


@settings(deadline=None)
@given(questions(), st.sampled_from(["QCM-A", "QCMG-A", "QCM-LEA", "QCM-ALE"]))
def test_parse_answer_inverts_the_target(drawn, prompt_format):
    target = build_prompt(drawn, prompt_format).target
    assert parse_answer(target, len(drawn.choices)) == drawn.answer


@pytest.mark.skipif(not GOLDEN.exists(), reason="the reference's prompts are not here")
def test_equal_to_the_reference_to_the_byte():
    """Against the texts that the reference's own code wrote, all six selectable formats."""
    content = json.loads(GOLDEN.read_text(encoding="utf-8"))
    num_compared = 0
    for key, golden in content["golden"].items():
        prompt_format, with_caption, name, rationale = key.split("|")
        if prompt_format not in PROMPT_FORMATS:
            continue
        record = content["problems"][name]
        prompt = build_prompt(
            question(
                choices=tuple(record["choices"]),
                **{k: record[k] for k in ("question", "answer", "hint", "lecture", "solution")},
            ),
            prompt_format,
            caption=record["caption"] if with_caption == "cap=True" else None,
            rationale=None if rationale == "le=None" else rationale.removeprefix("le="),
        )
        assert (prompt.source, prompt.target) == (golden["in"], golden["tgt"]), key
        num_compared += 1
    assert num_compared == 42
