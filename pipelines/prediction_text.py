"""A reply of mmcot-predict as text to read and as JSON."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from mmcot_data.images import bytes_sha256
from mmcot_data.questions import OPTION_LETTERS
from mmcot_data.shards import FeatureSpec
from mmcot_model.trained.asking import Reply, StageOutput
from mmcot_model.trained.explanation import Explanation
from mmcot_model.trained.run import TrainedRun
from pipelines.asked_question import AskedQuestion

__all__ = ["best_choice", "describe_answer", "parts_by_encoder", "render_reply", "reply_as_json"]

_WIDTH = 96


def best_choice(reply: Reply) -> int | None:
    """Index of the most probable choice; None if there are no scores."""
    if not reply.scores:
        return None
    return max(range(len(reply.scores)), key=lambda i: reply.scores[i].log_likelihood)


def describe_answer(asked: AskedQuestion, reply: Reply) -> str:
    """The answer in words, and what the scores say against it."""
    written = reply.stages["answer"].text
    best = best_choice(reply)
    if reply.answer is None:
        return f"none: the model wrote {written!r}, which names no choice; most probable is " + (
            _choice(asked, best)
        )
    answer = _choice(asked, reply.answer)
    if reply.answer != best:
        answer += f" (written), but {_choice(asked, best)} is more probable"
    return answer


def render_reply(run: TrainedRun, asked: AskedQuestion, reply: Reply) -> str:
    """The reply as lines of text."""
    question = asked.question
    lines = textwrap.wrap(question.question, _WIDTH)
    context = f"{question.hint} {asked.caption or ''}".strip()
    lines += textwrap.wrap(context, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    lines.append("")
    width = min(60, max(map(len, question.choices)))
    for index, choice in enumerate(question.choices):
        mark = ">" if "answer" in reply.stages and index == reply.answer else " "
        line = f"{mark} ({OPTION_LETTERS[index]}) {choice:{width}}"
        if reply.scores:
            line += f"  {reply.scores[index].probability:6.1%}"
        lines.append(line.rstrip())
    lines.append("")
    if reply.rationale is not None:
        given = " (given)" if reply.rationale_source == "given" else ""
        lines += _named("rationale", f"{reply.rationale}{given}")
    if "answer" in reply.stages:
        lines += _named("answer", describe_answer(asked, reply))
        if question.answer is not None:
            lines += _named("right", _choice(asked, question.answer))
    for name, stage in reply.stages.items():
        if stage.explanation is not None:
            lines += _named("picture", f"{name} stage: {_summary(stage.explanation, run.specs)}")
    for note in reply.notes:
        lines += _named("note", note)
    return "\n".join(lines) + "\n"


def reply_as_json(run: TrainedRun, asked: AskedQuestion, reply: Reply) -> dict[str, Any]:
    """The reply, and what it was made of, as a JSON object."""
    question, picture, best = asked.question, asked.picture, best_choice(reply)
    return {
        "run": str(run.folder.resolve()),
        "models": {stage: run.model(stage) for stage in reply.stages},
        "question_id": question.question_id or None,
        "question": question.question,
        "hint": question.hint,
        "caption": asked.caption,
        "picture": picture
        and {"file": picture.name, "image_sha256": bytes_sha256(picture.content)},
        "rationale": reply.rationale,
        "rationale_source": reply.rationale_source,
        "answer": _answer_as_json(asked, reply.answer),
        "right_answer": _answer_as_json(asked, question.answer),
        "most_probable": _answer_as_json(asked, best),
        "choices": [
            {
                "letter": OPTION_LETTERS[index],
                "text": choice,
                "log_likelihood": reply.scores[index].log_likelihood if reply.scores else None,
                "probability": reply.scores[index].probability if reply.scores else None,
            }
            for index, choice in enumerate(question.choices)
        ],
        "stages": {name: _stage_as_json(run, stage) for name, stage in reply.stages.items()},
        "feature_specs": [spec.to_json() for spec in run.specs],
        "notes": list(reply.notes),
    }


def parts_by_encoder(
    explanation: Explanation, specs: Sequence[FeatureSpec]
) -> Iterator[tuple[FeatureSpec, Any]]:
    """The attention to the patches of each encoder, in their order."""
    attention_P, start = explanation.by_patch(), 0
    for spec in specs:
        yield spec, attention_P[start : start + spec.num_patches]
        start += spec.num_patches


def _stage_as_json(run: TrainedRun, stage: StageOutput) -> dict[str, Any]:
    explanation = stage.explanation
    return {
        "source": stage.source,
        "text": stage.text,
        "finish_reason": stage.finish_reason,
        "gate": explanation
        and {
            "mean": explanation.mean_gate,
            "tokens": [
                {"token": token, "gate": gate}
                for token, gate in zip(explanation.tokens, explanation.gate_S.tolist(), strict=True)
            ],
        },
        "attention": explanation
        and [
            {"encoder": spec.encoder, "grid": spec.grid, "patches": attention_P.tolist()}
            for spec, attention_P in parts_by_encoder(explanation, run.specs)
        ],
    }


def _answer_as_json(asked: AskedQuestion, index: int | None) -> dict[str, Any] | None:
    if index is None:
        return None
    text = asked.question.choices[index]
    return {"index": index, "letter": OPTION_LETTERS[index], "text": text}


def _choice(asked: AskedQuestion, index: int | None) -> str:
    return "" if index is None else f"({OPTION_LETTERS[index]}) {asked.question.choices[index]}"


def _summary(explanation: Explanation, specs: Sequence[FeatureSpec]) -> str:
    text = f"gate open {explanation.mean_gate:.0%} on average"
    if len(specs) > 1:
        shares = (
            f"{spec.encoder} {attention_P.sum():.0%}"
            for spec, attention_P in parts_by_encoder(explanation, specs)
        )
        text += f"; attention to {', '.join(shares)}"
    return text


def _named(name: str, text: str) -> list[str]:
    indent = " " * 11
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{name:<11}", subsequent_indent=indent) or [
        name
    ]
