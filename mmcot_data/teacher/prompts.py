"""What the teacher reads: the prompts of all methods, and the heuristics on their parts.

A question is shown as the student sees it (``mmcot_data.prompts``): question, context, options, on
one line. Nothing here looks at the answer, lecture or solution of the question that is asked.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from mmcot_data.prompts import build_prompt
from mmcot_data.questions import OPTION_LETTERS, Question

__all__ = [
    "ANSWER_TOKENS",
    "STOP",
    "Demonstration",
    "Step",
    "answer_prompt",
    "decomposition_prompt",
    "demonstrations_sha256",
    "few_shot_prompt",
    "is_only_thinking",
    "one_line",
    "prompts_sha256",
    "question_block",
    "read_sub_questions",
    "step_prompt",
    "without_thinking",
    "zero_shot_prompt",
]

STOP: Final = "\nQ:"
"""Where a text ends: a base model would go on and ask the next question."""
ANSWER_TOKENS: Final = 32
"""Limit of the second step of an answer."""

_COT: Final = "Let's think step by step."
_ASK: Final = "Q: {block}\nA:"
_DEMONSTRATION: Final = "Q: {block}\nA: {rationale} The answer is ({letter})."
_EXTRACT: Final = "{prompt} {completion}\nTherefore, among A through {last}, the answer is"
_DECOMPOSE: Final = (
    "Q: {block}\nA: To answer this question, we first need to answer these simpler questions, "
    "at most {limit}, one a line:\n1."
)
_PROBLEM: Final = "Problem: {block}"
_SOLVED: Final = "Q: {question}\nA: {answer}"
_SOLVE: Final = "Q: {question}\nA:"
_THINKING: Final = ("<think>", "</think>")
_NUMBER: Final = re.compile(r"^\s*(?:(?:\d+|[a-z])[.):]|[-*•])\s*")


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A question that is shown with its rationale and answer."""

    block: str
    rationale: str
    letter: str
    question_id: str | None
    """None if it is not of the data set."""


@dataclass(frozen=True, slots=True)
class Step:
    """A simpler question, and what the teacher answers to it."""

    question: str
    answer: str
    """On one line, with its thoughts."""


def one_line(text: str) -> str:
    """The text with single blanks for all white space."""
    return " ".join(text.split())


def without_thinking(text: str) -> str:
    """What a model says after the thoughts that it begins with; empty if those have no end.

    Some chat templates open the thoughts, so that the text has their end only.
    """
    begin, end = _THINKING
    _, found, said = text.partition(end)
    if found:
        return said
    return "" if text.lstrip().startswith(begin) else text


def is_only_thinking(text: str) -> bool:
    """Whether a model was still at its thoughts where the text ends."""
    return text.lstrip().startswith(_THINKING[0]) and _THINKING[1] not in text


def question_block(question: Question, caption: str | None = None) -> str:
    """``… Context: … Options: (A) … (B) …``, on one line."""
    source = build_prompt(question, "QCM-A", caption=caption).source
    return source.removeprefix("Question:").removesuffix("Answer:").strip()


def zero_shot_prompt(block: str) -> str:
    """Zero-shot-CoT (Kojima et al., arXiv 2205.11916), first step."""
    return f"{_ASK.format(block=block)} {_COT}"


def few_shot_prompt(
    block: str, demonstrations: Sequence[Demonstration], *, with_cue: bool = False
) -> str:
    """Few-shot-CoT (Wei et al., arXiv 2201.11903): demonstrations, then the question.

    Args:
        block: The question.
        demonstrations: In the order of the prompt.
        with_cue: Begin each rationale as zero-shot-CoT does; so does Auto-CoT (Zhang et al., arXiv
            2210.03493), whose demonstrations were written that way.
    """
    cue = f"{_COT} " if with_cue else ""
    parts = [
        _DEMONSTRATION.format(
            block=each.block, rationale=cue + one_line(each.rationale), letter=each.letter
        )
        for each in demonstrations
    ]
    asked = zero_shot_prompt(block) if with_cue else _ASK.format(block=block)
    return "\n\n".join([*parts, asked])


def answer_prompt(prompt: str, completion: str, num_choices: int) -> str:
    """The second step of zero-shot-CoT: all that was said, then a cue for the answer."""
    return _EXTRACT.format(
        prompt=prompt, completion=completion.strip(), last=OPTION_LETTERS[num_choices - 1]
    )


def decomposition_prompt(block: str, max_steps: int) -> str:
    """Least-to-most prompting (Zhou et al., arXiv 2205.10625), first stage."""
    return _DECOMPOSE.format(block=block, limit=max_steps)


def read_sub_questions(text: str, question: str, max_steps: int) -> list[str]:
    """The simpler questions that a decomposition lists.

    Lines that end with a question mark count, without their number or bullet, each once and in
    their order. The question itself does not: it comes last in any case.
    """
    lines = [one_line(_NUMBER.sub("", line)) for line in text.splitlines()]
    found = [line for line in lines if line.endswith("?") and line != one_line(question)]
    return list(dict.fromkeys(found))[:max_steps]


def step_prompt(block: str, solved: Sequence[Step], question: str) -> str:
    """Least-to-most, second stage: the problem, what is solved of it, and the next question."""
    return "\n\n".join(
        [
            _PROBLEM.format(block=block),
            *(
                _SOLVED.format(
                    question=step.question, answer=one_line(without_thinking(step.answer))
                )
                for step in solved
            ),
            _SOLVE.format(question=one_line(question)),
        ]
    )


def prompts_sha256() -> str:
    """Hex sha256 of all fixed texts and limits above."""
    return _sha256(
        [
            *(STOP, ANSWER_TOKENS, _COT, _ASK, _DEMONSTRATION, _EXTRACT),
            *(_DECOMPOSE, _PROBLEM, _SOLVED, _SOLVE, _NUMBER.pattern, _THINKING),
        ]
    )


def demonstrations_sha256(demonstrations: Sequence[Demonstration]) -> str:
    """Hex sha256 of demonstrations and their order."""
    return _sha256([asdict(each) for each in demonstrations])


def _sha256(content: object) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
