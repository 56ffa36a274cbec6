"""A run: texts and features in; two trained stages, rationales, predictions and scores out."""

from mmcot_model.distributed import is_main, wait_for_all
from mmcot_model.evaluation import Scores, evaluate, read_predictions
from mmcot_model.runs.folder import claim_folder, finish_folder, is_finished, locked_folder
from mmcot_model.runs.inputs import RunInputs, check_splits_apart, read_inputs
from mmcot_model.runs.rationales import choose_rationales
from mmcot_model.settings.config import TrainConfig

__all__ = ["train_run"]


def train_run(config: TrainConfig, *, resume: bool = False) -> Scores | None:
    """Train the stages that ``config`` asks for, and test them.

    Of several processes each calls this; the first writes the files. A run that is finished stays
    as it is.

    Args:
        config: The run.
        resume: Go on with what stands in ``config.output``: finished stages are loaded, an
            unfinished one continues from its last checkpoint.

    Returns:
        The scores of the test split; None if only the rationale stage was trained.

    Raises:
        TrainingError: If ``config.output`` holds another run, a finished or stopped one without
            ``resume``, or one that another process is making, if splits overlap, or a given stage
            cannot be used.
        DataError: If questions, captions or rationales are absent or do not cover a split.
        ShardError: If the feature set cannot be read.
    """
    inputs = read_inputs(config)
    check_splits_apart(config, inputs)
    rationales = choose_rationales(config, inputs)
    with locked_folder(config.output):
        if is_main():
            claim_folder(config, inputs, resume=resume)
        wait_for_all()
        if is_finished(config.output):
            return _scores(config, inputs)
        from mmcot_model.runs.stages import StageRun  # torch and transformers take seconds

        run = StageRun(config, inputs, rationales)
        scores = written = None
        if config.stage != "answer":
            written = run.rationale_stage()
        if config.stage != "rationale":
            scores = run.answer_stage(written)
        if is_main():
            finish_folder(config, inputs, run.cuts)
        wait_for_all()
    return scores


def _scores(config: TrainConfig, inputs: RunInputs) -> Scores | None:
    """What a finished run scored."""
    if config.stage == "rationale":
        return None
    predictions = read_predictions(config.output / "predictions.parquet", inputs.questions)
    return evaluate(inputs.test, predictions, failures=config.failures, seed=config.seed)
