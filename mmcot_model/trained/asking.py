"""Ask a trained run one question, and look at how it comes to its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from mmcot_data.cut_report import CutReport
from mmcot_data.inputs import ModelInput, model_inputs
from mmcot_data.prompts import SOLUTION_CUE, build_prompt, parse_answer
from mmcot_data.questions import Question
from mmcot_model.batches import Collator, Example, FeatureSource
from mmcot_model.fusion import FusionT5
from mmcot_model.generation import generate
from mmcot_model.loading import load_model
from mmcot_model.precision import autocast
from mmcot_model.runs.generating import tokenize_sources
from mmcot_model.trained.choice_scores import ChoiceScore, score_answers
from mmcot_model.trained.explanation import Explanation, explain
from mmcot_model.trained.run import TrainedRun

__all__ = ["Reply", "StageOutput", "ask_run"]

_RationaleSource = Literal["given", "rationale", "answer"]
_ANSWER_START = "The answer is"
_BECAUSE = "BECAUSE:"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageOutput:
    """What one stage made of the question."""

    source: str
    """What it read."""
    text: str
    """What it wrote."""
    finish_reason: Literal["stop", "length"]
    explanation: Explanation | None
    """None where there is no picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a run replies to one question."""

    rationale: str | None
    """What was written, or given, to answer from; what the answer stage wrote beside its answer
    where it writes both. Without ``Solution:`` at the front."""
    rationale_source: _RationaleSource | None = None
    """Who wrote it: the user, or a stage."""
    answer: int | None = None
    """Index of the choice that the text names; None if it names none, or no stage answers."""
    scores: Sequence[ChoiceScore] = ()
    """Of each choice; empty if no stage answers."""
    stages: Mapping[str, StageOutput]
    """By ``rationale`` and ``answer``; those that ran."""
    notes: Sequence[str] = ()
    """What limits the reply, as sentences."""


def ask_run(
    run: TrainedRun,
    question: Question,
    *,
    features: FeatureSource | None,
    caption: str | None = None,
    rationale: str | None = None,
    device: torch.device,
) -> Reply:
    """Let a run write a rationale and answer, as it is tested.

    Args:
        run: The run; ``run.check_question`` tells what it can be asked.
        question: The question; its own answer is not looked at.
        features: Gives the features of its picture by its id; None for a run on the text alone.
        caption: A text for the picture.
        rationale: To answer from, instead of one that the run writes.
        device: What computes.

    Raises:
        TrainingError: If a model can't be loaded, reads features of another form, or is not the
            one that was tested.
    """
    captions = {} if caption is None else {question.question_id: caption}
    stages: dict[str, StageOutput] = {}
    notes: list[str] = []

    def ask(name: str, prompt_format: str, shown: str | None = None) -> _Stage:
        rationales = None if shown is None else {question.question_id: shown}
        (text,) = model_inputs([question], prompt_format, captions, rationales)
        stage = _Stage(run, name, features, device, notes)
        stages[name] = stage.reply(text)
        return stage

    source: _RationaleSource | None = None
    shown = None
    if rationale is not None:
        one_line = " ".join(rationale.split())
        shown, source = f"{SOLUTION_CUE} {_without_cue(one_line)}", "given"
    elif "rationale" in run.stages:
        ask("rationale", run.config.prompt_format)
        shown, source = stages["rationale"].text, "rationale"
    rationale = None if shown is None else _without_cue(shown)
    if "answer" not in run.stages:
        return Reply(rationale=rationale, rationale_source=source, stages=stages, notes=notes)
    prompt_format = run.config.answer_format
    stage = ask("answer", prompt_format, shown)
    text = stages["answer"].text
    before = _before_answer(text, prompt_format)
    scores = stage.score(question, before=before, ends=prompt_format != "QCM-ALE")
    if rationale is None and (beside := before or _after_answer(text, prompt_format)):
        rationale, source = beside, "answer"
    return Reply(
        rationale=rationale,
        rationale_source=source,
        answer=parse_answer(text, len(question.choices)),
        scores=scores,
        stages=stages,
        notes=notes,
    )


class _Stage:
    """A loaded stage that is asked one question."""

    def __init__(
        self,
        run: TrainedRun,
        name: str,
        features: FeatureSource | None,
        device: torch.device,
        notes: list[str],
    ) -> None:
        self.name = name
        self._notes = notes
        self._run = run
        run.check_model(name)
        loaded: Any
        loaded, self._tokenizer = load_model(run.model(name), layout=run.layout, trained=True)
        self._model: FusionT5 = loaded.to(device).eval()
        self._collate = Collator(self._tokenizer.pad_token_id, features, pad_multiple=1)
        self._batch: dict[str, torch.Tensor] = {}

    def reply(self, text: ModelInput) -> StageOutput:
        """Write what the source asks for."""
        config = self._run.config
        tokenized = tokenize_sources(self._tokenizer, [text], config)
        (example,) = tokenized.examples
        batch = self._collate([example])
        del batch["labels"]
        self._batch = {name: tensor.to(self._model.device) for name, tensor in batch.items()}
        (written,) = generate(
            self._model,
            self._tokenizer,
            [example],
            self._collate,
            max_new_tokens=self._run.config.max_target(self.name),
            batch_size=1,
            precision=config.precision,
        )
        self._note_limits(example, tokenized.cuts, written.finish_reason)
        with autocast(config.precision, self._model.device):
            explanation = explain(self._model, self._tokenizer, self._batch)
        return StageOutput(
            source=text.source,
            text=written.text,
            finish_reason=written.finish_reason,
            explanation=explanation,
        )

    def score(self, question: Question, *, before: str, ends: bool) -> list[ChoiceScore]:
        """Score each choice as the answer to the source of ``reply``.

        Args:
            question: Whose choices.
            before: As for ``score_answers``.
            ends: As for ``score_answers``.
        """
        answers = [
            str(build_prompt(replace(question, answer=index), "QCM-A").target)
            for index in range(len(question.choices))
        ]
        rows = [tuple(ids) for ids in self._tokenizer(answers).input_ids]
        if alike := [text for text, row in zip(answers, rows, strict=True) if rows.count(row) > 1]:
            self._notes.append(
                f"the tokenizer of the {self.name} stage does not tell apart "
                f"{' and '.join(map(repr, alike))}: it learned from questions with fewer choices"
            )
        with autocast(self._run.config.precision, self._model.device):
            return score_answers(
                self._model, self._tokenizer, self._batch, answers, before=before, ends=ends
            )

    def _note_limits(self, example: Example, cuts: CutReport, finish_reason: str) -> None:
        if cuts.sources.num_cut:
            self._notes.append(
                f"the {self.name} stage reads {cuts.sources.limit} tokens and did not see "
                f"{cuts.sources.tokens_cut} more, of the {', '.join(cuts.source_parts)}"
            )
        if finish_reason == "length":
            limit = self._run.config.max_target(self.name)
            self._notes.append(f"the {self.name} stage was cut off at {limit} tokens")
        ids = example.input_ids
        if num_unknown := ids.count(self._tokenizer.unk_token_id):
            self._notes.append(
                f"{num_unknown} of the {len(ids)} tokens that the {self.name} stage reads are "
                "unknown to its tokenizer"
            )


def _before_answer(text: str, prompt_format: str) -> str:
    """What a QCM-LEA model wrote before its answer."""
    if prompt_format != "QCM-LEA":
        return ""
    before, answer, _ = text.rpartition(_ANSWER_START)
    return before.strip() if answer else text


def _after_answer(text: str, prompt_format: str) -> str:
    """What a QCM-ALE model wrote after its answer."""
    return text.partition(_BECAUSE)[2].strip() if prompt_format == "QCM-ALE" else ""


def _without_cue(rationale: str) -> str:
    return rationale.strip().removeprefix(SOLUTION_CUE).strip()
