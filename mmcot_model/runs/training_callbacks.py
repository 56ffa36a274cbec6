"""What happens between the steps of the trainer."""

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mmcot_model.batches import LengthSampler
from mmcot_model.distributed import is_main
from mmcot_model.progress import progress_columns
from mmcot_model.runs.checkpoints import best_checkpoint

__all__ = ["KnowBest", "ProgressBar", "SetEpoch"]

logger = logging.getLogger(__name__)


class SetEpoch(TrainerCallback):
    """Gives the sampler its epoch; accelerate does not reach it where an epoch is resumed."""

    def __init__(self, sampler: LengthSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class KnowBest(TrainerCallback):
    """Finds the best checkpoint again where the run folder was moved.

    Args:
        folder: Of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.best_global_step:
            return
        best = best_checkpoint(self.folder, state.best_global_step)
        state.best_model_checkpoint = str(best)


class ProgressBar(TrainerCallback):
    """Shows steps, the time left, the loss and the last evaluation; without a terminal, in lines.

    Args:
        title: What goes on.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.progress = progress_columns()
        if not is_main():
            self.progress.disable = True
        self.evaluation = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.task = self.progress.add_task(
            self.title, total=state.max_steps, completed=state.global_step, note=""
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        scores = {k.removeprefix("eval_"): v for k, v in logs.items() if k.startswith("eval_")}
        if scores:
            self.evaluation = " ".join(f"val {name} {value:.2f}" for name, value in scores.items())
            self._show(state, self.evaluation)
        if "loss" in logs:
            speed = f"{logs['tokens_per_second']:,.0f} tokens/s"
            self._show(state, f"loss {logs['loss']:.4f} {speed}", self.evaluation)

    def _show(self, state: TrainerState, *notes: str) -> None:
        note = " ".join(part for part in notes if part)
        self.progress.update(self.task, note=note)
        if self.progress.disable and is_main():
            line = notes[0]
            logger.info("%s: step %d/%d %s", self.title, state.global_step, state.max_steps, line)
