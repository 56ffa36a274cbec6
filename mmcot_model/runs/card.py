"""The run card: README.md of a run folder, which is a model card of the Hugging Face hub, too."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcot_data.files import write_bytes
from mmcot_model.runs.card_sections import (
    is_hub_id,
    licence_lines,
    score_lines,
    setting_lines,
    stage_lines,
    training_lines,
    usage_lines,
)
from mmcot_model.settings.config import TrainConfig

__all__ = ["write_run_card"]

_HUB_DATASETS = {"scienceqa": "derek-thomas/ScienceQA"}
"""Data sets of the hub by the names that questions have."""
_FILES = {
    "rationale": "model and tokenizer of stage 1; `history.json`: its losses",
    "answer": "model and tokenizer of the stage that answers; `history.json`: its losses",
    "rationales.parquet": "what stage 1 wrote, by question id",
    "predictions.parquet": "rationale, text and parsed answer of each question",
    "scores.json": "the scores",
    "train.yaml": "every setting: `mmcot-train --config train.yaml --output ANOTHER`, with flags "
    "for what lies elsewhere on your machine",
    "config.json": "the same, and digests of what was read",
}
_LAST = "- `run.json`: feature specs, digests, library versions, machine; written last"


def write_run_card(
    folder: Path, run: Mapping[str, Any], config: TrainConfig, datasets: Sequence[str] = ()
) -> None:
    """Write README.md of a run whose models and tables are there, atomically.

    Args:
        folder: The run folder; scores.json is read if it is there.
        run: What run.json has, or will have.
        config: The settings that the run was made with.
        datasets: Names of the data sets that its questions are of, if they are known.
    """
    scores = _scores(folder)
    sections = {
        "What it does": stage_lines(config, run),
        "Scores": score_lines(config, scores),
        "How to use it": usage_lines(config, run),
        "What it was trained on": training_lines(config, run, datasets),
        "Settings": setting_lines(config, run["environment"]),
        "Files": [*_file_lines(folder), _LAST],
        "Licence": licence_lines(config, run),
    }
    lines = ["---", _metadata(folder.resolve().name, config, scores, datasets), "---"]
    lines += ["", f"# {folder.resolve().name}"]
    for title, section in sections.items():
        lines += ["", f"## {title}", "", *section]
    write_bytes(folder / "README.md", ("\n".join(lines) + "\n").encode())


def _file_lines(folder: Path) -> list[str]:
    return [f"- `{name}`: {text}" for name, text in _FILES.items() if (folder / name).exists()]


def _scores(folder: Path) -> Mapping[str, Any] | None:
    path = folder / "scores.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _metadata(
    name: str, config: TrainConfig, scores: Mapping[str, Any] | None, datasets: Sequence[str]
) -> str:
    """The front matter. It names no licence: whoever publishes the model chooses that."""
    from huggingface_hub import EvalResult, ModelCardData

    results = None
    if datasets and scores is not None and scores["n"]["acc_average"]:
        results = [
            EvalResult(
                task_type="visual-question-answering" if config.features else "question-answering",
                dataset_type=_HUB_DATASETS.get(datasets[0], datasets[0]),
                dataset_name=", ".join(datasets),
                dataset_split=config.test_split,
                metric_type="accuracy",
                metric_name=f"accuracy of {scores['n']['acc_average']} questions, in percent",
                metric_value=float(scores["answer"]["acc_average"]),
            )
        ]
    card = ModelCardData(
        library_name="mmcot",
        pipeline_tag="visual-question-answering" if config.features else None,
        base_model=config.model if is_hub_id(config.model) else None,
        datasets=[_HUB_DATASETS[each] for each in datasets if each in _HUB_DATASETS] or None,
        tags=["mmcot", "multimodal-chain-of-thought", "t5", *datasets],
        model_name=name if results else None,
        eval_results=results,
    )
    return card.to_yaml(line_break="\n")
