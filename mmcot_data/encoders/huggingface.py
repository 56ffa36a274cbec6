"""Any vision model of transformers, with its own image processor: ``hf:<model id>``."""

import json
import logging
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModel

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.encoders.model_encoder import ModelEncoder, as_patches
from mmcot_data.encoders.pretrained import Source, explained, find_source, load_model, read_config
from mmcot_data.encoders.weights import draw_model
from mmcot_data.errors import EncoderError
from mmcot_data.images import DECODING

__all__ = ["ProcessorPreprocessing", "load"]

logger = logging.getLogger(__name__)


class ProcessorPreprocessing:
    """The image processor of a model, one picture at a time.

    Args:
        processor: An image processor of transformers.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._size = lru_cache(maxsize=None)(self._measure)

    def output_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of what the processor makes of a picture of the given size."""
        return self._size(width, height)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """Normalised float32 pixels of shape (C, H, W)."""
        pixels: torch.Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"]
        return pixels[0].float()

    def normalize(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Nothing: the processor has normalised."""
        return pixels_BCHW

    def describe(self) -> list[dict[str, Any]]:
        """The processor's class, back end and settings."""
        return [
            DECODING,
            {
                "step": "processor",
                "class": type(self._processor).__name__,
                "settings": json.loads(self._processor.to_json_string()),
                "implementation": self._processor.backend,
            },
        ]

    def _measure(self, width: int, height: int) -> tuple[int, int]:
        _, new_height, new_width = self.prepare(Image.new("RGB", (width, height))).shape
        return new_height, new_width


def load(config: EncoderConfig) -> ModelEncoder:
    """Load a vision model, or the vision tower of a model that has one.

    Raises:
        EncoderError: If the model or its image processor cannot be loaded, it is no vision
            model, or its ``last_hidden_state`` is no list or map of patches.
    """
    source = find_source(config, config.name.removeprefix("hf:"))
    settings = read_config(source)
    preprocessing = ProcessorPreprocessing(_load_processor(source))
    if config.random_weights is None:
        model = load_model(AutoModel, source, _vision_tower, trust_remote_code=False)
    else:
        auto_model: Any = AutoModel
        model = draw_model(
            lambda: _vision_tower(auto_model.from_config(settings))[1],
            config.random_weights,
            source.model_id,
        )
    if config.model is None:  # where a folder lies is no part of the features
        config = replace(config, name=f"hf:{source.model_id}")
    num_patches, feature_dim, grid = _measure_features(model.module, preprocessing, source)
    return ModelEncoder(
        config=config,
        model=model,
        preprocessing=preprocessing,
        num_patches=num_patches,
        feature_dim=feature_dim,
        grid=grid,
        layer=f"last_hidden_state of {type(model.module).__name__}",
    )


def _load_processor(source: Source) -> Any:
    auto_processor: Any = AutoImageProcessor
    with explained(source, "preprocessor_config.json"):
        processor = auto_processor.from_pretrained(
            source.location, revision=source.revision, backend="pil", trust_remote_code=False
        )
    if processor.backend != "pil":
        logger.warning(
            "%s has no image processor with Pillow: %s resizes its pictures",
            source.location,
            processor.backend,
        )
    return processor


def _vision_tower(model: Any) -> tuple[str, nn.Module]:
    """The part of a model that sees, with its name; the model itself if it has no parts."""
    has_tower = hasattr(model.config, "vision_config")
    tower = model.get_encoder("image") if has_tower else model
    if (has_tower and tower is model) or tower.main_input_name != "pixel_values":
        raise EncoderError(
            f"{type(model).__name__} is no vision model and has no vision tower: expected one "
            "that takes pixel_values"
        )
    return next(name for name, part in model.named_modules() if part is tower), tower


@torch.inference_mode()
def _measure_features(
    module: nn.Module, preprocessing: ProcessorPreprocessing, source: Source
) -> tuple[int, int, tuple[int, int] | None]:
    """P, D and the grid."""
    pixels_CHW = preprocessing.prepare(Image.new("RGB", (64, 64)))
    output = module(pixel_values=pixels_CHW[None])
    features = getattr(output, "last_hidden_state", None)
    if features is None or features.ndim not in (3, 4):
        shape = "none" if features is None else tuple(features.shape)
        raise EncoderError(
            f"{source.location}: expected a last_hidden_state of shape (batch, patches, width) or "
            f"(batch, width, rows, columns), found {shape}"
        )
    _, num_patches, feature_dim = as_patches(features).shape
    if features.ndim == 4:
        return num_patches, feature_dim, (features.shape[2], features.shape[3])
    return num_patches, feature_dim, _find_grid(module, pixels_CHW, num_patches)


def _find_grid(
    module: nn.Module, pixels_CHW: torch.Tensor, num_patches: int
) -> tuple[int, int] | None:
    """Of a transformer over square patches whose class and register tokens come first."""
    side = getattr(module.config, "patch_size", None)
    if not isinstance(side, int):
        return None
    rows, columns = (length // side for length in pixels_CHW.shape[1:])
    num_tokens = 1 + getattr(module.config, "num_register_tokens", 0)
    return (rows, columns) if num_patches - rows * columns in (0, 1, num_tokens) else None
