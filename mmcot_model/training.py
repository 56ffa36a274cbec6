"""Train one stage: a thin layer over transformers' Trainer."""

import importlib.util
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from mmcot_data.files import sync_files, write_json
from mmcot_model.batches import Collator, Example, ExampleDataset, LengthSampler
from mmcot_model.fusion import FusionT5
from mmcot_model.progress import progress_columns

__all__ = ["StageSettings", "is_trained", "train_stage"]

logger = logging.getLogger(__name__)

_HISTORY = "history.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSettings:
    """Optimization of one stage."""

    name: str
    epochs: float
    max_steps: int | None
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    length_window: int
    seed: int


def train_stage(
    model: FusionT5,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    collate: Collator,
    folder: Path,
    settings: StageSettings,
) -> None:
    """Train ``model`` and save it, with its tokenizer, in ``folder``.

    Checkpoints stand in ``folder/checkpoints``; where there are some, training goes on from the
    last and gives the same weights as if it had not stopped. ``folder/history.json`` holds the
    logged losses; it is written last.

    Args:
        model: Changed in place.
        tokenizer: Saved beside the model.
        examples: Training questions.
        collate: Makes batches and fetches features.
        folder: Of this stage.
        settings: Optimization.
    """
    checkpoints = folder / "checkpoints"
    steps_per_epoch = -(-len(examples) // settings.batch_size)
    total_steps = settings.max_steps or round(settings.epochs * steps_per_epoch)
    bar = _ProgressBar(settings.name)
    trainer = _FusionTrainer(
        length_window=settings.length_window,
        model=model,
        args=TrainingArguments(
            output_dir=str(checkpoints),
            per_device_train_batch_size=settings.batch_size,
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            learning_rate=settings.learning_rate,
            warmup_steps=round(settings.warmup * total_steps),
            weight_decay=settings.weight_decay,
            max_grad_norm=1.0,
            logging_steps=max(1, total_steps // 100),
            save_steps=max(1, total_steps // 10),
            save_total_limit=1,
            seed=settings.seed,
            data_seed=settings.seed,
            remove_unused_columns=False,
            report_to=["tensorboard"] if importlib.util.find_spec("tensorboard") else [],
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
        train_dataset=ExampleDataset(examples),
        data_collator=collate,
        callbacks=[bar],
    )
    trainer.remove_callback(PrinterCallback)
    with bar.progress:
        trainer.train(resume_from_checkpoint=_last_checkpoint(checkpoints))
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    sync_files(folder)
    write_json(folder / _HISTORY, trainer.state.log_history)


def is_trained(folder: Path) -> bool:
    """Whether a stage is trained and saved."""
    return (folder / _HISTORY).is_file()


def _last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; one that was being written at a stop is deleted."""
    whole: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        if (path / "trainer_state.json").is_file():  # what the trainer writes last
            whole.append((int(path.name.removeprefix("checkpoint-")), path))
        else:
            shutil.rmtree(path)
    return str(max(whole)[1]) if whole else None


class _FusionTrainer(Trainer):
    """Trainer whose batches hold texts of like lengths."""

    def __init__(self, *, length_window: int, **kwargs: Any) -> None:
        self.length_window = length_window
        super().__init__(**kwargs)

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        sampler = LengthSampler(
            [len(example.input_ids) + len(example.labels) for example in dataset.examples],
            self.args.train_batch_size * self.args.world_size,
            seed=self.args.seed,
            window=self.length_window,
        )
        self.add_callback(_SetEpoch(sampler))
        return sampler


class _SetEpoch(TrainerCallback):
    """Gives the sampler its epoch; accelerate does not reach it where an epoch is resumed."""

    def __init__(self, sampler: LengthSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class _ProgressBar(TrainerCallback):
    """Shows steps, the time left and the loss; where there is no terminal, a line per log."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.progress = progress_columns()

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
        if logs and "loss" in logs:
            note = f"loss {logs['loss']:.4f}"
            self.progress.update(self.task, note=note)
            if self.progress.disable:
                logger.info(
                    "%s: step %d/%d %s", self.title, state.global_step, state.max_steps, note
                )
