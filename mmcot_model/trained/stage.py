"""A stage of a finished run at work on questions of any split: with pictures or without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmcot_data.captions import read_captions
from mmcot_data.inputs import ModelInput, model_inputs
from mmcot_data.questions import Question
from mmcot_data.text_artifacts import artifact_path
from mmcot_model.batches import Collator, tokenize
from mmcot_model.distributed import local_device
from mmcot_model.feature_layout import FeatureLayout
from mmcot_model.features import RunFeatures
from mmcot_model.fusion import FusionT5
from mmcot_model.generation import generate
from mmcot_model.loading import load_model
from mmcot_model.precision import autocast
from mmcot_model.progress import progress_bar
from mmcot_model.runs.generating import run_collator, tokenize_sources
from mmcot_model.runs.inputs import check_coverage
from mmcot_model.trained.run import TrainedRun

__all__ = ["NoPictures", "StageSources", "TrainedStage", "open_sources"]

_LOGITS_BATCH = 8
"""Questions at once where the logits of whole texts are kept, half a gigabyte for 512 tokens."""


class NoPictures:
    """Features of questions of which none has a picture.

    Args:
        layout: The form of the features that the model reads.
    """

    def __init__(self, layout: FeatureLayout) -> None:
        self.layout = layout

    def gather(
        self, question_ids: Sequence[str]
    ) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]:
        """Zero features (B, P, D) and a mask (B, P) that is false everywhere."""
        shape = (len(question_ids), self.layout.num_patches)
        return np.zeros((*shape, self.layout.patch_dim), np.float32), np.zeros(shape, np.bool_)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSources:
    """What the stages of a run read beside questions and rationales."""

    features: RunFeatures | None
    captions: Mapping[str, str] | None


def open_sources(
    run: TrainedRun,
    artifacts: Path,
    questions: Sequence[Question],
    *,
    features: Sequence[Path | str] = (),
) -> StageSources:
    """Open the captions and features that a run reads.

    Args:
        run: The run.
        artifacts: Artifact root of the questions and captions.
        questions: Those that are to be asked.
        features: Where the feature sets are; none takes the places where the run had them.

    Raises:
        DataError: If the captions are absent or damaged.
        ShardError: If a feature set cannot be read, or was made in another way than the run's.
        TrainingError: If pictures of the questions were never extracted.
    """
    config = run.config
    opened = run.open_features(features)
    if opened is not None:
        check_coverage(replace(config, artifacts=artifacts), opened, {"asked": questions})
    captions = None
    if config.captions is not None:
        path = artifact_path(artifacts, "captions", config.captions)
        captions = read_captions(path, config.image_roles)
    return StageSources(features=opened, captions=captions)


class TrainedStage:
    """A loaded stage.

    Args:
        run: The run.
        stage: ``rationale`` or ``answer``.
        sources: What it reads.

    Raises:
        TrainingError: If the model cannot be loaded, reads features of another form, or is not the
            one that was tested.
    """

    def __init__(self, run: TrainedRun, stage: str, sources: StageSources) -> None:
        self.run = run
        self.stage = stage
        self.sources = sources
        config = run.config
        self.prompt_format = config.answer_format if stage == "answer" else config.prompt_format
        layout = None if sources.features is None else sources.features.layout
        run.check_model(stage)
        loaded: Any
        loaded, self.tokenizer = load_model(run.model(stage), layout=layout, trained=True)
        self.model: FusionT5 = loaded.to(local_device()).eval()

    def write(
        self,
        questions: Sequence[Question],
        rationales: Mapping[str, str] | None = None,
        *,
        title: str,
        pictures: bool = True,
    ) -> dict[str, str]:
        """Generate as the run did.

        Args:
            questions: What is asked.
            rationales: To answer from, by question id, where the stage reads them.
            title: Of the progress bar.
            pictures: False takes all pictures away; captions stay.

        Returns:
            The text by question id.
        """
        config = self.run.config
        examples = tokenize_sources(
            self.tokenizer, self._inputs(questions, rationales), config
        ).examples
        with progress_bar(title, len(examples)) as advance:
            generations = generate(
                self.model,
                self.tokenizer,
                examples,
                self._collator(pictures=pictures),
                max_new_tokens=self.run.config.max_target(self.stage),
                batch_size=config.eval_batch_size,
                precision=config.precision,
                on_progress=advance,
            )
        return {generation.question_id: generation.text for generation in generations}

    def teacher_forced(self, questions: Sequence[Question], *, title: str) -> dict[str, str]:
        """The best guess for each token of the target after the gold tokens before it.

        So Multimodal-CoT's first version made its texts; not what the model would write.

        Args:
            questions: What is asked.
            title: Of the progress bar.

        Returns:
            The text by question id.
        """
        config = self.run.config
        examples = tokenize(
            self.tokenizer,
            self._inputs(questions, None),
            max_source=config.max_source,
            max_target=self.run.config.max_target(self.stage),
            truncation=config.truncation,
        ).examples
        order = sorted(examples, key=lambda example: -len(example.labels))
        collate = self._collator(pictures=True)
        texts: dict[str, str] = {}
        with progress_bar(title, len(order)) as advance:
            for start in range(0, len(order), _LOGITS_BATCH):
                chosen = order[start : start + _LOGITS_BATCH]
                batch = {name: each.to(self.model.device) for name, each in collate(chosen).items()}
                with torch.no_grad(), autocast(config.precision, self.model.device):
                    guesses_BT = self.model(**batch).logits.argmax(dim=-1)
                for example, guesses_T in zip(chosen, guesses_BT.tolist(), strict=True):
                    text = self.tokenizer.decode(
                        guesses_T[: len(example.labels)], skip_special_tokens=True
                    )
                    texts[example.question_id] = str(text).strip()
                advance(len(texts), len(order))
        return texts

    def as_read(self, text: str) -> str:
        """A text without what the tokenizer cannot tell apart or does not know."""
        ids = self.tokenizer(text).input_ids
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _inputs(
        self, questions: Sequence[Question], rationales: Mapping[str, str] | None
    ) -> list[ModelInput]:
        return model_inputs(questions, self.prompt_format, self.sources.captions, rationales)

    def _collator(self, *, pictures: bool) -> Collator:
        max_target = self.run.config.max_target(self.stage)
        features = self.sources.features
        collate = run_collator(self.run.config, self.tokenizer, features, max_target)
        if features is not None and not pictures:
            collate.features = NoPictures(features.layout)
        return collate
