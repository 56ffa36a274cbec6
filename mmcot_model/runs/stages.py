"""The stages of a run: what each learns from, what it writes, and how it is tested."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mmcot_data.files import file_sha256, write_json
from mmcot_data.inputs import ModelInput, model_inputs
from mmcot_data.prompts import gold_rationale, parse_answer
from mmcot_data.questions import Question
from mmcot_data.rationales import Rationale, first_rationales, read_rationales, write_rationales
from mmcot_data.text_artifacts import read_made_by
from mmcot_model.batches import Example, tokenize
from mmcot_model.distributed import is_main, local_device, wait_for_all
from mmcot_model.evaluation import Prediction, Scores, evaluate, write_predictions
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.fusion import FusionT5
from mmcot_model.generation import Generation
from mmcot_model.loading import PRESETS, check_model, load_model, new_model
from mmcot_model.runs.folder import read_cuts, write_cuts
from mmcot_model.runs.generating import generate_everywhere, run_collator, tokenize_sources
from mmcot_model.runs.inputs import RunInputs
from mmcot_model.runs.rationales import RunRationales
from mmcot_model.runs.training import StageSettings, Validation, is_trained, train_stage
from mmcot_model.runs.validation import validate_answers, validate_rationales
from mmcot_model.settings.config import TrainConfig

__all__ = ["StageRun", "rationale_rows"]

logger = logging.getLogger(__name__)


class StageRun:
    """The stages of one run: what they share, and what each does.

    Args:
        config: The run.
        inputs: What it reads.
        rationales: Whose rationales it learns and is tested with.
    """

    def __init__(self, config: TrainConfig, inputs: RunInputs, rationales: RunRationales) -> None:
        self.config = config
        self.inputs = inputs
        self.rationales = rationales
        self.cuts = read_cuts(config.output)
        """What was cut off of the texts, by what they are for."""
        for given in (config.rationale_model, config.answer_model):
            if given is not None:
                check_model(given, layout=self._layout, absent_image=config.absent_image)

    @property
    def _layout(self) -> FeatureLayout | None:
        return None if self.inputs.features is None else self.inputs.features.layout

    def rationale_stage(self) -> dict[str, str]:
        """Train stage 1, write rationales.parquet, and return its texts.

        They are those of the test split, and of the validation split where the answer stage needs
        them.
        """
        config = self.config
        model, tokenizer = self._trained_model("rationale")
        asked = {q.question_id: q for q in self.inputs.test}
        if config.trains("answer") and self.rationales.val is None:
            asked = {q.question_id: q for q in self.inputs.val} | asked
        path = config.output / "rationales.parquet"
        made_by = {
            "producer": "stage1",
            "run": config.output.resolve().name,
            "split": config.test_split,
            "weights_sha256": _weights_sha256(self._stage_folder("rationale")),
        }
        if path.is_file() and read_made_by(path) == made_by:
            rows = read_rationales(path, self.inputs.questions)
            if {row.question_id for row in rows} == asked.keys():
                return first_rationales(rows)
        generations = self._generate(
            model, tokenizer, self._sources("rationale", list(asked.values())), "rationale"
        )
        rows = rationale_rows(generations, config.prompt_format)
        if is_main():
            write_rationales(path, rows, made_by, self.inputs.questions)
        wait_for_all()
        return first_rationales(rows)

    def answer_stage(self, written: Mapping[str, str] | None) -> Scores:
        """Train the stage that answers, and write predictions.parquet and scores.json.

        Args:
            written: What the run's own stage 1 wrote; None if there is none.
        """
        config = self.config
        rationales = written if self.rationales.tested is None else self.rationales.tested
        model, tokenizer = self._trained_model("answer", written)
        generations = self._generate(
            model, tokenizer, self._sources("answer", self.inputs.test, rationales), "answer"
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
            for question, generation in zip(self.inputs.test, generations, strict=True)
        ]
        scores = evaluate(self.inputs.test, predictions, failures=config.failures, seed=config.seed)
        if is_main():
            write_predictions(config.output / "predictions.parquet", predictions)
            write_json(config.output / "scores.json", scores.to_json())
        wait_for_all()
        return scores

    def _reference(self, question: Question) -> str | None:
        form = self.rationales.reference_format
        reads = self.config.reads_rationales
        return None if form is None or not reads else gold_rationale(question, form)

    def _sources(
        self,
        stage: str,
        questions: Sequence[Question],
        rationales: Mapping[str, str] | None = None,
    ) -> list[ModelInput]:
        config = self.config
        form = config.prompt_format if stage == "rationale" else config.answer_format
        return model_inputs(questions, form, self.inputs.captions, rationales)

    def _train_inputs(self, stage: str) -> list[ModelInput]:
        config, chosen, captions = self.config, self.rationales, self.inputs.captions
        if stage == "answer" and chosen.train is not None:
            covered = [q for q in self.inputs.train if q.question_id in chosen.train]
            return model_inputs(covered, config.answer_format, captions, chosen.train)
        form = config.prompt_format
        return model_inputs(self.inputs.train, form, captions, targets=chosen.targets)

    def _stage_folder(self, stage: str) -> Path:
        """Where the weights of a stage stand, if they are local."""
        given = getattr(self.config, f"{stage}_model")
        return Path(given) if given is not None else self.config.output / stage

    def _trained_model(
        self, stage: str, written: Mapping[str, str] | None = None
    ) -> tuple[FusionT5, PreTrainedTokenizerBase]:
        config, folder = self.config, self._stage_folder(stage)
        if not config.trains(stage) or is_trained(folder):
            logger.info("the %s stage is trained already: %s", stage, folder)
            trained: Any
            trained, tokenizer = load_model(
                str(getattr(config, f"{stage}_model") or folder),
                layout=self._layout,
                absent_image=config.absent_image,
                trained=True,
            )
            return trained.to(local_device()), tokenizer
        inputs = self._train_inputs(stage)
        model, tokenizer = self._new_model(inputs)
        if self._layout is None:
            _freeze_fusion(model)
        is_rationale = stage == "rationale"
        settings = StageSettings(
            name=f"training the {stage} stage",
            epochs=config.rationale_epochs if is_rationale else config.answer_epochs,
            config=config,
        )
        train_stage(
            model,
            tokenizer,
            self._tokenize(tokenizer, inputs, stage, "training"),
            run_collator(config, tokenizer, self.inputs.features, self.config.max_target(stage)),
            folder,
            settings,
            self._validation(stage, tokenizer, written),
        )
        return model, tokenizer

    def _validation(
        self, stage: str, tokenizer: PreTrainedTokenizerBase, written: Mapping[str, str] | None
    ) -> Validation | None:
        if self.config.keep == "last":
            return None
        questions = self.inputs.val
        rationales = None
        if stage == "answer" and self.config.reads_rationales:
            rationales = written if self.rationales.val is None else self.rationales.val
        inputs = self._sources(stage, questions, rationales)

        def write(model: FusionT5) -> list[str]:
            generations = self._generate(model, tokenizer, inputs, stage, "validation")
            return [generation.text for generation in generations]

        if stage == "answer":
            return Validation(
                metric="accuracy", run=lambda model: validate_answers(questions, write(model))
            )
        targets, form = self.rationales.targets, self.config.prompt_format
        return Validation(
            metric="rougeL",
            run=lambda model: validate_rationales(questions, write(model), form, targets),
        )

    def _new_model(self, inputs: Sequence[ModelInput]) -> tuple[FusionT5, PreTrainedTokenizerBase]:
        config = self.config
        if config.model not in PRESETS:
            return load_model(
                config.model,
                layout=self._layout,
                absent_image=config.absent_image,
                seed=config.seed,
            )
        stages = [stage for stage in ("rationale", "answer") if config.trains(stage)]
        if len(stages) > 1:
            inputs = [pair for stage in stages for pair in self._train_inputs(stage)]
        return new_model(
            config.model,
            [text for pair in inputs for text in (pair.source, pair.target or "")],
            vocab_size=config.vocab_size,
            layout=self._layout,
            absent_image=config.absent_image,
            seed=config.seed,
        )

    def _tokenize(
        self,
        tokenizer: PreTrainedTokenizerBase,
        inputs: Sequence[ModelInput],
        stage: str,
        purpose: str,
    ) -> list[Example]:
        """Tokenize, and keep and say what is cut off; targets only matter in training."""
        if purpose == "training":
            tokenized = tokenize(
                tokenizer,
                inputs,
                max_source=self.config.max_source,
                max_target=self.config.max_target(stage),
                truncation=self.config.truncation,
            )
        else:
            tokenized = tokenize_sources(tokenizer, inputs, self.config)
        name = f"{stage} {purpose}"
        if name not in self.cuts:
            self.cuts[name] = tokenized.cuts.to_json()
            if is_main():
                write_cuts(self.config.output, self.cuts)
            reads_answer = self.config.max_target(stage) == self.config.max_answer
            flag = "--max-answer" if reads_answer and stage == "answer" else "--max-rationale"
            for sentence in tokenized.cuts.sentences(target_flag=flag):
                logger.warning("%s: %s", name, sentence)
        return tokenized.examples

    def _generate(
        self,
        model: FusionT5,
        tokenizer: PreTrainedTokenizerBase,
        inputs: Sequence[ModelInput],
        stage: str,
        purpose: str = "test",
    ) -> list[Generation]:
        return generate_everywhere(
            model,
            tokenizer,
            self._tokenize(tokenizer, inputs, stage, purpose),
            run_collator(
                self.config, tokenizer, self.inputs.features, self.config.max_target(stage)
            ),
            max_new_tokens=self.config.max_target(stage),
            batch_size=self.config.eval_batch_size,
            precision=self.config.precision,
            title=f"{purpose}: {'writing rationales' if stage == 'rationale' else 'answering'}",
        )


def rationale_rows(generations: Sequence[Generation], prompt_format: str) -> list[Rationale]:
    """What stage 1 wrote, as rows of a rationales table; it draws no answer."""
    return [
        Rationale(
            question_id=generation.question_id,
            rationale=generation.text,
            finish_reason=generation.finish_reason,
            prompt_format=prompt_format,
        )
        for generation in generations
    ]


def _freeze_fusion(model: FusionT5) -> None:
    """Without pictures these layers get no gradient, which several processes would wait for."""
    for layer in (model.encoder.image_dense, model.encoder.mha_layer, model.encoder.gate_dense):
        layer.requires_grad_(False)


def _weights_sha256(folder: Path) -> list[str]:
    return [file_sha256(path) for path in sorted(folder.glob("*.safetensors"))]
