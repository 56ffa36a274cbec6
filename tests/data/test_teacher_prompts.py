"""What each method asks, written out by hand, and what it makes of the answers."""

import hashlib
import json
from pathlib import Path

import pytest
from teacher_questions import SECRETS, make_question, write_root

from mmcot_data.errors import DataError
from mmcot_data.rationales import Rationale, write_rationales
from mmcot_data.teacher import LocalConfig, TeacherConfig
from mmcot_data.teacher.base import Completion
from mmcot_data.teacher.chains import Item, Manner, write_chain
from mmcot_data.teacher.demonstrations import given_demonstrations
from mmcot_data.teacher.prompts import (
    Demonstration,
    Step,
    answer_prompt,
    decomposition_prompt,
    few_shot_prompt,
    read_sub_questions,
    step_prompt,
    zero_shot_prompt,
)

QUESTION = make_question(1)
BLOCK = "Is glass number 1 magnetic? Context: A hint about glass. A photo. Options: (A) yes (B) no "
BLOCK += "(C) maybe so"


def manner(method, extraction, demonstrations=()):
    return Manner(
        method=method,
        extraction=extraction,
        temperature=0.7,
        top_p=0.9,
        max_new_tokens=99,
        max_steps=2,
        seed=5,
        demonstrations=tuple(demonstrations),
    )


def converse(item, manner, replies):
    """The requests of a chain that gets these replies, and the chain."""
    requests = []
    chain = write_chain(item, manner)
    request = next(chain)
    for reply in replies:
        requests.append(request)
        completion = Completion(text=reply, finish_reason="stop")
        if isinstance(reply, Completion):
            completion = reply
        try:
            request = chain.send(completion)
        except StopIteration as end:
            assert len(requests) == len(replies)
            return requests, end.value
    raise AssertionError("the chain wants more replies")


def item(question=QUESTION, sample=0, caption="A photo."):
    return Item.of(question, sample, caption)


def test_zero_shot_asks_for_a_chain_and_then_with_it_for_the_answer():
    """Kojima et al.: two prompts, the second with all of the first and the completion."""
    requests, chain = converse(
        item(), manner("zero-shot-cot", "two-step"), [" Glass is\nno metal. ", " (B)."]
    )
    assert [request.prompt for request in requests] == [
        f"Q: {BLOCK}\nA: Let's think step by step.",
        f"Q: {BLOCK}\nA: Let's think step by step. Glass is\nno metal.\n"
        "Therefore, among A through C, the answer is",
    ]
    assert [(r.max_new_tokens, r.temperature, r.top_p) for r in requests] == [
        (99, 0.7, 0.9),
        (32, 0.0, 1.0),
    ]
    assert requests[0].seed != requests[1].seed
    assert chain.columns() == {
        "rationale": "Solution: Glass is no metal.",
        "answer": 1,
        "finish_reason": "stop",
        "prompt": requests[0].prompt,
        "completion": " Glass is\nno metal. ",
        "answer_prompt": requests[1].prompt,
        "answer_completion": " (B).",
        "steps": [],
    }


def test_a_question_without_hint_has_the_students_context():
    """The student's prompts say N/A; another text would be another question."""
    requests, _ = converse(
        item(make_question(0), caption=None), manner("zero-shot-cot", "direct"), [""]
    )
    assert requests[0].prompt == (
        "Q: Is iron number 0 magnetic? Context: N/A Options: (A) yes (B) no\n"
        "A: Let's think step by step."
    )


DEMONSTRATIONS = [
    Demonstration("D1 Context: N/A Options: (A) x (B) y", "Because\nof x.", "A", "7"),
    Demonstration("D2 Context: N/A Options: (A) v (B) w", "Because of w.", "B", None),
]


def test_few_shot_shows_demonstrations_and_reads_the_answer_directly():
    """Wei et al.: demonstrations in their order, then the question; one call."""
    requests, chain = converse(
        item(),
        manner("few-shot-cot", "direct", DEMONSTRATIONS),
        [" No metal. The answer is (B)."],
    )
    assert [request.prompt for request in requests] == [
        "Q: D1 Context: N/A Options: (A) x (B) y\nA: Because of x. The answer is (A).\n\n"
        "Q: D2 Context: N/A Options: (A) v (B) w\nA: Because of w. The answer is (B).\n\n"
        f"Q: {BLOCK}\nA:"
    ]
    assert chain.answer == 1
    assert chain.answer_prompt is None


