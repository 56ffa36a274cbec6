"""A run: texts and features in; two trained stages, rationales, predictions and scores out.

The run folder, in the order in which its parts appear:

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
import logging
import platform
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from mmcot_data.captions import read_captions
from mmcot_data.errors import TrainingError
from mmcot_data.files import file_sha256, write_json
from mmcot_data.inputs import ModelInput, model_inputs
from mmcot_data.prompts import gold_rationale, parse_answer
from mmcot_data.questions import Question, read_questions, select_split
from mmcot_data.rationales import Rationale, kept_rationales, read_rationales, write_rationales
from mmcot_data.shards import FeatureSet, open_features
from mmcot_data.text_artifacts import artifact_path
from mmcot_model.batches import Collator, tokenize
from mmcot_model.config import TrainConfig
from mmcot_model.evaluation import Prediction, Scores, evaluate, write_predictions
from mmcot_model.fusion import FusionT5
from mmcot_model.generation import Generation, generate
from mmcot_model.loading import PRESETS, load_model, new_model
from mmcot_model.progress import progress_bar
from mmcot_model.training import StageSettings, train_stage

__all__ = ["train_run"]

logger = logging.getLogger(__name__)


def train_run(config: TrainConfig, *, resume: bool = False) -> Scores | None:
    """Train the stages that ``config`` asks for, and test them.

    Args:
        config: The run.
        resume: Go on with what stands in ``config.output``: finished stages are loaded, an
            unfinished one continues from its last checkpoint.

    Returns:
        The scores of the test split; None if only the rationale stage was trained.

    Raises:
        TrainingError: If ``config.output`` holds another run, or a finished or stopped one
            without ``resume``.
        DataError: If questions, captions or rationales are absent or do not cover a split.
        ShardError: If the feature set cannot be read.
    """
    _claim_folder(config, resume=resume)
    run = _Run(config)
    rationales = None
    if config.stage in ("rationale", "both"):
        rationales = run.rationale_stage()
        if config.stage == "rationale":
            run.finish()
            return None
    elif config.rationales is not None:
        path = artifact_path(config.artifacts, "rationales", config.rationales)
        rationales = kept_rationales(read_rationales(path, run.questions))
    scores = run.answer_stage(rationales)
    run.finish()
    return scores


def _claim_folder(config: TrainConfig, *, resume: bool) -> None:
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


class _Run:
    """What the stages of one run share."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.questions = read_questions(config.artifacts)
        self.train = [
            q for q in select_split(self.questions, config.train_split) if q.answer is not None
        ]
        self.test = select_split(self.questions, config.test_split)
        self.features = _open_features(config)
        self.captions: Mapping[str, str] | None = None
        if config.captions is not None:
            path = artifact_path(config.artifacts, "captions", config.captions)
            self.captions = read_captions(path)
        self.answer_format = "QCMG-A" if config.stage == "both" else config.prompt_format

    def rationale_stage(self) -> dict[str, str]:
        """Train stage 1, write rationales.parquet for the test split, and return its texts."""
        config = self.config
        model, tokenizer = self._trained_model("rationale")
        generations = self._generate(
            model,
            tokenizer,
            model_inputs(self.test, config.prompt_format, self.captions),
            config.max_rationale,
            "writing rationales",
        )
        rationales = [
            Rationale(
                question_id=generation.question_id,
                rationale=generation.text,
                finish_reason=generation.finish_reason,
                prompt_format=config.prompt_format,
            )
            for generation in generations
        ]
        write_rationales(
            config.output / "rationales.parquet",
            rationales,
            {"producer": "stage1", "run": str(config.output.resolve()), "split": config.test_split},
            self.questions,
        )
        return kept_rationales(rationales)

    def answer_stage(self, rationales: Mapping[str, str] | None) -> Scores:
        """Train the stage that answers, and write predictions.parquet and scores.json."""
        config = self.config
        model, tokenizer = self._trained_model("answer")
        max_tokens = config.max_answer
        if self.answer_format in ("QCM-LEA", "QCM-ALE"):
            max_tokens += config.max_rationale
        generations = self._generate(
            model,
            tokenizer,
            model_inputs(self.test, self.answer_format, self.captions, rationales),
            max_tokens,
            "answering",
        )
        predictions = [
            Prediction(
                question_id=question.question_id,
                split=config.test_split,
                answer=parse_answer(generation.text, len(question.choices)),
                rationale=None if rationales is None else rationales[question.question_id],
                reference_rationale=self._reference(question),
                text=generation.text,
            )
            for question, generation in zip(self.test, generations, strict=True)
        ]
        write_predictions(config.output / "predictions.parquet", predictions)
        scores = evaluate(self.test, predictions)
        write_json(config.output / "scores.json", scores.to_json())
        return scores

    def finish(self) -> None:
        """Write run.json, which makes the run complete."""
        config = self.config
        questions_file = config.artifacts / "questions.parquet"
        write_json(
            config.output / "run.json",
            {
                "artifacts": str(config.artifacts.resolve()),
                "test_split": config.test_split,
                "questions_sha256": file_sha256(questions_file),
                "features": None if config.features is None else str(config.features.resolve()),
                "feature_spec": None if self.features is None else self.features.spec.to_json(),
                "versions": {
                    name: importlib.metadata.version(name)
                    for name in ("mmcot", "torch", "transformers", "tokenizers", "numpy")
                },
                "python": platform.python_version(),
            },
        )

    def _reference(self, question: Question) -> str | None:
        if self.config.stage != "both":
            return None
        return gold_rationale(question, self.config.prompt_format)

    def _train_inputs(self, stage: str) -> list[ModelInput]:
        if stage == "rationale":
            return model_inputs(self.train, self.config.prompt_format, self.captions)
        rationales = None
        if self.config.stage == "both":
            # Trained on the kind of rationale that stage 1 writes for the test split.
            rationales = {
                q.question_id: gold_rationale(q, self.config.prompt_format) for q in self.train
            }
        return model_inputs(self.train, self.answer_format, self.captions, rationales)

    def _trained_model(self, stage: str) -> tuple[FusionT5, PreTrainedTokenizerBase]:
        config = self.config
        folder = config.output / stage
        patch_dim = None if self.features is None else self.features.spec.feature_dim
        if (folder / "config.json").is_file():
            logger.info("%s is trained already", folder)
            return load_model(str(folder), patch_dim=patch_dim)
        inputs = self._train_inputs(stage)
        if config.model in PRESETS:
            stages = ("rationale", "answer") if config.stage == "both" else (stage,)
            texts = [
                text
                for each in stages
                for pair in self._train_inputs(each)
                for text in (pair.source, pair.target or "")
            ]
            model, tokenizer = new_model(
                config.model,
                texts,
                vocab_size=config.vocab_size,
                patch_dim=patch_dim or 1,
                seed=config.seed,
            )
        else:
            model, tokenizer = load_model(config.model, patch_dim=patch_dim, seed=config.seed)
        is_rationale = stage == "rationale"
        examples = tokenize(
            tokenizer,
            inputs,
            max_source=config.max_source,
            max_target=config.max_rationale if is_rationale else config.max_answer,
        )
        settings = StageSettings(
            name=f"training the {stage} stage",
            epochs=config.rationale_epochs if is_rationale else config.answer_epochs,
            max_steps=config.max_steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            warmup=config.warmup,
            weight_decay=config.weight_decay,
            seed=config.seed,
        )
        collate = Collator(tokenizer.pad_token_id, self.features)
        train_stage(model, tokenizer, examples, collate, folder, settings)
        return model, tokenizer

    def _generate(
        self,
        model: FusionT5,
        tokenizer: PreTrainedTokenizerBase,
        inputs: Sequence[ModelInput],
        max_tokens: int,
        title: str,
    ) -> list[Generation]:
        examples = tokenize(
            tokenizer, inputs, max_source=self.config.max_source, max_target=max_tokens
        )
        with progress_bar(title, len(examples)) as advance:
            return generate(
                model,
                tokenizer,
                examples,
                Collator(tokenizer.pad_token_id, self.features),
                max_new_tokens=max_tokens,
                batch_size=self.config.eval_batch_size,
                on_progress=advance,
            )


def _open_features(config: TrainConfig) -> FeatureSet | None:
    if config.features is None:
        return None
    return open_features(config.features, roles=config.image_roles)
