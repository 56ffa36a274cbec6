"""What the trainer's checkpoints say of a stage that was stopped."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from mmcot_data.errors import TrainingError
from mmcot_model.distributed import is_main, num_processes, wait_for_all
from mmcot_model.fusion import FusionT5

__all__ = ["best_checkpoint", "is_stopped_early", "last_checkpoint", "load_best"]

_STATE = "trainer_state.json"
_PARTS = ("model.safetensors", "optimizer.pt", "scheduler.pt", _STATE)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; those that were being written or deleted at a stop go.

    Args:
        folder: Of the checkpoints of a stage.
    """
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    wait_for_all()
    if is_main():
        for path in folder.glob("checkpoint-*"):
            if path not in whole:
                shutil.rmtree(path)
    wait_for_all()
    return max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def best_checkpoint(folder: Path, step: int) -> Path:
    """The checkpoint of the best weights.

    Raises:
        TrainingError: If it is gone.
    """
    best = folder / f"checkpoint-{step}"
    if not best.is_dir():
        raise TrainingError(
            f"{best} is gone, which holds the best weights so far: put it back, or delete {folder} "
            "to train the stage anew"
        )
    return best


def is_stopped_early(checkpoint: Path, patience: int | None) -> bool:
    """Whether training had ended at a checkpoint because evaluations became no better."""
    if patience is None:
        return False
    callbacks = _read_state(checkpoint).get("stateful_callbacks", {})
    stopping = callbacks.get("EarlyStoppingCallback", {})
    return bool(
        stopping.get("attributes", {}).get("early_stopping_patience_counter", 0) >= patience
    )


def load_best(model: FusionT5, checkpoint: Path) -> list[dict[str, float]]:
    """Load the best weights that are known at a checkpoint.

    Args:
        model: Changed in place.
        checkpoint: The last one.

    Returns:
        What was logged until then.

    Raises:
        TrainingError: If the best weights are gone.
    """
    state = _read_state(checkpoint)
    best = best_checkpoint(checkpoint.parent, state["best_global_step"])
    weights = load_file(best / "model.safetensors")
    missing, _ = model.load_state_dict(weights, strict=False)
    model.tie_weights()
    tied = set(model.all_tied_weights_keys)
    if lost := sorted(set(missing) - tied):
        raise TrainingError(f"{best} lacks the weights {', '.join(lost[:5])}")
    return list(state["log_history"])


def _is_whole(path: Path) -> bool:
    """Whether every process has written its part."""
    ranks = range(num_processes())
    seeds = ["rng_state.pth"] if len(ranks) == 1 else [f"rng_state_{rank}.pth" for rank in ranks]
    return all((path / name).is_file() for name in (*_PARTS, *seeds))


def _read_state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    return state
