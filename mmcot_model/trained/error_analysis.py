"""Where the errors of a run come from: its rationale, its picture, or neither.

The test split is answered again, each time with one thing changed. Multimodal-CoT (arXiv
2302.00923, section 3.2) looked at 50 wrong answers by hand, found that most were drawn from
rationales that say what is not there ("hallucinated"), and that pictures correct most of these.
Here all questions are counted and nothing is judged by hand: a rationale that differs from the gold
one is not always wrong, and what a trained model does without pictures is not what one does that
was trained without them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import DataError, TrainingError
from mmcot_data.files import write_json, write_parquet
from mmcot_data.prompts import gold_rationale, parse_answer
from mmcot_data.questions import Question, read_questions, select_split
from mmcot_model.evaluation import Prediction, read_predictions
from mmcot_model.trained.error_counts import (
    AS_RUN,
    CONDITIONS,
    ConditionAnswer,
    ErrorCounts,
    count_by_skill,
    count_errors,
)
from mmcot_model.trained.run import TrainedRun
from mmcot_model.trained.stage import StageSources, TrainedStage, open_sources

__all__ = ["ErrorAnalysis", "analyse_errors"]

_SCHEMA = pl.Schema(
    {
        "question_id": pl.String(),
        "condition": pl.String(),
        "rationale": pl.String(),
        "text": pl.String(),
        "answer": pl.Int32(),
        "correct": pl.Boolean(),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorAnalysis:
    """The counts, and what they were counted from."""

    answers: Sequence[ConditionAnswer]
    overall: ErrorCounts
    skills: Mapping[str, ErrorCounts]
    num_unlike: int
    """Answers of the run as it is tested that are others than in its predictions.parquet."""


def analyse_errors(
    run: TrainedRun, artifacts: Path, *, features: Sequence[Path | str] = ()
) -> ErrorAnalysis:
    """Answer the test split under all conditions, and write error_analysis.parquet and .json.

    Args:
        run: A run with an answer stage.
        artifacts: The artifact root.
        features: Where the feature sets are; none takes the places where the run had them.

    Raises:
        TrainingError: If the run has no answer stage, or nothing that could be changed.
        DataError: If its predictions do not cover its test split.
        ShardError: If a feature set cannot be read.
    """
    names = _conditions(run)
    all_questions = read_questions(artifacts)
    questions = select_split(all_questions, run.config.test_split)
    path = run.folder / "predictions.parquet"
    predictions = {p.question_id: p for p in read_predictions(path, all_questions)}
    missing = [q.question_id for q in questions if q.question_id not in predictions]
    if missing:
        raise DataError(
            f"{path} lacks {len(missing)} of the {len(questions)} questions of "
            f"{run.config.test_split}, the first is {missing[0]!r}: expected the data that the run "
            "was tested on"
        )
    sources = open_sources(run, artifacts, questions, features=features)
    asking = _Asking(run, questions, predictions, sources)
    answers = [answer for name in names for answer in asking.answers(name)]
    about: dict[str, Any] = {"pictures": asking.pictures, "differing": asking.differing()}
    analysis = ErrorAnalysis(
        answers=answers,
        overall=count_errors(questions, answers, **about),
        skills=count_by_skill(questions, answers, **about),
        num_unlike=sum(
            answer.answer != predictions[answer.question_id].answer
            for answer in answers
            if answer.condition == AS_RUN
        ),
    )
    _write(run, analysis)
    return analysis


def _conditions(run: TrainedRun) -> list[str]:
    """The conditions in which a run can be asked; the first is the run as it is tested."""
    if "answer" not in run.stages:
        raise TrainingError(
            f"{run.folder} has no answer stage (it was trained with --stage rationale), so that it "
            "has no answers to analyse"
        )
    names = [AS_RUN]
    if run.config.reads_rationales:
        names.append("gold_rationale")
    if run.specs:
        # Rationales that came from elsewhere cannot be written anew without the picture.
        own = run.config.stage == "both" and run.config.rationales is None
        if own or not run.config.reads_rationales:
            names.append("no_picture")
        if run.config.reads_rationales:
            names.append("no_picture_in_answer")
    if names == [AS_RUN]:
        raise TrainingError(
            f"{run.folder} reads neither rationales nor pictures: there is nothing to leave out, "
            "and so nothing to analyse"
        )
    return names


class _Asking:
    """Asks a run the questions of its test split."""

    def __init__(
        self,
        run: TrainedRun,
        questions: Sequence[Question],
        predictions: Mapping[str, Prediction],
        sources: StageSources,
    ) -> None:
        self.run = run
        self.questions = questions
        self.sources = sources
        features = sources.features
        self.pictures = {
            q.question_id for q in questions if features is not None and q.question_id in features
        }
        self.rationales: dict[str, str] | None = None
        self.gold: dict[str, str] = {}
        if run.config.reads_rationales:
            given = {q.question_id: predictions[q.question_id] for q in questions}
            self.rationales = {key: each.rationale or "" for key, each in given.items()}
            self.gold = {
                q.question_id: gold_rationale(q, "QCM-LE") if reference is None else reference
                for q in questions
                for reference in (given[q.question_id].reference_rationale,)
            }
        self.stage = TrainedStage(run, "answer", sources)
        self._texts: dict[str, str] = {}

    def answers(self, condition: str) -> list[ConditionAnswer]:
        """Ask under a condition; the first that is asked must be ``AS_RUN``."""
        rationales, pictures = self.rationales, True
        asked = list(self.questions)
        if condition == "gold_rationale":
            rationales = self.gold
        elif condition != AS_RUN:
            # Without a picture nothing is different for a question that has none.
            pictures = False
            asked = [q for q in self.questions if q.question_id in self.pictures]
            if condition == "no_picture" and rationales is not None:
                rationales = rationales | self._rationales_without_pictures(asked)
        title = f"answering: {CONDITIONS[condition]}"
        texts = self._texts | self.stage.write(asked, rationales, title=title, pictures=pictures)
        if condition == AS_RUN:
            self._texts = texts
        rows = []
        for question in self.questions:
            text = texts[question.question_id]
            answer = parse_answer(text, len(question.choices))
            rows.append(
                ConditionAnswer(
                    question_id=question.question_id,
                    condition=condition,
                    rationale=None if rationales is None else rationales[question.question_id],
                    text=text,
                    answer=answer,
                    correct=answer == question.answer,
                )
            )
        return rows

    def differing(self) -> set[str] | None:
        """Questions whose rationale is not the gold one, as the answer stage reads both."""
        if self.rationales is None:
            return None
        return {
            key
            for key, text in self.rationales.items()
            if self._comparable(text) != self._comparable(self.gold[key])
        }

    def _rationales_without_pictures(self, asked: Sequence[Question]) -> dict[str, str]:
        writer = TrainedStage(self.run, "rationale", self.sources)
        return writer.write(asked, title="writing rationales: no picture", pictures=False)

    def _comparable(self, text: str) -> str:
        """Without blanks and full stops at the end, of which QCM-LE has one too many."""
        return " ".join(self.stage.as_read(text).split()).rstrip(". ")


def _write(run: TrainedRun, analysis: ErrorAnalysis) -> None:
    rows = [asdict(answer) for answer in analysis.answers]
    write_parquet(run.folder / "error_analysis.parquet", pl.DataFrame(rows, schema=_SCHEMA))
    write_json(
        run.folder / "error_analysis.json",
        {
            "test_split": run.config.test_split,
            "conditions": {name: CONDITIONS[name] for name in analysis.overall.conditions},
            "answers_unlike_predictions": analysis.num_unlike,
            "overall": analysis.overall.to_json(),
            "skills": {skill: counts.to_json() for skill, counts in analysis.skills.items()},
        },
    )
