"""Let a trained stage 1 write rationales for any split: producer ``stage1``."""

import importlib.metadata
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmcot_data.captions import read_captions
from mmcot_data.errors import TrainingError
from mmcot_data.files import file_sha256
from mmcot_data.growing_artifact import GrowingArtifact, grow_artifact
from mmcot_data.inputs import ModelInput, model_inputs
from mmcot_data.questions import Question, read_questions, select_split
from mmcot_data.rationales import RATIONALE_KEY, RATIONALE_SCHEMA
from mmcot_data.row_sampling import Sampling
from mmcot_data.row_seeds import row_seed
from mmcot_data.text_artifacts import artifact_path
from mmcot_model.distributed import local_device
from mmcot_model.features import RunFeatures, open_run_features
from mmcot_model.generation import Generation, generate
from mmcot_model.loading import load_model
from mmcot_model.precision import choose_precision
from mmcot_model.runs.folder import read_config, read_features_sha256, read_run
from mmcot_model.runs.generating import run_collator, tokenize_sources
from mmcot_model.runs.inputs import check_coverage
from mmcot_model.runs.stages import rationale_rows
from mmcot_model.runs.training import is_trained
from mmcot_model.settings.config import TrainConfig

__all__ = ["Stage1Config", "Stage1Summary", "write_stage1_rationales"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage1Config:
    """Which model writes which rationales.

    Raises:
        ValueError: If a value is out of range, or several samples would all be the same.
    """

    artifacts: Path
    """Artifact root: its questions are asked, and it receives the table."""
    run: Path
    """Run folder of mmcot-train, with a trained rationale stage."""
    producer: str = "stage1"
    splits: tuple[str, ...] = ()
    """train, val, test, trainval or mini splits; none named means all questions."""
    samples: int = 1
    """Rationales a question."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 42
    """Of sampling."""
    batch_size: int = 64
    features: tuple[Path | str, ...] = ()
    """Feature sets; none takes those of the run."""

    def __post_init__(self) -> None:
        Sampling(temperature=self.temperature, top_p=self.top_p)
        if self.samples < 1 or self.batch_size < 1:
            raise ValueError(
                f"samples is {self.samples}, batch_size is {self.batch_size}: expected at least 1"
            )
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"{self.samples} samples at temperature 0 would all be the same: give a "
                "temperature, such as 0.7, or one sample"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage1Summary:
    """What became of it."""

    path: Path
    num_questions: int
    num_rows: int
    """Rows of the table."""
    num_new: int
    """Those that were written now."""
    num_cut_off: int
    """Rows that ended at the limit of tokens."""


def write_stage1_rationales(
    config: Stage1Config, on_progress: Callable[[int, int], None] | None = None
) -> Stage1Summary:
    """Write ``rationales/<producer>.parquet``; what is there already is not written again.

    Args:
        config: Which model, which questions.
        on_progress: Called with the rationales that are written now, and with all that are to be.

    Raises:
        TrainingError: If the run has no trained rationale stage, or pictures lack features.
        DataError: If a table is absent or damaged, or was made with other settings.
        ShardError: If the feature set cannot be read.
    """
    trained = read_config(config.run)
    folder = config.run / "rationale"
    if not is_trained(folder):
        raise TrainingError(
            f"{folder} is no trained stage 1: expected a run of `mmcot-train --stage rationale` or "
            "`--stage both` in which that stage is finished"
        )
    questions = read_questions(config.artifacts)
    chosen = _chosen(questions, config.splits)
    if config.features:
        if not trained.features:
            raise TrainingError(f"{config.run} was trained without features: leave out --features")
        trained = replace(trained, features=config.features)
    trained = replace(trained, artifacts=config.artifacts)
    features = _open_features(config.run, trained)
    captions = None
    if trained.captions is not None:
        captions = artifact_path(config.artifacts, "captions", trained.captions)
    settings: dict[str, Any] = {
        "producer": "stage1",
        "questions_sha256": file_sha256(config.artifacts / "questions.parquet"),
        "weights_sha256": [file_sha256(path) for path in sorted(folder.glob("*.safetensors"))],
        "prompt_format": trained.prompt_format,
        "features": None if features is None else features.sha256,
        "image_roles": list(trained.image_roles),
        "captions_sha256": None if captions is None else file_sha256(captions),
        "max_source": trained.max_source,
        "truncation": trained.truncation,
        "max_new_tokens": trained.max_rationale,
        "precision": choose_precision(trained.precision, local_device()),
        "temperature": config.temperature,
    }
    if config.temperature > 0:
        settings |= {"top_p": config.top_p, "seed": config.seed}
    path = artifact_path(config.artifacts, "rationales", config.producer)
    with grow_artifact(path, RATIONALE_SCHEMA, RATIONALE_KEY, settings) as artifact:
        wanted = [(q, sample) for q in chosen for sample in range(config.samples)]
        pending = [pair for pair in wanted if (pair[0].question_id, pair[1]) not in artifact]
        if pending:
            if features is not None:
                check_coverage(trained, features, {"asked": chosen})
            texts = None if captions is None else read_captions(captions, trained.image_roles)
            inputs = model_inputs([q for q, _ in pending], trained.prompt_format, texts)
            _write(config, trained, features, pending, inputs, artifact, on_progress)
        rank = {question.question_id: place for place, question in enumerate(questions)}
        notes = {
            "run": config.run.resolve().name,
            "model": trained.model,
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("mmcot", "torch", "transformers")
            },
        }
        artifact.finish(rank, notes if pending else artifact.notes or notes)
        rows = artifact.rows()
    return Stage1Summary(
        path=path,
        num_questions=len(chosen),
        num_rows=len(rows),
        num_new=len(pending),
        num_cut_off=sum(row["finish_reason"] == "length" for row in rows),
    )


def _open_features(run: Path, trained: TrainConfig) -> RunFeatures | None:
    """A model reads the features that it was trained on, or such as were made in the same way."""
    features = open_run_features(trained.features, trained.image_roles)
    if features is None or read_features_sha256(run) == " ".join(features.sha256):
        return features
    if not (run / "run.json").is_file():
        given = ", ".join(str(place) for place in trained.features)
        raise TrainingError(
            f"{given}: not the features that {run} was begun with, and the run is not finished, so "
            "that nothing else is known of them: give those, or finish the run"
        )
    expect = read_run(run)["feature_specs"]
    return open_run_features(trained.features, trained.image_roles, expect=expect)


def _chosen(questions: Sequence[Question], splits: Sequence[str]) -> list[Question]:
    """The questions of the splits, each once; all of them if no split is named."""
    chosen = {q.question_id: q for split in splits for q in select_split(questions, split)}
    return list(chosen.values()) if splits else list(questions)


def _write(
    config: Stage1Config,
    trained: TrainConfig,
    features: RunFeatures | None,
    pending: Sequence[tuple[Question, int]],
    inputs: Sequence[ModelInput],
    artifact: GrowingArtifact,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    loaded: Any
    layout = None if features is None else features.layout
    loaded, tokenizer = load_model(str(config.run / "rationale"), layout=layout, trained=True)
    tokenized = tokenize_sources(tokenizer, inputs, trained)
    for sentence in tokenized.cuts.sentences():
        logger.warning(sentence)

    def keep(positions: Sequence[int], generations: Sequence[Generation]) -> None:
        rows = rationale_rows(generations, trained.prompt_format)
        artifact.add(
            asdict(row) | {"sample": pending[position][1]}
            for position, row in zip(positions, rows, strict=True)
        )

    generate(
        loaded.to(local_device()),
        tokenizer,
        tokenized.examples,
        run_collator(trained, tokenizer, features, trained.max_rationale),
        max_new_tokens=trained.max_rationale,
        batch_size=config.batch_size,
        precision=trained.precision,
        sampling=Sampling(temperature=config.temperature, top_p=config.top_p),
        seeds=[row_seed(config.seed, sample, question_id=q.question_id) for q, sample in pending],
        on_progress=on_progress,
        on_batch=keep,
    )