def test_auto_cot_writes_on_as_its_demonstrations_were_written():
    """Zhang et al.: the demonstrations and the question carry the cue of zero-shot-CoT."""
    requests, _ = converse(item(), manner("auto-cot", "direct", DEMONSTRATIONS[:1]), ["x"])
    assert requests[0].prompt == (
        "Q: D1 Context: N/A Options: (A) x (B) y\n"
        "A: Let's think step by step. Because of x. The answer is (A).\n\n"
        f"Q: {BLOCK}\nA: Let's think step by step."
    )


def test_a_demonstration_never_is_the_question_itself():
    """It would show the answer; it may be known by its id or only by its text."""
    own = [Demonstration("another text", "r", "B", "1"), Demonstration(BLOCK, "r", "B", None)]
    requests, _ = converse(
        item(), manner("few-shot-cot", "direct", [*own, DEMONSTRATIONS[1]]), ["x"]
    )
    assert requests[0].prompt == (
        "Q: D2 Context: N/A Options: (A) v (B) w\nA: Because of w. The answer is (B).\n\n"
        f"Q: {BLOCK}\nA:"
    )


def test_least_to_most_solves_simpler_questions_in_order():
    """Zhou et al.: each sub-question is asked with the answers before it, the question last."""
    replies = [
        " What is glass?\n2) Is that\ta metal?\nnot a question\n3. A third?",
        " A solid.\n",
        "No.",
        " So it is not.",
        "(B)",
    ]
    requests, chain = converse(item(), manner("least-to-most", "two-step"), replies)
    last = (
        f"Problem: {BLOCK}\n\nQ: What is glass?\nA: A solid.\n\nQ: Is that a metal?\nA: No.\n\n"
        "Q: Is glass number 1 magnetic?\nA:"
    )
    assert [request.prompt for request in requests] == [
        f"Q: {BLOCK}\nA: To answer this question, we first need to answer these simpler questions, "
        "at most 2, one a line:\n1.",
        f"Problem: {BLOCK}\n\nQ: What is glass?\nA:",
        f"Problem: {BLOCK}\n\nQ: What is glass?\nA: A solid.\n\nQ: Is that a metal?\nA:",
        last,
        f"{last} So it is not.\nTherefore, among A through C, the answer is",
    ]
    assert len({request.seed for request in requests}) == 5
    assert chain.steps == (Step("What is glass?", "A solid."), Step("Is that a metal?", "No."))
    assert chain.text == "What is glass? A solid. Is that a metal? No. So it is not."
    assert chain.columns()["steps"][0] == {"question": "What is glass?", "answer": "A solid."}
    assert chain.answer == 1


def test_a_decomposition_is_read_strictly():
    """Talk around the list must not become steps, nor the question itself, nor endless many."""
    text = "Sure! Here they are:\n* Is it?\n- Is it?\n(x) no\nb) Was it?\nWhy?\nAm I?"
    assert read_sub_questions(text, "Why?", 9) == ["Is it?", "Was it?", "Am I?"]
    assert read_sub_questions(text, "Why?", 2) == ["Is it?", "Was it?"]
    assert read_sub_questions("", "Why?", 2) == []


def test_nothing_is_asked_about_an_empty_chain_and_any_cut_part_is_told():
    """A refused or cut text must not look complete."""
    refused = Completion(text="", finish_reason="content_filter")
    _, chain = converse(item(), manner("zero-shot-cot", "two-step"), [refused])
    assert (chain.answer, chain.finish_reason, chain.answer_prompt) == (
        None,
        "content_filter",
        None,
    )
    assert chain.columns()["rationale"] == "Solution:"
    cut = Completion(text="A?", finish_reason="length")
    _, chain = converse(item(), manner("least-to-most", "direct"), [cut, "x", "y"])
    assert chain.finish_reason == "length"


