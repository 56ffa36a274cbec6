"""The run folder: whose it is, and when it is complete.

Its parts, in the order in which they appear:

    config.json            every setting, and digests of what was read
    train.yaml             the settings again, for `mmcot-train --config`
    cuts.json              what was cut off of too long texts
    rationale/             stage 1: model, tokenizer, checkpoints/, history.json
    rationales.parquet     what stage 1 wrote, keyed by question id
    answer/                stage 2, the same
    predictions.parquet    rationale, text and parsed answer of each question of the test split
    scores.json            accuracy buckets and rationale scores
    error_analysis.*       only of `mmcot-evaluate RUN --error-analysis`
    README.md              the run in words and tables, as a model card
    run.json               where everything came from; written last: the run is complete
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mmcot_data.errors import TrainingError
from mmcot_data.files import write_json
from mmcot_data.shards.remote import is_remote
from mmcot_model.distributed import is_main, num_processes
from mmcot_model.runs.card import write_run_card
from mmcot_model.runs.environment import environment
from mmcot_model.runs.inputs import RunInputs
from mmcot_model.settings.config import TrainConfig
from mmcot_model.settings.files import write_config_file

__all__ = [
    "FREE_SETTINGS",
    "claim_folder",
    "finish_folder",
    "is_finished",
    "locked_folder",
    "read_config",
    "read_cuts",
    "read_features_sha256",
    "read_run",
    "write_cuts",
]

_LOCK = ".lock"
_CONFIG_FILE = "train.yaml"
_CUTS = "cuts.json"
FREE_SETTINGS = ("eval_batch_size", "loader_workers", "report_to", "push_to_hub", "hub_private")
"""Settings that may differ when a run goes on: they don't change what it makes."""


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other runs from writing the same folder for as long as the block.

    Of several processes of one run the first does so for all.

    Raises:
        TrainingError: If one is making it.
    """
    if not is_main():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingError(
            f"{folder} is being made by another process: wait for it, or choose another --output"
        ) from error
    try:
        yield
    finally:
        lock.release()


def claim_folder(config: TrainConfig, inputs: RunInputs, *, resume: bool) -> None:
    """Write config.json, or see that the one that is there is the same.

    Args:
        config: The run.
        inputs: What it reads.
        resume: Whether a run that is there may go on.

    Raises:
        TrainingError: If the folder holds something else, a run that is not to go on, or one
            with other settings or other inputs.
    """
    path = config.output / "config.json"
    wanted = config.to_json() | {f"sha256 of {k}": v for k, v in inputs.sha256.items()}
    wanted["processes"] = num_processes()
    own = (path.name, _CONFIG_FILE)
    others = config.output.is_dir() and any(
        p.name not in own and not p.name.startswith(".") for p in config.output.iterdir()
    )
    if not others:
        write_config_file(config.output / _CONFIG_FILE, config)
        write_json(path, wanted)
        return
    if not path.is_file():
        raise TrainingError(
            f"{config.output} is not empty and holds no run: choose another --output"
        )
    if not resume:
        raise TrainingError(
            f"{config.output} holds a run already: --resume continues it, another --output keeps it"
        )
    found = _read_object(path)
    fixed = (wanted.keys() | found.keys()) - set(FREE_SETTINGS)
    different = sorted(k for k in fixed if wanted.get(k) != found.get(k))
    if different:
        listed = "; ".join(f"{k}: was {found.get(k)!r}, now {wanted.get(k)!r}" for k in different)
        raise TrainingError(
            f"{config.output} holds a run with other settings or inputs ({listed}): give the same "
            "to continue it, or another --output"
        )


def is_finished(folder: Path) -> bool:
    """Whether the run is complete."""
    return (folder / "run.json").is_file()


def read_cuts(folder: Path) -> dict[str, Any]:
    """What was cut off so far, by what the texts are for; nothing in a new run."""
    path = folder / _CUTS
    return _read_object(path) if path.is_file() else {}


def write_cuts(folder: Path, cuts: Mapping[str, Any]) -> None:
    """Keep what was cut off, for a run that goes on later."""
    write_json(folder / _CUTS, dict(cuts))


def finish_folder(config: TrainConfig, inputs: RunInputs, cuts: Mapping[str, Any]) -> None:
    """Write the run card, and run.json, which makes the run complete.

    Args:
        config: The run.
        inputs: What it read.
        cuts: What was cut off of too long texts.
    """
    features = inputs.features
    run = {
        "artifacts": str(config.artifacts.resolve()),
        "test_split": config.test_split,
        "features": [] if features is None else [_place(place) for place in features.places],
        "feature_specs": [] if features is None else features.specs,
        "sha256": dict(inputs.sha256),
        "cuts": dict(cuts),
        "environment": environment(),
    }
    write_run_card(config.output, run, config, sorted({q.dataset for q in inputs.questions}))
    write_json(config.output / "run.json", run)


def _place(features: Path | str) -> str:
    return features if isinstance(features, str) else str(features.resolve())


def read_config(folder: Path) -> TrainConfig:
    """The settings of a run, finished or not.

    Raises:
        TrainingError: If the folder holds no run, or its settings are damaged.
    """
    path = folder / "config.json"
    found = _read_settings(path)
    values = {field.name: found[field.name] for field in fields(TrainConfig) if field.name in found}
    try:
        for name in ("artifacts", "output"):
            values[name] = Path(values[name])
        values["features"] = tuple(
            place if is_remote(place) else Path(place) for place in values["features"]
        )
        for name in ("image_roles", "report_to"):
            values[name] = tuple(values[name])
        return TrainConfig(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path}: not the settings of a run: {error!r}") from error


def read_features_sha256(folder: Path) -> str | None:
    """Digest of the feature set's manifest that a run reads; None for a run on the text alone.

    Raises:
        TrainingError: If the folder holds no run, or its settings are damaged.
    """
    digest = _read_settings(folder / "config.json").get("sha256 of features")
    return digest if isinstance(digest, str) else None


def read_run(folder: Path) -> dict[str, Any]:
    """The content of run.json.

    Raises:
        TrainingError: If the folder holds no finished run, or the file is damaged.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise TrainingError(
            f"{path} does not exist; expected the output folder of a finished mmcot-train"
        )
    run = _read_object(path)
    for key in ("artifacts", "test_split"):
        if not isinstance(run.get(key), str):
            raise TrainingError(f"{path}: expected an object with the text {key!r}")
    return run


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise TrainingError(f"{path} does not exist; expected the output folder of an mmcot-train")
    return _read_object(path)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise TrainingError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
