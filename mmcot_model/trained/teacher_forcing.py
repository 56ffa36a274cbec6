"""The figure of Multimodal-CoT's first version: rationales decoded behind gold prefixes."""

from collections.abc import Sequence
from pathlib import Path

from mmcot_data.errors import TrainingError
from mmcot_data.prompts import gold_rationale
from mmcot_data.questions import Question
from mmcot_model.evaluation import RationaleScores, score_rationales
from mmcot_model.trained.run import TrainedRun
from mmcot_model.trained.stage import TrainedStage, open_sources

__all__ = ["score_teacher_forced"]


def score_teacher_forced(
    run: TrainedRun,
    questions: Sequence[Question],
    artifacts: Path,
    *,
    features: Sequence[Path | str] = (),
) -> RationaleScores:
    """Score the teacher-forced rationales of a run's stage 1.

    The references are the same as those of the rationales that it generates.

    Args:
        run: The run.
        questions: What is asked.
        artifacts: Their artifact root.
        features: Where the feature sets are; none takes the places where the run had them.

    Raises:
        TrainingError: If the run has no stage that writes rationales.
    """
    if "rationale" not in run.stages:
        raise TrainingError(
            f"{run.folder} has no rationale stage (it was trained with --stage answer): "
            "--teacher-forced needs a run of --stage both or --stage rationale"
        )
    stage = TrainedStage(
        run, "rationale", open_sources(run, artifacts, questions, features=features)
    )
    texts = stage.teacher_forced(questions, title="decoding behind gold prefixes")
    return score_rationales(
        (texts[q.question_id], gold_rationale(q, stage.prompt_format)) for q in questions
    )