@pytest.mark.parametrize("thoughts", ["<think>\nIs the answer (A)?\n</think>", "Hm.</think>"])
def test_thoughts_before_a_text_are_no_part_of_it(thoughts):
    """A student would learn to write them, and answers that are only weighed would count."""
    requests, chain = converse(
        item(),
        manner("zero-shot-cot", "two-step"),
        [f"{thoughts}\n\nGlass is no metal.", f"{thoughts} (B)."],
    )
    assert requests[1].prompt == (
        f"Q: {BLOCK}\nA: Let's think step by step. Glass is no metal.\n"
        "Therefore, among A through C, the answer is"
    )
    assert chain.columns() | {"prompt": "", "answer_prompt": ""} == {
        "rationale": "Solution: Glass is no metal.",
        "answer": 1,
        "finish_reason": "stop",
        "prompt": "",
        "completion": f"{thoughts}\n\nGlass is no metal.",
        "answer_prompt": "",
        "answer_completion": f"{thoughts} (B).",
        "steps": [],
    }
    _, chain = converse(
        item(), manner("few-shot-cot", "direct"), [f"<think>The answer is (A).{thoughts}So. (B)"]
    )
    assert chain.answer is None
    replies = [f"{thoughts}What is glass?", f"{thoughts} A solid.", f"{thoughts} No."]
    requests, chain = converse(item(), manner("least-to-most", "direct"), replies)
    assert requests[2].prompt.startswith(f"Problem: {BLOCK}\n\nQ: What is glass?\nA: A solid.\n\n")
    assert chain.text == "What is glass? A solid. No."


def test_thoughts_without_an_end_are_no_rationale():
    """What was cut off in the middle of them explains nothing."""
    cut = Completion(text=" <think>\nThe answer is (A)", finish_reason="length")
    _, chain = converse(item(), manner("zero-shot-cot", "two-step"), [cut])
    assert chain.columns()["rationale"] == "Solution:"
    assert (chain.answer, chain.finish_reason) == (None, "length")
    assert chain.completion == cut.text
    _, chain = converse(item(), manner("few-shot-cot", "direct"), [cut])
    assert chain.answer is None
    _, chain = converse(item(), manner("least-to-most", "direct"), ["Is it?", cut, "No."])
    assert chain.columns()["rationale"] == "Solution:"
    assert chain.steps == (Step("Is it?", "<think> The answer is (A)"),)
    _, chain = converse(
        item(), manner("zero-shot-cot", "two-step"), ["No.", "<think>the answer is (A)"]
    )
    assert (chain.text, chain.answer) == ("No.", None)


@pytest.mark.parametrize("method", ["zero-shot-cot", "few-shot-cot", "auto-cot", "least-to-most"])
def test_no_prompt_depends_on_what_is_to_be_found_out(method):
    """A teacher that sees answer, lecture or solution explains nothing."""
    ways = []
    for values in ({}, {"answer": 0, "lecture": "other", "solution": ""}, {"answer": None}):
        replies = ["One?\nTwo?", "a", "b", "c"] if method == "least-to-most" else ["c"]
        asked = item(make_question(1, **values))
        requests, _ = converse(asked, manner(method, "two-step", DEMONSTRATIONS), [*replies, "d"])
        ways.append(requests)
    assert ways[0] == ways[1] == ways[2]
    assert not any(secret in request.prompt for request in ways[0] for secret in SECRETS)


def test_seeds_are_of_the_row_alone():
    """Equal seeds for two samples would make them equal; the place in a batch must not matter."""
    seeds = {
        (number, sample): converse(
            item(make_question(number), sample), manner("zero-shot-cot", "direct"), ["x"]
        )[0][0].seed
        for number in (1, 2, 12)
        for sample in (0, 1, 2)
    }
    assert len(set(seeds.values())) == 9
    assert all(0 <= seed < 2**63 for seed in seeds.values())
    assert seeds[12, 1] == int(hashlib.sha256(b"5 1 0 12").hexdigest()[:16], 16) // 2


def few_shot(root, **values):
    return TeacherConfig(
        artifacts=root, teacher=LocalConfig(model="x"), method="few-shot-cot", **values
    )


