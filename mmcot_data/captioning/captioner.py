"""A loaded image-to-text model: pictures in, captions out."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, cast

import torch
from PIL import Image

from mmcot_data.captioning.inputs import ModelInputs, PictureInputs
from mmcot_data.captioning.table import CaptionerFacts
from mmcot_data.encoders.base import Alpha, Precision
from mmcot_data.encoders.compute import HALF_DTYPES, computing, describe_device
from mmcot_data.encoders.weights import LoadedModel
from mmcot_data.errors import GenerationError

__all__ = ["Captioner"]

_LIBRARIES = ("pillow", "tokenizers", "torch", "torchvision", "transformers")
_GENERATING_PART = {
    "blip": "text_decoder",
    "blip-2": "language_model",
    "instructblip": "language_model",
}
"""Whose settings decide, by model type; elsewhere it is the model itself."""
_WITHOUT_EFFECT = {
    *("transformers_version", "_from_model_config"),
    *("temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("output_attentions", "output_hidden_states", "output_scores", "use_cache"),
}
"""Settings that say nothing about a caption whose tokens are not drawn."""
_ADVISERS = ("modeling_utils", "generation.utils")
_ADVICE = ("passing in an `attention_mask`", "The attention mask is not set")
_CONTINUES = "blip"
"""The model type that takes the prompt as the beginning of the caption, without its last token."""


class Captioner:
    """Captions prepared pictures.

    Args:
        model: The model, at its precision.
        inputs: Prepares pictures for it.
        tokenizer: Turns its tokens to text.
        facts: How it writes.
        device: Where it computes.
        precision: Of its weights.
        alpha: What becomes of transparent pixels.
    """

    def __init__(
        self,
        *,
        model: LoadedModel,
        inputs: PictureInputs,
        tokenizer: Any,
        facts: CaptionerFacts,
        device: torch.device,
        precision: Precision,
        alpha: Alpha,
    ) -> None:
        self.alpha = alpha
        self._device = device
        self._dtype = HALF_DTYPES.get(precision, torch.float32)
        self._inputs = inputs
        self._tokenizer = tokenizer
        self._model = cast(Any, model.module.to(device))
        self._model_id = model.model_id
        self._model_type = self._model.config.model_type
        self._generation = {
            "do_sample": False,
            "num_beams": facts.num_beams,
            "max_new_tokens": facts.max_new_tokens,
            "repetition_penalty": facts.repetition_penalty,
        }
        self._description = {
            "model_id": model.model_id,
            "model_class": type(model.module).__name__,
            "revision": model.revision,
            "random_weights": model.random_weights,
            "weights_sha256": model.weights_sha256,
            "precision": precision,
            "generation": self._own_generation() | self._generation,
            **inputs.describe(),
        }

    @property
    def is_on_cpu(self) -> bool:
        """Whether the model shares the cores with what decodes pictures."""
        return self._device.type == "cpu"

    def describe(self) -> dict[str, Any]:
        """What decides the captions, as JSON values."""
        return dict(self._description)

    def environment(self) -> dict[str, Any]:
        """What computes, as JSON values: device and versions. It may change the rounding."""
        versions = {library: version(library) for library in _LIBRARIES}
        return {**describe_device(self._device), "versions": versions}

    def prepare(self, image: Image.Image) -> ModelInputs:
        """What the model is given for a picture; safe to call from several threads.

        Raises:
            ImageError: If the picture can't be prepared.
            EncoderError: If the model's processor is of a kind that is not supported.
        """
        return self._inputs.prepare(image)

    def caption(self, pictures: Sequence[ModelInputs]) -> list[str]:
        """Caption pictures whose inputs have equal shapes.

        Nothing is padded, so that a caption does not depend on the others but for rounding.

        Raises:
            GenerationError: If the device has too little memory, or the model refuses the inputs.
        """
        inputs = {
            name: self._on_device(torch.cat([picture[name] for picture in pictures]))
            for name in pictures[0]
        }
        prompt_BT = inputs["input_ids"].clone() if "input_ids" in inputs else None
        try:
            with computing(self._device, "fp32"), _without_advice():
                tokens_BT = self._model.generate(**inputs, **self._generation)
        except torch.OutOfMemoryError as error:
            raise GenerationError(
                f"{self._device} has too little memory to caption {len(pictures)} pictures at once "
                f"({str(error).partition('. ')[0]}): use a smaller --batch-size or less beams; "
                "captions that are made stay"
            ) from error
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise GenerationError(
                f"{self._model_id} can't write a caption from {', '.join(inputs)} "
                f"({type(error).__name__}: {error}): it may need a prompt, `--prompt TEXT`, as its "
                "model card says, or another version of transformers"
            ) from error
        texts = self._tokenizer.batch_decode(
            self._without_prompt(tokens_BT, prompt_BT), skip_special_tokens=True
        )
        return [text.strip() for text in texts]

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self._device, dtype)

    def _without_prompt(
        self, tokens_BT: torch.Tensor, prompt_BT: torch.Tensor | None
    ) -> torch.Tensor:
        """The tokens that the model added: a model of one stack repeats the prompt before them."""
        if prompt_BT is None:
            return tokens_BT
        if self._model_type == _CONTINUES:
            return tokens_BT[:, prompt_BT.shape[1] - 1 :]
        length = prompt_BT.shape[1]
        return tokens_BT[:, length:] if torch.equal(tokens_BT[:, :length], prompt_BT) else tokens_BT

    def _own_generation(self) -> dict[str, Any]:
        """What the model's authors set; transformers heeds it where nothing else is said."""
        part = getattr(self._model, _GENERATING_PART.get(self._model_type, ""), self._model)
        part.generation_config.max_length = None  # or it warns that max_new_tokens counts
        settings: dict[str, Any] = part.generation_config.to_diff_dict()
        return {name: value for name, value in settings.items() if name not in _WITHOUT_EFFECT}


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep back warnings about padding: here only captions that have ended are padded."""

    def keep(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(advice in message for advice in _ADVICE)

    loggers = [logging.getLogger(f"transformers.{name}") for name in _ADVISERS]
    for logger in loggers:
        logger.addFilter(keep)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(keep)
