"""The run folder: whose it is, and when it is complete.

Its parts, in the order in which they appear:

    config.json            every setting
    rationale/             stage 1: model, tokenizer, history.json, checkpoints/
    rationales.parquet     what stage 1 wrote for the test split, keyed by question id
    answer/                stage 2, the same
    predictions.parquet    rationale, text and parsed answer of each question of the test split
    scores.json            accuracy buckets and rationale scores
    run.json               where everything came from; written last: the run is complete
"""

import importlib.metadata
import json
import platform

from mmcot_data.errors import TrainingError
from mmcot_data.files import file_sha256, write_json
from mmcot_data.shards import FeatureSpec
from mmcot_model.config import TrainConfig

__all__ = ["claim_folder", "finish_folder"]


def claim_folder(config: TrainConfig, *, resume: bool) -> None:
    """Write config.json, or see that the one that is there is the same.

    Args:
        config: The run.
        resume: Whether a run that is there may go on.

    Raises:
        TrainingError: If the folder holds another run or something else, or one that is not
            to go on.
    """
    path = config.output / "config.json"
    wanted = config.to_json()
    if path.is_file():
        if not resume:
            raise TrainingError(
                f"{config.output} holds a run already: --resume continues it, another --output "
                "keeps it"
            )
        found = json.loads(path.read_text(encoding="utf-8"))
        different = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        if different:
            listed = "; ".join(
                f"{k}: was {found.get(k)!r}, now {wanted.get(k)!r}" for k in different
            )
            raise TrainingError(
                f"{config.output} holds a run with other settings ({listed}): give the same "
                "settings to continue it, or another --output"
            )
        return
    if config.output.is_dir() and any(config.output.iterdir()):
        raise TrainingError(
            f"{config.output} is not empty and holds no run: choose another --output"
        )
    write_json(path, wanted)


def finish_folder(config: TrainConfig, spec: FeatureSpec | None) -> None:
    """Write run.json, which makes the run complete.

    Args:
        config: The run.
        spec: Of its features; None for a run on the text alone.
    """
    write_json(
        config.output / "run.json",
        {
            "artifacts": str(config.artifacts.resolve()),
            "test_split": config.test_split,
            "questions_sha256": file_sha256(config.artifacts / "questions.parquet"),
            "features": None if config.features is None else str(config.features.resolve()),
            "feature_spec": None if spec is None else spec.to_json(),
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("mmcot", "torch", "transformers", "tokenizers", "numpy")
            },
            "python": platform.python_version(),
        },
    )