def test_demonstrations_from_a_file(tmp_path):
    """Letters and indices must mean the same, and a context be shown as a hint is."""
    rows = [
        {"question": "Q?", "choices": ["x", "y"], "rationale": " R. ", "answer": "B"},
        {"question": "P?", "context": "C", "choices": ["x", "y"], "rationale": "S", "answer": 0},
    ]
    path = tmp_path / "demos.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    assert given_demonstrations(few_shot(tmp_path, demonstrations=path), [], {}) == [
        Demonstration("Q? Context: N/A Options: (A) x (B) y", "R.", "B", None),
        Demonstration("P? Context: C Options: (A) x (B) y", "S", "A", None),
    ]


def test_all_bad_lines_of_a_file_are_told_at_once(tmp_path):
    """Otherwise they are found one run after the other."""
    path = tmp_path / "demos.jsonl"
    good = {"question": "Q?", "choices": ["x", "y"], "rationale": "R", "answer": "B"}
    lines = [
        json.dumps(good),
        "{",
        "[]",
        json.dumps({"question": "Q?"}),
        json.dumps(good | {"answer": "C"}),
        json.dumps(good | {"answer": True}),
        json.dumps(good | {"rationale": " "}),
        json.dumps(good | {"choices": ["x"], "answer": 0}),
        json.dumps(good | {"solution": "S"}),
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        given_demonstrations(few_shot(tmp_path, demonstrations=path), [], {})
    assert "8 unusable lines" in str(caught.value)
    assert all(f"line {number}" in str(caught.value) for number in range(2, 10))
    for content, message in ((b"\xff", "UTF-8"), (b"\n", "at least one")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            given_demonstrations(few_shot(tmp_path, demonstrations=path), [], {})


def test_demonstrations_from_a_producer(tmp_path):
    """They are kept, right rationales of train questions, in the order that was asked for."""
    questions = write_root(tmp_path)
    rows = [
        Rationale(
            question_id="2", sample=0, rationale="Solution: no.", answer=1, prompt_format="x"
        ),
        Rationale(
            question_id="2", sample=1, rationale="Solution: yes.", answer=0, prompt_format="x"
        ),
        Rationale(question_id="1", rationale="Solution: one.", prompt_format="x"),
        Rationale(question_id="3", rationale="Solution: three.", kept=False, prompt_format="x"),
    ]
    write_rationales(tmp_path / "rationales" / "mine.parquet", rows, {})

    def take(*ids, producer="mine"):
        config = few_shot(tmp_path, demonstrations_from=producer, demonstration_ids=ids)
        return given_demonstrations(config, questions, {"2": "Cap."})

    assert [(d.question_id, d.rationale, d.letter) for d in take("2", "1")] == [
        ("2", "yes.", "A"),
        ("1", "one.", "B"),
    ]
    assert "A hint about copper. Cap. Options" in take("2")[0].block
    with pytest.raises(DataError, match="train questions; '6'"):
        take("1", "6")
    with pytest.raises(DataError, match="no rationale for '3'"):
        take("1", "3")
    assert take("4", producer="gold")[0].rationale == "SECRETLECTURE SECRETSOLUTION"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 3}, "temperature 0"),
        ({"method": "few-shot-cot"}, "needs demonstrations"),
        ({"demonstrations_from": "gold"}, "is for few-shot-cot"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"limit": 0}, "limit"),
        ({"method": "tree"}, "expected one of zero-shot-cot"),
    ],
)
def test_impossible_requests_are_refused(tmp_path, values, message):
    """Found after hours of work they would cost those."""
    with pytest.raises(ValueError, match=message):
        TeacherConfig(artifacts=tmp_path, teacher=LocalConfig(model="x"), **values)


def test_the_documentation_shows_these_prompts():
    """People judge a teacher by the prompts that they read there."""
    text = (Path(__file__).parents[2] / "docs" / "teacher.md").read_text()
    block = "Which is a metal? Context: N/A Options: (A) iron (B) wool"
    first = zero_shot_prompt(block)
    solved = [Step("What is wool?", "A fibre.")]
    for prompt in (
        first,
        answer_prompt(first, " Wool is a fibre.", 2),
        few_shot_prompt(block, []),
        decomposition_prompt(block, 4),
        step_prompt(block, solved, "Which is a metal?"),
    ):
        assert f"```\n{prompt}\n```" in text
