"""The stages of a run: what each learns from, what it writes, and how it is tested."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from mmcot_data.files import write_json
from mmcot_data.inputs import ModelInput, model_inputs
from mmcot_data.prompts import gold_rationale, parse_answer
from mmcot_data.questions import Question
from mmcot_data.rationales import Rationale, first_rationales, write_rationales
from mmcot_data.shards import FeatureSet
from mmcot_model.batches import Collator, Example, tokenize
from mmcot_model.config import TrainConfig
from mmcot_model.evaluation import Prediction, Scores, evaluate, write_predictions
from mmcot_model.fusion import FusionT5
from mmcot_model.generation import Generation, generate
from mmcot_model.loading import PRESETS, load_model, new_model
from mmcot_model.progress import progress_bar
from mmcot_model.run_inputs import RunInputs
from mmcot_model.run_rationales import choose_rationales
from mmcot_model.training import StageSettings, is_trained, train_stage

__all__ = ["StageRun", "collator", "rationale_rows"]

logger = logging.getLogger(__name__)


class StageRun:
    """The stages of one run: what they share, and what each does."""

    def __init__(self, config: TrainConfig, inputs: RunInputs) -> None:
        self.config = config
        self.inputs = inputs
        self.answer_format = "QCMG-A" if config.stage == "both" else config.prompt_format
        self.rationales = choose_rationales(config, inputs)

    def rationale_stage(self) -> dict[str, str]:
        """Train stage 1, write rationales.parquet for the test split, and return its texts."""
        config = self.config
        model, tokenizer = self._trained_model("rationale")
        generations = self._generate(
            model,
            tokenizer,
            model_inputs(self.inputs.test, config.prompt_format, self.inputs.captions),
            self._max_target("rationale"),
            "writing rationales",
        )
        rationales = rationale_rows(generations, config.prompt_format)
        write_rationales(
            config.output / "rationales.parquet",
            rationales,
            {"producer": "stage1", "run": str(config.output.resolve()), "split": config.test_split},
            self.inputs.questions,
        )
        return first_rationales(rationales)

    def answer_stage(self, rationales: Mapping[str, str] | None) -> Scores:
        """Train the stage that answers, and write predictions.parquet and scores.json."""
        config = self.config
        model, tokenizer = self._trained_model("answer")
        generations = self._generate(
            model,
            tokenizer,
            model_inputs(self.inputs.test, self.answer_format, self.inputs.captions, rationales),
            self._max_target("answer"),
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
            for question, generation in zip(self.inputs.test, generations, strict=True)
        ]
        write_predictions(config.output / "predictions.parquet", predictions)
        scores = evaluate(self.inputs.test, predictions)
        write_json(config.output / "scores.json", scores.to_json())
        return scores

    def _reference(self, question: Question) -> str | None:
        form = self.rationales.reference_format
        return None if form is None else gold_rationale(question, form)

    def _train_inputs(self, stage: str) -> list[ModelInput]:
        chosen, captions = self.rationales, self.inputs.captions
        if stage == "rationale":
            return model_inputs(
                self.inputs.train, self.config.prompt_format, captions, targets=chosen.targets
            )
        if chosen.train is None:  # one stage
            return model_inputs(
                self.inputs.train, self.answer_format, captions, targets=chosen.targets
            )
        covered = [q for q in self.inputs.train if q.question_id in chosen.train]
        return model_inputs(covered, self.answer_format, captions, chosen.train)

    def _trained_model(self, stage: str) -> tuple[FusionT5, PreTrainedTokenizerBase]:
        config = self.config
        folder = config.output / stage
        patch_dim = None if self.inputs.features is None else self.inputs.features.spec.feature_dim
        if is_trained(folder):
            logger.info("%s is trained already", folder)
            trained: Any
            trained, tokenizer = load_model(str(folder), patch_dim=patch_dim)
            return trained.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer
        inputs = self._train_inputs(stage)
        model, tokenizer = self._new_model(inputs, patch_dim)
        is_rationale = stage == "rationale"
        examples = self._tokenize(tokenizer, inputs, self._max_target(stage))
        settings = StageSettings(
            name=f"training the {stage} stage",
            epochs=config.rationale_epochs if is_rationale else config.answer_epochs,
            max_steps=config.max_steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            warmup=config.warmup,
            weight_decay=config.weight_decay,
            length_window=config.length_window,
            seed=config.seed,
        )
        collate = collator(tokenizer, self.inputs.features)
        train_stage(model, tokenizer, examples, collate, folder, settings)
        return model, tokenizer

    def _new_model(
        self, inputs: Sequence[ModelInput], patch_dim: int | None
    ) -> tuple[FusionT5, PreTrainedTokenizerBase]:
        config = self.config
        if config.model not in PRESETS:
            return load_model(config.model, patch_dim=patch_dim, seed=config.seed)
        if config.stage == "both":
            inputs = [pair for each in ("rationale", "answer") for pair in self._train_inputs(each)]
        return new_model(
            config.model,
            [text for pair in inputs for text in (pair.source, pair.target or "")],
            vocab_size=config.vocab_size,
            patch_dim=patch_dim or 1,
            seed=config.seed,
        )

    def _max_target(self, stage: str) -> int:
        if stage == "rationale":
            return self.config.max_rationale
        if self.answer_format in ("QCM-LEA", "QCM-ALE"):
            return self.config.max_rationale + self.config.max_answer
        return self.config.max_answer

    def _tokenize(
        self,
        tokenizer: PreTrainedTokenizerBase,
        inputs: Sequence[ModelInput],
        max_target: int | None,
    ) -> list[Example]:
        """Tokenize, and say what is cut off; targets only matter where ``max_target`` is given."""
        limits = {"sources": self.config.max_source, "targets": max_target or 1}
        examples = tokenize(
            tokenizer, inputs, max_source=limits["sources"], max_target=limits["targets"]
        )
        lengths = {"sources": [len(example.input_ids) for example in examples]}
        if max_target is not None:
            lengths["targets"] = [len(example.labels) for example in examples]
        for name, values in lengths.items():
            if full := sum(value == limits[name] for value in values):
                logger.warning(
                    "%d of %d %s reach the limit of %d tokens; longer ones were cut off at the end",
                    full,
                    len(examples),
                    name,
                    limits[name],
                )
        return examples

    def _generate(
        self,
        model: FusionT5,
        tokenizer: PreTrainedTokenizerBase,
        inputs: Sequence[ModelInput],
        max_tokens: int,
        title: str,
    ) -> list[Generation]:
        examples = self._tokenize(tokenizer, inputs, None)
        with progress_bar(title, len(examples)) as advance:
            return generate(
                model,
                tokenizer,
                examples,
                collator(tokenizer, self.inputs.features),
                max_new_tokens=max_tokens,
                batch_size=self.config.eval_batch_size,
                on_progress=advance,
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


def collator(tokenizer: PreTrainedTokenizerBase, features: FeatureSet | None) -> Collator:
    """Pads to what tensor cores like, where there are some."""
    multiple = 8 if torch.cuda.is_available() else 1
    return Collator(tokenizer.pad_token_id, features, pad_multiple=multiple)
