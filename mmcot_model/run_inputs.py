"""What a run reads, checked before anything is trained."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mmcot_data.captions import read_captions
from mmcot_data.errors import TrainingError
from mmcot_data.files import file_sha256
from mmcot_data.questions import Question, read_questions, select_split
from mmcot_data.shards import FeatureSet
from mmcot_data.shards.store import open_store
from mmcot_data.text_artifacts import artifact_path
from mmcot_model.config import TrainConfig

__all__ = ["RunInputs", "check_coverage", "read_inputs"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInputs:
    """Questions, features and captions of a run."""

    questions: Sequence[Question]
    """All of the artifact root."""
    train: Sequence[Question]
    test: Sequence[Question]
    features: FeatureSet | None
    captions: Mapping[str, str] | None
    rationales: Path | None
    """The table of the rationales that are given for the test, if any."""
    train_rationales: Path | None
    """The table of those that the answer stage learns from, if any is given."""
    target_rationales: Path | None
    """The table of those that the model learns to write, if any is given."""
    sha256: Mapping[str, str]
    """Digests of the files that decide what the run reads."""


def read_inputs(config: TrainConfig) -> RunInputs:
    """Read what a run needs.

    Raises:
        DataError: If a table is absent or damaged, or a split is empty.
        ShardError: If the feature set cannot be read.
        TrainingError: If pictures of the questions were never extracted, or answers are hidden.
    """
    files = {"questions": config.artifacts / "questions.parquet"}
    questions = read_questions(files["questions"])
    train = [q for q in select_split(questions, config.train_split) if q.answer is not None]
    if not train:
        raise TrainingError(
            f"no question of {config.train_split} has an answer to learn: choose another "
            "--train-split"
        )
    test = select_split(questions, config.test_split)
    hidden = [q.question_id for q in test if q.answer is None]
    if hidden and config.stage != "rationale":
        raise TrainingError(
            f"{len(hidden)} of {len(test)} questions of {config.test_split} have no answer to test "
            f"against, the first is {hidden[0]!r}: choose another --test-split"
        )
    captions = None
    if config.captions is not None:
        files["captions"] = artifact_path(config.artifacts, "captions", config.captions)
        captions = read_captions(files["captions"], config.image_roles)
        _check_captions(files["captions"], captions, questions, {"training": train, "test": test})
    for name in ("rationales", "train_rationales", "target_rationales"):
        if (given := getattr(config, name)) is not None:
            files[name] = _rationale_table(config.artifacts, given)
    features, sha256 = None, {}
    if config.features is not None:
        store = open_store(config.features)
        features = FeatureSet(store, roles=config.image_roles)
        check_coverage(config, features, store.read_index(), {"training": train, "test": test})
        sha256["features"] = store.manifest.sha256
    sha256 |= {f"model {name}": digest for name, digest in _weights(config.model).items()}
    return RunInputs(
        questions=questions,
        train=train,
        test=test,
        features=features,
        captions=captions,
        rationales=files.get("rationales"),
        train_rationales=files.get("train_rationales"),
        target_rationales=files.get("target_rationales"),
        sha256=sha256 | {name: file_sha256(path) for name, path in files.items()},
    )


def _check_captions(
    path: Path,
    captions: Mapping[str, str],
    questions: Sequence[Question],
    splits: Mapping[str, Sequence[Question]],
) -> None:
    known = {question.question_id for question in questions}
    if unknown := sorted(captions.keys() - known):
        raise TrainingError(
            f"{path}: {len(unknown)} captions are for unknown questions, the first for "
            f"{unknown[0]!r}; expected captions of this artifact root's questions"
        )
    for name, asked in splits.items():
        covered = sum(question.question_id in captions for question in asked)
        logger.info("captions for %d of %d %s questions", covered, len(asked), name)


def _weights(model: str) -> dict[str, str]:
    """Digests of a local model's weights by file; a preset or hub id is known by its name."""
    folder = Path(model)
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")] if folder.is_dir() else []
    return {path.name: file_sha256(path) for path in sorted(files)}


def _rationale_table(artifacts: Path, given: str) -> Path:
    """The table of a producer's name, or the file itself."""
    path = Path(given)
    if path.suffix != ".parquet":
        path = artifact_path(artifacts, "rationales", given)
    if not path.is_file():
        there = sorted(file.stem for file in (artifacts / "rationales").glob("*.parquet"))
        raise TrainingError(
            f"{path} does not exist: expected a producer's table of rationales; there are: "
            f"{', '.join(there) or 'none'}"
        )
    return path


def check_coverage(
    config: TrainConfig,
    features: FeatureSet,
    index: pl.DataFrame,
    splits: Mapping[str, Sequence[Question]],
) -> None:
    """See that a question is without a picture only if it has none, or extraction listed why.

    Args:
        config: Names the feature set, the artifact root and the image roles.
        features: The feature set.
        index: Its index.
        splits: The questions that are asked, by what they are for.

    Raises:
        TrainingError: If pictures of the questions were never extracted.
    """
    outcomes = {
        (question_id, role): status
        for question_id, role, status in index.select("question_id", "role", "status").iter_rows()
    }
    wanted = {
        (question.question_id, role)
        for questions in splits.values()
        for question in questions
        for role in config.image_roles
        if role in question.image_roles
    }
    if never := sorted(key for key in wanted if key not in outcomes):
        raise TrainingError(
            f"{config.features} lacks {len(never)} of the {len(wanted)} pictures that questions in "
            f"{config.artifacts} have, the first is {never[0][1]!r} of question {never[0][0]!r}: "
            "expected features of the same data set and of all splits that are used; extract "
            "them without --split (what cannot be read is listed and allowed)"
        )
    failed = sum(outcomes[key] != "ok" for key in wanted)
    for name, questions in splits.items():
        covered = sum(question.question_id in features for question in questions)
        logger.info("features for %d of %d %s questions", covered, len(questions), name)
    if failed:
        logger.warning("%d pictures have no features: they failed in extraction", failed)
