"""What a run reads, checked before anything is trained."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from mmcot_data.captions import read_captions
from mmcot_data.errors import TrainingError
from mmcot_data.files import file_sha256
from mmcot_data.questions import Question, read_questions, select_split
from mmcot_data.text_artifacts import artifact_path
from mmcot_model.features import RunFeatures, open_run_features
from mmcot_model.settings.config import TrainConfig
from mmcot_model.settings.recipes import is_local_model

__all__ = ["GOLD_SOURCES", "RunInputs", "check_coverage", "check_splits_apart", "read_inputs"]

logger = logging.getLogger(__name__)

GOLD_SOURCES = {"gold-e": "QCM-E", "gold-le": "QCM-LE"}
"""Sources of rationales that are made from the questions, and their prompt formats."""
_SOURCES = ("rationales", "val_rationales", "train_rationales", "target_rationales")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInputs:
    """Questions, features and captions of a run."""

    questions: Sequence[Question]
    """All of the artifact root."""
    train: Sequence[Question]
    val: Sequence[Question]
    """Those that choose the best weights; none where the last ones are kept."""
    test: Sequence[Question]
    features: RunFeatures | None
    captions: Mapping[str, str] | None
    tables: Mapping[str, Path]
    """The tables of rationales by the settings that name them."""
    sha256: Mapping[str, str]
    """Digests of the files that decide what the run reads."""


def read_inputs(config: TrainConfig) -> RunInputs:
    """Read what a run needs.

    Raises:
        DataError: If a table is absent or damaged, or a split is empty.
        ShardError: If a feature set cannot be read.
        TrainingError: If pictures of the questions were never extracted, or answers are hidden.
    """
    files = {"questions": config.artifacts / "questions.parquet"}
    questions = read_questions(files["questions"])
    train, val = [], []
    if config.trains("rationale") or config.trains("answer"):
        train = _answered(questions, config.train_split, "learn", "--train-split")
        if config.keep == "best":
            val = _answered(
                questions, config.val_split, "choose the best weights by", "--val-split"
            )
            val = _at_most(val, config.eval_questions)
    test = select_split(questions, config.test_split)
    hidden = [q.question_id for q in test if q.answer is None]
    if hidden and config.stage != "rationale":
        raise TrainingError(
            f"{len(hidden)} of {len(test)} questions of {config.test_split} have no answer to test "
            f"against, the first is {hidden[0]!r}: choose another --test-split"
        )
    splits = {"training": train, "validation": val, "test": test}
    splits = {name: asked for name, asked in splits.items() if asked}
    captions = None
    if config.captions is not None:
        files["captions"] = artifact_path(config.artifacts, "captions", config.captions)
        captions = read_captions(files["captions"], config.image_roles)
        _check_captions(files["captions"], captions, questions, splits)
    tables = {}
    for name in _SOURCES:
        given = getattr(config, name)
        if given is not None and given not in GOLD_SOURCES:
            tables[name] = files[name] = _rationale_table(config.artifacts, given)
    sha256 = {}
    features = open_run_features(config.features, config.image_roles)
    if features is not None:
        check_coverage(config, features, splits)
        sha256["features"] = " ".join(features.sha256)
    for name in ("model", "rationale_model", "answer_model"):
        weights = _weights(getattr(config, name))
        sha256 |= {f"{name} {file}": digest for file, digest in weights.items()}
    return RunInputs(
        questions=questions,
        train=train,
        val=val,
        test=test,
        features=features,
        captions=captions,
        tables=tables,
        sha256=sha256 | {name: file_sha256(path) for name, path in files.items()},
    )


def check_splits_apart(config: TrainConfig, inputs: RunInputs) -> None:
    """See that no question is learned from and scored, and that none of the test chooses weights.

    Raises:
        TrainingError: If splits overlap.
    """
    parts = {"train_split": inputs.train, "val_split": inputs.val, "test_split": inputs.test}
    ids = {name: {q.question_id for q in questions} for name, questions in parts.items()}
    for one, other in combinations(parts, 2):
        if common := ids[one] & ids[other]:
            flags = [f"--{name.replace('_', '-')} {getattr(config, name)}" for name in (one, other)]
            raise TrainingError(
                f"{' and '.join(flags)} have {len(common)} questions in common: a score on what "
                "was learned from, or chosen by, says nothing; choose splits that are apart"
                f"{', or --keep last' if 'val_split' in (one, other) else ''}"
            )


def _answered(questions: Sequence[Question], split: str, purpose: str, flag: str) -> list[Question]:
    answered = [q for q in select_split(questions, split) if q.answer is not None]
    if not answered:
        keep_last = " or --keep last" if flag == "--val-split" else ""
        raise TrainingError(
            f"no question of {split} has an answer to {purpose}: choose another {flag}{keep_last}"
        )
    return answered


def _at_most(questions: list[Question], number: int) -> list[Question]:
    """Some of the questions, whichever stand where; in their order."""

    def place(question: Question) -> bytes:
        return hashlib.sha256(f"{question.dataset}/{question.question_id}".encode()).digest()

    chosen = {q.question_id for q in sorted(questions, key=place)[:number]}
    return [question for question in questions if question.question_id in chosen]


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


def _weights(model: str | None) -> dict[str, str]:
    """Digests of a local model's weights by file; a preset or hub id is known by its name."""
    if model is None or not is_local_model(model):
        return {}
    files = [*Path(model).glob("*.safetensors"), *Path(model).glob("*.bin")]
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
            f"{', '.join([*there, *GOLD_SOURCES])}"
        )
    return path


def _first_role(question: Question, roles: Sequence[str]) -> list[str]:
    """The role of the picture that is read, if there is one."""
    return [role for role in roles if role in question.image_roles][:1]


def check_coverage(
    config: TrainConfig, features: RunFeatures, splits: Mapping[str, Sequence[Question]]
) -> None:
    """See that a question is without a picture only if it has none, or extraction listed why.

    Args:
        config: Names the artifact root and the image roles.
        features: The feature sets.
        splits: The questions that are asked, by what they are for.

    Raises:
        TrainingError: If pictures of the questions were never extracted.
    """
    wanted = {
        (question.question_id, role)
        for questions in splits.values()
        for question in questions
        for role in _first_role(question, config.image_roles)
    }
    failed = 0
    for place, index in features.indexes().items():
        rows = index.select("question_id", "role", "status").iter_rows()
        outcomes = {(question_id, role): status for question_id, role, status in rows}
        if never := sorted(key for key in wanted if key not in outcomes):
            raise TrainingError(
                f"{place} lacks {len(never)} of the {len(wanted)} pictures that questions in "
                f"{config.artifacts} have, the first is {never[0][1]!r} of question "
                f"{never[0][0]!r}: expected features of the same data set and of all splits that "
                "are used; extract them without --split (what cannot be read is listed and allowed)"
            )
        failed += sum(outcomes[key] != "ok" for key in wanted)
    for name, questions in splits.items():
        covered = sum(question.question_id in features for question in questions)
        logger.info("features for %d of %d %s questions", covered, len(questions), name)
    if failed:
        logger.warning("%d pictures have no features: they failed in extraction", failed)
