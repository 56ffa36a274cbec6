"""Any vision model of transformers or timm, with its own image processor: ``hf:<model id>``.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModel,
    TimmWrapperImageProcessor,
    TimmWrapperModel,
)

from mmcot_data.encoders.base import Alpha, EncoderConfig
from mmcot_data.encoders.model_encoder import ModelEncoder
from mmcot_data.encoders.preprocessing import check_resized
from mmcot_data.encoders.pretrained import Source, explained, find_source, load_model, read_config
from mmcot_data.encoders.processor_sizes import find_sizes
from mmcot_data.encoders.timm_models import LastHiddenState
from mmcot_data.encoders.weights import draw_model
from mmcot_data.errors import EncoderError, ImageError
from mmcot_data.images import describe_decoding

__all__ = ["ProcessorPreprocessing", "load"]

logger = logging.getLogger(__name__)

_SQUARE = (64, 64)


class ProcessorPreprocessing:
    """The image processor of a model, one picture at a time.

    Args:
        processor: An image processor of transformers.
        alpha: What decoding did before; for the description.
    """

    def __init__(self, processor: Any, alpha: Alpha = "white") -> None:
        self._processor = processor
        self._alpha = alpha
        self._sizes = find_sizes(processor)
        self._measured = lru_cache(maxsize=None)(self._measure)

    def output_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of what the processor makes of a picture of the given size.

        Told from the settings; where the processor's own code decides, an empty picture is tried,
        once for each size. Of a picture that ``prepare`` refuses it is any size.
        """
        if self._sizes is None:
            return self._measured(width, height)
        rows, columns = self._sizes.output(height, width)
        return max(rows, 1), max(columns, 1)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """Normalised float32 pixels of shape (C, H, W).

        Raises:
            ImageError: ``too_large`` if the picture is so narrow that resizing its shorter side
                makes the longer one huge; ``unsupported`` if the processor refuses it.
            EncoderError: If the processor makes something else of a picture, such as a list of
                patches or several tiles.
        """
        self._check_size(image.width, image.height)
        return self._process(image)

    def _process(self, image: Image.Image) -> torch.Tensor:
        try:
            pixels = self._processor(images=image, return_tensors="pt").get("pixel_values")
        except ValueError as error:
            raise ImageError(
                "unsupported",
                f"{type(self._processor).__name__} can't prepare a picture of {image.width} x "
                f"{image.height} pixels: {error}",
            ) from error
        if pixels is None or pixels.ndim != 4 or len(pixels) != 1:
            found = "no pixel_values" if pixels is None else f"shape {tuple(pixels.shape)}"
            raise EncoderError(
                f"{type(self._processor).__name__} makes {found} of a picture, expected one image "
                "(1, channels, height, width): models that take a variable number of patches or "
                "tiles (NaFlex, for example) are not supported; take one of a fixed resolution, "
                "such as google/siglip2-base-patch16-224"
            )
        image_CHW: torch.Tensor = pixels[0].float()
        return image_CHW

    def normalize(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Nothing: the processor has normalised."""
        return pixels_BCHW

    def describe(self) -> list[dict[str, Any]]:
        """The processor's class, back end and settings."""
        return [
            describe_decoding(self._alpha),
            {
                "step": "processor",
                "class": type(self._processor).__name__,
                "settings": json.loads(self._processor.to_json_string()),
                "implementation": _implementation(self._processor),
            },
        ]

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages whose versions decide the pixels."""
        if isinstance(self._processor, TimmWrapperImageProcessor):
            return "pillow", "timm", "torchvision"
        is_pil = _implementation(self._processor) == "pil"
        return ("pillow", "transformers") if is_pil else ("pillow", "torchvision", "transformers")

    def _check_size(self, width: int, height: int) -> None:
        """An unknown processor may resize the shorter side to what a square picture gets."""
        if self._sizes is not None:
            check_resized((width, height), self._sizes.resized(height, width))
            return
        side, shorter = self._side_of_squares, min(width, height)
        resized = side * height // shorter, side * width // shorter
        check_resized((width, height), resized, is_certain=False)

    @cached_property
    def _side_of_squares(self) -> int:
        return max(self._process(Image.new("RGB", _SQUARE)).shape[1:])

    def _measure(self, width: int, height: int) -> tuple[int, int]:
        try:
            self._check_size(width, height)
            _, new_height, new_width = self._process(Image.new("RGB", (width, height))).shape
        except ImageError:  # prepare() will raise it, too
            return height, width
        return new_height, new_width


@dataclass(frozen=True, kw_only=True, slots=True)
class _Features:
    """What a model gives for a picture."""

    num_patches: int
    feature_dim: int
    grid: tuple[int, int] | None
    is_channels_last: bool = False
    """A map (B, h, w, D), as few models give it."""


class _ChannelsFirst(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixel_values: torch.Tensor) -> LastHiddenState:
        features_BhwD = self.module(pixel_values=pixel_values).last_hidden_state
        return LastHiddenState(features_BhwD.permute(0, 3, 1, 2))


def load(config: EncoderConfig) -> ModelEncoder:
    """Load a vision model, or the vision tower of a model that has one.

    Raises:
        EncoderError: If the model or its image processor cannot be loaded, it is no vision
            model of a fixed resolution, its ``last_hidden_state`` is no list or map of patches,
            or another resizer than its own is asked for.
    """
    source = find_source(config, config.name.removeprefix("hf:"))
    if config.resize != "pil":
        raise EncoderError(
            f"{config.name}: pictures are resized by the model's own image processor; "
            f"resize={config.resize} has no meaning for it: leave it out"
        )
    settings = _read_settings(source)
    preprocessing = ProcessorPreprocessing(_load_processor(source), config.alpha)
    pixels_CHW = preprocessing.prepare(Image.new("RGB", _SQUARE))
    if config.random_weights is None:
        model = load_model(
            AutoModel, source, _vision_tower, config=settings, trust_remote_code=False
        )
    else:
        auto_model: Any = AutoModel
        model = draw_model(
            lambda: _vision_tower(auto_model.from_config(settings))[1],
            config.random_weights,
            source.model_id,
        )
    if config.model is None:  # where a folder lies is no part of the features
        config = replace(config, name=f"hf:{source.model_id}")
    features = _measure_features(model.module, pixels_CHW, source)
    layer = f"last_hidden_state of {_class_name(model.module)}"
    if features.is_channels_last:
        model = replace(model, module=_ChannelsFirst(model.module))
    return ModelEncoder(
        config=config,
        model=model,
        preprocessing=preprocessing,
        num_patches=features.num_patches,
        feature_dim=features.feature_dim,
        grid=features.grid,
        layer=layer,
    )


def _read_settings(source: Source) -> Any:
    settings = read_config(source)
    if settings.model_type == "timm_wrapper" and settings.model_args:
        # timm's save_for_hf writes it, and transformers sets it itself.
        settings.model_args = {k: v for k, v in settings.model_args.items() if k != "num_classes"}
    return settings


def _load_processor(source: Source) -> Any:
    auto_processor: Any = AutoImageProcessor
    with explained(source, "preprocessor_config.json"):
        processor = auto_processor.from_pretrained(
            source.location, revision=source.revision, backend="pil", trust_remote_code=False
        )
    if _implementation(processor) != "pil":
        logger.warning(
            "%s has no image processor with Pillow: %s resizes its pictures",
            source.location,
            processor.backend,
        )
    return processor


def _implementation(processor: Any) -> str:
    """What resizes: timm's transforms take pictures of Pillow."""
    is_timm = isinstance(processor, TimmWrapperImageProcessor)
    return "pil" if is_timm else str(processor.backend)


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


def _class_name(module: nn.Module) -> str:
    if isinstance(module, TimmWrapperModel):
        return f"timm's {module.config.architecture}"
    return type(module).__name__


@torch.inference_mode()
def _measure_features(module: nn.Module, pixels_CHW: torch.Tensor, source: Source) -> _Features:
    features = getattr(module(pixel_values=pixels_CHW[None]), "last_hidden_state", None)
    shape = None if features is None else tuple(features.shape)
    match shape:
        case (_, num_patches, width):
            grid = _find_grid(module, pixels_CHW, num_patches)
            return _Features(num_patches=num_patches, feature_dim=width, grid=grid)
        case (_, width, rows, columns) if _has_proportions_of(pixels_CHW, rows, columns):
            grid = rows, columns
            return _Features(num_patches=rows * columns, feature_dim=width, grid=grid)
        case (_, rows, columns, width) if _has_proportions_of(pixels_CHW, rows, columns):
            return _Features(
                num_patches=rows * columns,
                feature_dim=width,
                grid=(rows, columns),
                is_channels_last=True,
            )
    raise EncoderError(
        f"{source.location}: expected a last_hidden_state of shape (batch, patches, width), "
        f"(batch, width, rows, columns) or (batch, rows, columns, width), found {shape}"
    )


def _has_proportions_of(pixels_CHW: torch.Tensor, rows: int, columns: int) -> bool:
    _, height, width = pixels_CHW.shape
    return abs(rows * width - columns * height) < max(height, width)


def _find_grid(
    module: nn.Module, pixels_CHW: torch.Tensor, num_patches: int
) -> tuple[int, int] | None:
    """Of a transformer over square patches whose class and register tokens come first."""
    if isinstance(module, TimmWrapperModel):
        network: Any = module.timm_model
        side = getattr(getattr(network, "patch_embed", None), "patch_size", (None,))[0]
        num_tokens = getattr(network, "num_prefix_tokens", 0)
    else:
        side = getattr(module.config, "patch_size", None)
        num_tokens = 1 + getattr(module.config, "num_register_tokens", 0)
    if not isinstance(side, int):
        return None
    rows, columns = (length // side for length in pixels_CHW.shape[1:])
    return (rows, columns) if num_patches - rows * columns in (0, 1, num_tokens) else None
