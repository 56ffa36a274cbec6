"""What mmcot-evaluate does: find the predictions, score them, print and write the scores."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmcot_data.errors import DataError, TrainingError
from mmcot_data.files import write_json
from mmcot_data.prompts import RATIONALE_FORMATS, gold_rationale
from mmcot_data.questions import Question, read_questions, select_split
from mmcot_data.rationales import first_rationales, read_rationales
from mmcot_model.evaluation import Failures, Prediction, Scores, evaluate, read_predictions
from mmcot_model.evaluation.published import comparability, render_paper_table
from mmcot_model.evaluation.reference_files import (
    ReferencePredictions,
    read_reference_predictions,
    write_reference_predictions,
)
from mmcot_model.evaluation.report import rationale_pairs
from mmcot_model.evaluation.subsets import select_where
from mmcot_model.evaluation.tables import render_table
from mmcot_model.runs.folder import read_config, read_run

__all__ = ["print_scores"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """What is scored; made of the arguments and of what the run says."""

    name: str
    predictions: Path
    artifacts: Path
    split: str
    failures: Failures
    seed: int
    prompt_format: str | None
    """What the predictions answer; one of stage 1 for rationales. None: the file tells."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Given:
    """The predictions, and what they are."""

    predictions: list[Prediction]
    prompt_format: str

    @property
    def has_answers(self) -> bool:
        return self.prompt_format not in RATIONALE_FORMATS


def print_scores(args: argparse.Namespace) -> None:
    """Do what the arguments of mmcot-evaluate ask for.

    Raises:
        MmcotError: If something is absent, damaged or does not fit.
    """
    request = _request(args)
    all_questions = read_questions(request.artifacts)
    split = select_split(all_questions, request.split)
    questions = select_where(split, args.where)
    given = _given(request, all_questions, args.rationale_format)
    if args.paper and not given.has_answers:
        raise DataError(f"{request.predictions} holds rationales only: --paper compares answers")
    _check_outside(request, given.predictions, split)
    scores = evaluate(
        questions,
        given.predictions,
        rationale_format=args.rationale_format,
        failures=request.failures,
        seed=request.seed,
        answers=given.has_answers,
    )
    scores = _with_models(args, request, questions, given, scores)
    if args.where:
        chosen = " and ".join(map(str, args.where))
        print(f"{len(questions)} of {len(split)} questions of {request.split}: {chosen}\n")
    print(render_table(scores))
    if args.paper:
        _print_paper_table(request, scores, questions)
    if args.json is not None:
        write_json(args.json, scores.to_json())
    if args.export_reference is not None:
        write_reference_predictions(
            args.export_reference,
            split,
            given.predictions,
            scores,
            prompt_format=given.prompt_format,
        )
    if args.error_analysis:
        _print_error_analysis(args, request)


def _request(args: argparse.Namespace) -> _Request:
    if args.predictions is not None:
        return _Request(
            name=args.predictions.stem,
            predictions=args.predictions,
            artifacts=args.artifacts,
            split=args.split or "test",
            failures=args.failures or "wrong",
            seed=42 if args.seed is None else args.seed,
            prompt_format=None,
        )
    run, config = read_run(args.run), read_config(args.run)
    only_rationales = config.stage == "rationale"
    if only_rationales:
        print(
            f"mmcot-evaluate: {args.run} has no answer stage (it was trained with --stage "
            "rationale): only its rationales are scored",
            file=sys.stderr,
        )
    return _Request(
        name=args.run.resolve().name,
        predictions=args.run / ("rationales.parquet" if only_rationales else "predictions.parquet"),
        artifacts=args.artifacts or args.run / run["artifacts"],
        split=args.split or run["test_split"],
        failures=args.failures or config.failures,
        seed=config.seed if args.seed is None else args.seed,
        prompt_format=config.prompt_format if only_rationales else config.answer_format,
    )


