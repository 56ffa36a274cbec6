"""How a teacher comes from a question to a rationale and an answer: the four methods."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmcot_data.questions import Question
from mmcot_data.row_seeds import row_seed
from mmcot_data.teacher.answers import read_answer
from mmcot_data.teacher.base import Completion, Request, Steps
from mmcot_data.teacher.config import AnswerExtraction, Method, TeacherConfig
from mmcot_data.teacher.prompts import (
    ANSWER_TOKENS,
    Demonstration,
    Step,
    answer_prompt,
    decomposition_prompt,
    few_shot_prompt,
    is_only_thinking,
    one_line,
    question_block,
    read_sub_questions,
    step_prompt,
    without_thinking,
    zero_shot_prompt,
)

__all__ = ["Chain", "Item", "Manner", "write_chain"]


@dataclass(frozen=True, slots=True)
class Item:
    """One rationale to write."""

    question: Question
    sample: int
    block: str
    """The question as the prompts show it."""

    @classmethod
    def of(cls, question: Question, sample: int, caption: str | None) -> "Item":
        """Put a question into words."""
        return cls(question, sample, question_block(question, caption))

    @property
    def key(self) -> tuple[str, int]:
        """As in the table."""
        return (self.question.question_id, self.sample)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """What of a request's settings decides the prompts and how they are completed."""

    method: Method
    extraction: AnswerExtraction
    temperature: float
    top_p: float
    max_new_tokens: int
    max_steps: int
    seed: int
    demonstrations: tuple[Demonstration, ...] = ()

    @classmethod
    def of(cls, config: TeacherConfig, demonstrations: Sequence[Demonstration]) -> "Manner":
        """That of a request."""
        return cls(
            method=config.method,
            extraction=config.extraction,
            temperature=config.temperature,
            top_p=config.top_p,
            max_new_tokens=config.max_new_tokens,
            max_steps=config.max_steps,
            seed=config.seed,
            demonstrations=tuple(demonstrations),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """What the teacher wrote for one item."""

    prompt: str
    """That of the rationale; least-to-most: of the last step."""
    completion: str
    """To it, as it came."""
    answer_prompt: str | None
    answer_completion: str | None
    steps: tuple[Step, ...]
    answer: int | None
    finish_reason: str
    """Of the rationale: the first of its parts that was not ``stop``, else ``stop``."""

    @property
    def text(self) -> str:
        """The rationale on one line, without thoughts; the steps first.

        Empty if the teacher did not come to an end of the thoughts in a part.
        """
        if any(map(is_only_thinking, [*(step.answer for step in self.steps), self.completion])):
            return ""
        parts = [text for step in self.steps for text in (step.question, step.answer)]
        return one_line(" ".join(map(without_thinking, [*parts, self.completion])))

    def columns(self) -> dict[str, Any]:
        """What the table of rationales holds of it."""
        return {
            "rationale": f"Solution: {self.text}".strip(),
            "answer": self.answer,
            "finish_reason": self.finish_reason,
            "prompt": self.prompt,
            "completion": self.completion,
            "answer_prompt": self.answer_prompt,
            "answer_completion": self.answer_completion,
            "steps": [asdict(step) for step in self.steps],
        }


class _Asking:
    """Makes the requests of one item, each with a seed of its own."""

    def __init__(self, item: Item, manner: Manner) -> None:
        self._item = item
        self._manner = manner
        self._num_asked = 0

    def thought(self, prompt: str) -> Request:
        manner = self._manner
        return self._request(prompt, manner.max_new_tokens, manner.temperature, manner.top_p)

    def answer(self, prompt: str) -> Request:
        """The answer is what follows most probably, also where the rationale is drawn."""
        return self._request(prompt, ANSWER_TOKENS, 0.0, 1.0)

    def _request(self, prompt: str, limit: int, temperature: float, top_p: float) -> Request:
        question_id, sample = self._item.key
        seed = row_seed(self._manner.seed, sample, self._num_asked, question_id=question_id)
        self._num_asked += 1
        return Request(
            prompt=prompt, max_new_tokens=limit, temperature=temperature, top_p=top_p, seed=seed
        )


def write_chain(item: Item, manner: Manner) -> Steps[Chain]:
    """Write one rationale and its answer, by any of the methods.

    A demonstration that is the question itself is left out.
    """
    asking = _Asking(item, manner)
    steps: list[Step] = []
    reasons: list[str] = []
    if manner.method == "least-to-most":
        steps, reasons = yield from _solve_steps(item, asking, manner.max_steps)
    prompt = _last_prompt(item, manner, steps)
    completion = yield asking.thought(prompt)
    said = without_thinking(completion.text)
    asked = answered = None
    if manner.extraction == "direct":
        answer = read_answer(said, item.question.choices)
    elif said.strip():
        asked = answer_prompt(prompt, said, len(item.question.choices))
        answered = (yield asking.answer(asked)).text
        answer = read_answer(without_thinking(answered), item.question.choices, continues=True)
    else:
        answer = None
    return Chain(
        prompt=prompt,
        completion=completion.text,
        answer_prompt=asked,
        answer_completion=answered,
        steps=tuple(steps),
        answer=answer,
        finish_reason=_worst([*reasons, completion.finish_reason]),
    )


def _solve_steps(
    item: Item, asking: _Asking, max_steps: int
) -> Steps[tuple[list[Step], list[str]]]:
    """Least-to-most: list simpler questions, and answer each with the answers before it."""
    listed: Completion = yield asking.thought(decomposition_prompt(item.block, max_steps))
    reasons = [listed.finish_reason]
    steps: list[Step] = []
    said = without_thinking(listed.text)
    for question in read_sub_questions(said, item.question.question, max_steps):
        solved: Completion = yield asking.thought(step_prompt(item.block, steps, question))
        reasons.append(solved.finish_reason)
        steps.append(Step(question, one_line(solved.text)))
    return steps, reasons


def _last_prompt(item: Item, manner: Manner, steps: Sequence[Step]) -> str:
    if manner.method == "least-to-most":
        return step_prompt(item.block, steps, item.question.question)
    if manner.method == "zero-shot-cot":
        return zero_shot_prompt(item.block)
    others = [
        each
        for each in manner.demonstrations
        if each.question_id != item.question.question_id and each.block != item.block
    ]
    return few_shot_prompt(item.block, others, with_cue=manner.method == "auto-cot")


def _worst(reasons: Sequence[str]) -> str:
    return next((reason for reason in reasons if reason != "stop"), "stop")
