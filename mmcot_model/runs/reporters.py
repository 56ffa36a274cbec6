"""Experiment trackers that a run can report to."""

import importlib
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from mmcot_data.errors import TrainingError
from mmcot_model.distributed import is_main

__all__ = ["REPORTERS", "check_reporters", "end_reports"]

REPORTERS = ("tensorboard", "wandb", "trackio", "mlflow")
"""Names that transformers knows them by; each is also the name of its package."""


def check_reporters(names: Sequence[str]) -> None:
    """See that trackers are known, installed and would take a report, before anything is trained.

    W&B asks for its key here if there is a terminal.

    Raises:
        TrainingError: If one is not, or W&B has no key or cannot be reached.
    """
    if unknown := [name for name in names if name not in REPORTERS]:
        raise TrainingError(
            f"no experiment tracker {', '.join(unknown)}: expected {', '.join(REPORTERS)}"
        )
    if absent := [name for name in names if importlib.util.find_spec(name) is None]:
        raise TrainingError(
            f"--report-to {' '.join(names)} needs {' and '.join(absent)}, not installed here: "
            f"pip install {' '.join(absent)}, or leave {'it' if len(absent) == 1 else 'them'} out"
        )
    if "wandb" in names and is_main():
        _check_wandb()


def end_reports(names: Sequence[str]) -> None:
    """Close the report of a stage, which would go on into the next one's.

    Of W&B's run, which transformers leaves open; it ends those of the others itself.
    """
    if "wandb" in names and is_main():
        wandb: Any = importlib.import_module("wandb")
        wandb.finish()


def _check_wandb() -> None:
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return
    wandb: Any = importlib.import_module("wandb")
    try:
        wandb.login()
    except wandb.errors.Error as error:
        raise TrainingError(
            f"--report-to wandb: {error} Without a network set WANDB_MODE=offline, and send the "
            "run later with `wandb sync`"
        ) from error
