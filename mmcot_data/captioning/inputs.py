"""What a model is given for a picture: its own image processor's work, with the prompt if any."""

import json
import threading
from typing import Any

import torch
from PIL import Image

from mmcot_data.encoders.base import Alpha
from mmcot_data.encoders.preprocessing import check_resized
from mmcot_data.errors import EncoderError, ImageError
from mmcot_data.images import describe_decoding

__all__ = ["ModelInputs", "PictureInputs"]

ModelInputs = dict[str, torch.Tensor]
"""Arguments of a model's ``generate`` for one picture, by name."""


class PictureInputs:
    """Prepares pictures one by one; safe to call from several threads.

    Args:
        image_processor: An image processor of transformers.
        processor: What joins it with a tokenizer; not needed where the model reads no prompt.
        prompt: What is said beside the picture.
        is_chat: Whether picture and prompt are one message of a conversation.
        alpha: What decoding did before; for the description.
    """

    def __init__(
        self,
        image_processor: Any,
        processor: Any = None,
        *,
        prompt: str | None = None,
        is_chat: bool = False,
        alpha: Alpha = "white",
    ) -> None:
        self._image_processor = image_processor
        self._processor = processor
        self._prompt = prompt
        self._is_chat = is_chat
        self._alpha = alpha
        self._tokenizing = threading.Lock()
        """Tokenizers can't be called from several threads at once."""

    def prepare(self, image: Image.Image) -> ModelInputs:
        """What the model is given for a picture.

        Raises:
            ImageError: ``too_large`` if the picture is so narrow that resizing its shorter side
                makes the longer one huge; ``unsupported`` if the processor refuses it.
            EncoderError: If the processor gives something else than tensors.
        """
        self._check_size(image)
        try:
            inputs = self._process(image)
        except ValueError as error:
            raise ImageError(
                "unsupported",
                f"{type(self._image_processor).__name__} can't prepare a picture of {image.width} "
                f"x {image.height} pixels: {error}",
            ) from error
        others = [name for name, value in inputs.items() if not isinstance(value, torch.Tensor)]
        if others:
            raise EncoderError(
                f"{type(self._processor or self._image_processor).__name__} gives no tensors for "
                f"{', '.join(others)}: this model is not supported"
            )
        return dict(inputs)

    def describe(self) -> dict[str, Any]:
        """What decides the inputs, as JSON values."""
        return {
            "preprocessing": [
                describe_decoding(self._alpha),
                {
                    "step": "processor",
                    "class": type(self._image_processor).__name__,
                    "settings": json.loads(self._image_processor.to_json_string()),
                    "implementation": self._image_processor.backend,
                },
            ],
            "prompt": self._prompt,
            "prompt_as_given": self._rendered(),
        }

    def _process(self, image: Image.Image) -> Any:
        if self._is_chat:
            with self._tokenizing:
                return self._processor.apply_chat_template(
                    self._message(image),
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                )
        if self._prompt is None:
            return self._image_processor(images=image, return_tensors="pt")
        with self._tokenizing:
            return self._processor(images=image, text=self._prompt, return_tensors="pt")

    def _rendered(self) -> str | None:
        """The prompt as the chat template puts it."""
        if not self._is_chat:
            return self._prompt
        text = self._processor.apply_chat_template(self._message(), add_generation_prompt=True)
        return str(text)

    def _message(self, image: Image.Image | None = None) -> list[dict[str, Any]]:
        picture = {"type": "image"} if image is None else {"type": "image", "image": image}
        text = [] if self._prompt is None else [{"type": "text", "text": self._prompt}]
        return [{"role": "user", "content": [picture, *text]}]

    def _check_size(self, image: Image.Image) -> None:
        """Where the shorter side is resized to a length, the longer one may become anything."""
        size = getattr(self._image_processor, "size", None)
        side = getattr(size, "shortest_edge", None)
        if side and not getattr(size, "longest_edge", None):
            shorter = min(image.size)
            resized = side * image.height // shorter, side * image.width // shorter
            check_resized(image.size, resized, is_certain=False)
