"""Train one stage: a thin layer over transformers' Trainer.

Shape suffixes: B = batch, S = source tokens, T = target tokens.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import (
    EarlyStoppingCallback,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from mmcot_data.errors import TrainingError
from mmcot_data.files import sync_files, write_json
from mmcot_model.batches import Collator, Example, ExampleDataset, LengthSampler
from mmcot_model.distributed import is_main, num_processes, wait_for_all
from mmcot_model.fusion import FusionT5
from mmcot_model.precision import uses_bf16
from mmcot_model.runs.checkpoints import is_stopped_early, last_checkpoint, load_best
from mmcot_model.runs.reporters import end_reports
from mmcot_model.runs.training_callbacks import KnowBest, ProgressBar, SetEpoch
from mmcot_model.settings.config import TrainConfig

__all__ = ["StageSettings", "Validation", "is_trained", "train_stage"]

logger = logging.getLogger(__name__)

_HISTORY = "history.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """How a stage is evaluated in training."""

    metric: str
    """The entry of ``run``'s result that is to be as large as possible."""
    run: Callable[[FusionT5], dict[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSettings:
    """Which stage is trained, and for how long; all else is the run's."""

    name: str
    """For the progress bar."""
    epochs: float
    config: TrainConfig


def train_stage(
    model: FusionT5,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    collate: Collator,
    folder: Path,
    settings: StageSettings,
    validation: Validation | None = None,
) -> None:
    """Train ``model`` and save it, with its tokenizer, in ``folder``.

    Checkpoints stand in ``folder/checkpoints``; where there are some, training goes on from the
    last and gives the same weights as if it had not stopped. ``folder/history.json`` holds the
    logged losses and evaluations; it is written last. Of several processes each trains on its part
    of every step.

    Args:
        model: Changed in place.
        tokenizer: Saved beside the model.
        examples: Training questions.
        collate: Makes batches and fetches features.
        folder: Of this stage.
        settings: Optimization.
        validation: Chooses the weights that are kept; None keeps the last.

    Raises:
        TrainingError: If the checkpoint of the best weights is gone.
    """
    config = settings.config
    checkpoints = folder.resolve() / "checkpoints"
    questions_per_step = config.batch_size * config.gradient_accumulation * num_processes()
    steps_per_epoch = -(-len(examples) // questions_per_step)
    total_steps = config.max_steps or max(1, round(settings.epochs * steps_per_epoch))
    evaluate_every = min(steps_per_epoch, total_steps)
    bar = ProgressBar(settings.name)
    callbacks: list[TrainerCallback] = [bar]
    if validation is not None:
        callbacks.append(KnowBest(checkpoints))
    if config.early_stopping is not None:
        callbacks.append(EarlyStoppingCallback(config.early_stopping))
    trainer = _FusionTrainer(
        length_window=config.length_window,
        validation=validation,
        model=model,
        args=_one_device(
            TrainingArguments(
                output_dir=str(checkpoints),
                run_name=f"{config.output.name}/{folder.name}",
                per_device_train_batch_size=config.batch_size,
                gradient_accumulation_steps=config.gradient_accumulation,
                activation_checkpointing=config.gradient_checkpointing,
                num_train_epochs=settings.epochs,
                max_steps=total_steps,
                optim="adamw_torch_fused",
                learning_rate=config.learning_rate,
                warmup_steps=round(config.warmup * total_steps),
                weight_decay=config.weight_decay,
                max_grad_norm=1.0,
                bf16=uses_bf16(config.precision),
                use_cpu=not torch.accelerator.is_available(),
                torch_compile=config.compile,
                logging_steps=max(1, total_steps // 100),
                save_steps=evaluate_every if validation else max(1, total_steps // 10),
                save_total_limit=1 if validation is None else 2,  # the last, and the best
                eval_strategy="no" if validation is None else "steps",
                eval_steps=evaluate_every,
                load_best_model_at_end=validation is not None,
                metric_for_best_model=None if validation is None else f"eval_{validation.metric}",
                greater_is_better=None if validation is None else True,
                restore_callback_states_from_checkpoint=config.early_stopping is not None,
                seed=config.seed,
                data_seed=config.seed,
                remove_unused_columns=False,
                report_to=list(config.report_to),
                project="mmcot",
                disable_tqdm=True,
                dataloader_num_workers=config.loader_workers,
                dataloader_pin_memory=torch.cuda.is_available(),
            )
        ),
        train_dataset=ExampleDataset(examples),
        eval_dataset=ExampleDataset([]),
        data_collator=collate,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    last = last_checkpoint(checkpoints)
    if last is not None and is_stopped_early(last, config.early_stopping):
        history = load_best(model, last)
    else:
        with bar.progress:
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
        # The trainer leaves the model computing in bfloat16 whatever is asked of it later.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
        history = trainer.state.log_history
    end_reports(config.report_to)
    if is_main():
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        sync_files(folder)
        write_json(folder / _HISTORY, history)
    wait_for_all()


def is_trained(folder: Path) -> bool:
    """Whether a stage is trained and saved."""
    return (folder / _HISTORY).is_file()


def _one_device(arguments: TrainingArguments) -> TrainingArguments:
    """Keep the trainer from spreading one process over all devices, which is slower than one."""
    if arguments.n_gpu > 1:
        logger.warning(
            "1 of %d GPUs is used: `torchrun --nproc-per-node %d -m mmcot_model.cli.train …` uses "
            "them all",
            arguments.n_gpu,
            arguments.n_gpu,
        )
        arguments._n_gpu = 1
    return arguments


class _Speed:
    """Tokens a second of this process since the last time that somebody asked."""

    def __init__(self) -> None:
        self.tokens: torch.Tensor | int = 0
        self.since = time.perf_counter()

    def count(self, tokens: torch.Tensor) -> None:
        """Add the tokens of a batch; nothing is copied from the device."""
        self.tokens = self.tokens + tokens

    def take(self) -> float:
        """The speed; the count begins anew."""
        now = time.perf_counter()
        speed = float(self.tokens) / max(now - self.since, 1e-9)
        self.tokens, self.since = 0, now
        return speed

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of the block."""
        start = time.perf_counter()
        yield
        self.since += time.perf_counter() - start


class _FusionTrainer(Trainer):
    """Trainer whose batches hold texts of like lengths, and that evaluates by generating."""

    def __init__(self, *, length_window: int, validation: Validation | None, **kwargs: Any) -> None:
        self.length_window = length_window
        self.validation = validation
        self.speed = _Speed()
        super().__init__(**kwargs)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One batch; its tokens are counted for the progress bar."""
        self.speed.count(inputs["attention_mask"].sum() + (inputs["labels"] >= 0).sum())
        return super().training_step(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the tokens of source and target a second."""
        if "loss" in logs:
            self._check_finite(logs)
            logs["tokens_per_second"] = self.speed.take()
        super().log(logs, start_time)

    def _check_finite(self, logs: dict[str, float]) -> None:
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise TrainingError(
                    f"{name} is {logs[name]} at step {self.state.global_step}: the weights are "
                    "lost from there on; train anew with a lower --learning-rate, more --warmup, "
                    "or --precision fp32"
                )

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Generate and score, in place of the trainer's teacher-forced loop."""
        if self.validation is None:
            raise TrainingError("this stage has no validation")
        model: Any = self.model
        with self.speed.paused():
            scores = self.validation.run(model)
        model.train()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        world_size = self.args.world_size
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        sampler = LengthSampler(
            [(len(example.input_ids), len(example.labels)) for example in dataset.examples],
            per_step * world_size,
            seed=self.args.seed,
            window=self.length_window,
            multiple=self.args.train_batch_size * world_size if world_size > 1 else 1,
        )
        self.add_callback(SetEpoch(sampler))
        return sampler