def _given(request: _Request, questions: Sequence[Question], rationale_format: str) -> _Given:
    """Read the predictions, whatever file they are in."""
    form = request.prompt_format
    if form in RATIONALE_FORMATS:
        rationales = first_rationales(read_rationales(request.predictions, questions))
        predictions = [
            Prediction(
                question_id=question.question_id,
                answer=None,
                rationale=rationales[question.question_id],
                reference_rationale=gold_rationale(question, form),
            )
            for question in select_split(questions, request.split)
            if question.question_id in rationales
        ]
        if not predictions:
            raise DataError(
                f"{request.predictions} has no rationale for a question of the split "
                f"{request.split}: choose another --split"
            )
        return _Given(predictions=predictions, prompt_format=form)
    if form is None and request.predictions.suffix == ".json":
        found = read_reference_predictions(request.predictions, questions, request.split)
        _tell_order(request.predictions, found)
        unlabelled = "QCM-A" if found.has_answers else rationale_format
        form = found.prompt_format or unlabelled
        return _Given(predictions=found.predictions, prompt_format=form)
    predictions = read_predictions(request.predictions, questions)
    return _Given(predictions=predictions, prompt_format=form or "QCM-A")


def _tell_order(path: Path, found: ReferencePredictions) -> None:
    """Say what is not certain about which text answers which question."""
    if found.prompt_format is None:
        problem = "has no labels: whether its texts are in the order of the split is not checked"
    elif found.num_unlike:
        problem = (
            f"{found.num_unlike} of its {len(found.predictions)} labels are not the gold texts of "
            "their questions; these questions were changed, or texts stand in another place"
        )
    else:
        return
    print(f"mmcot-evaluate: {path}: {problem}", file=sys.stderr)


def _check_outside(
    request: _Request, predictions: Sequence[Prediction], split: Sequence[Question]
) -> None:
    """Say which predictions are not scored, and refuse those of another split."""
    chosen = {question.question_id for question in split}
    outside = sum(prediction.question_id not in chosen for prediction in predictions)
    if predictions and outside == len(predictions):
        raise DataError(
            f"{request.predictions}: none of its {outside} predictions is for a question of the "
            f"split {request.split}: expected predictions of that split, choose another --split"
        )
    if outside:
        print(
            f"mmcot-evaluate: {outside} of {len(predictions)} predictions are for questions "
            f"outside of the split {request.split} and are left out",
            file=sys.stderr,
        )


def _with_models(
    args: argparse.Namespace,
    request: _Request,
    questions: Sequence[Question],
    given: _Given,
    scores: Scores,
) -> Scores:
    """Add the figures that need a model."""
    if args.similarity is not None:
        from mmcot_model.evaluation.similarity import score_similarity

        pairs = rationale_pairs(questions, given.predictions, args.rationale_format)
        if not pairs:
            raise DataError(
                f"{request.predictions} holds no rationales: there is nothing for --similarity"
            )
        scores = replace(scores, similarity=score_similarity(pairs, args.similarity))
    if args.teacher_forced:
        _hide_loading_bars()
        from mmcot_model.trained.run import read_trained_run
        from mmcot_model.trained.teacher_forcing import score_teacher_forced

        run = read_trained_run(args.run)
        forced = score_teacher_forced(run, questions, request.artifacts, features=args.features)
        scores = replace(scores, teacher_forced=forced)
    return scores


def _print_paper_table(request: _Request, scores: Scores, questions: Sequence[Question]) -> None:
    reason = comparability(questions, request.split)
    print(f"\n{render_paper_table(scores, request.name, reason)}")
    if reason is not None:
        print(f"{request.name} is {reason}.")


def _print_error_analysis(args: argparse.Namespace, request: _Request) -> None:
    _hide_loading_bars()
    from mmcot_model.trained.error_analysis import analyse_errors
    from mmcot_model.trained.error_counts import render_error_tables
    from mmcot_model.trained.run import read_trained_run

    run = read_trained_run(args.run)
    if run.config.test_split != request.split:
        raise TrainingError(f"{args.run}: config.json and run.json name different test splits")
    analysis = analyse_errors(run, request.artifacts, features=args.features)
    print(f"\n{render_error_tables(analysis.overall, analysis.skills)}")
    if analysis.num_unlike:
        print(
            f"mmcot-evaluate: {analysis.num_unlike} of {analysis.overall.n} answers of the run are "
            "others here than in its predictions.parquet: another device, precision or library "
            "rounds differently",
            file=sys.stderr,
        )
    print(f"\n{args.run / 'error_analysis.parquet'}, {args.run / 'error_analysis.json'}: written")


def _hide_loading_bars() -> None:
    """Of transformers, which shows one for each model; ours show what takes long."""
    from transformers.utils import logging

    logging.disable_progress_bar()
