"""From a picture to a model's input: resize, crop and normalise, as data that describes itself.

Pillow resizes unless torchvision is asked for, because Pillow's pixels are what the reference
models saw; torch normalises a whole batch on the device.

Shape suffixes: B = batch, C = channels, H, W = pixels.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image

from mmcot_data.encoders.base import Alpha, Resizer
from mmcot_data.errors import ImageError
from mmcot_data.images import describe_decoding

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "HALF",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "CenterCrop",
    "Normalize",
    "PicturePreprocessing",
    "Preprocessing",
    "Resize",
    "check_resized",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_MAX_INPUT_PIXELS = 1 << 24


class Preprocessing(Protocol):
    """What an encoder does to a decoded picture before its model."""

    def output_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of the model's input for a picture of the given size."""
        ...

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """(C, H, W) of one RGB picture: uint8, or float32 that is normalised already."""
        ...

    def normalize(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """float32 input of the model from a batch of prepared pictures, on their device."""
        ...

    def describe(self) -> list[dict[str, Any]]:
        """Every step with its parameters and its implementation, as JSON values."""
        ...

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages whose versions decide the pixels."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Resize:
    """Resize with antialiasing."""

    rule: Literal["shorter_side", "square"]
    """``shorter_side`` keeps the aspect ratio and rounds the longer side down."""
    size: int
    """Pixels of the shorter side, or of both."""
    max_longer_side: int | None = None
    """Where the longer side would exceed this, it gets this size instead (DETR's rule)."""
    interpolation: Literal["bilinear", "bicubic"]

    def output_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) after resizing; the rule of torchvision and of transformers."""
        if self.rule == "square":
            return self.size, self.size
        shorter, longer = min(width, height), max(width, height)
        new_shorter, scale = self.size, float(self.size)
        if self.max_longer_side is not None and longer / shorter * self.size > self.max_longer_side:
            scale = self.max_longer_side * shorter / longer
            new_shorter = max(1, round(scale))
        new_longer = longer if shorter == new_shorter else int(scale * longer / shorter)
        return (new_shorter, new_longer) if height <= width else (new_longer, new_shorter)


@dataclass(frozen=True, kw_only=True, slots=True)
class CenterCrop:
    """Cut a square from the middle of a picture that is at least as large."""

    size: int
    margin_rounding: Literal["down", "half_even"]
    """Of half a pixel: transformers rounds the margin down, torchvision half to even."""

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels."""
        left, top = (self._margin(side) for side in (width, height))
        return left, top, left + self.size, top + self.size

    def _margin(self, side: int) -> int:
        spare = side - self.size
        return spare // 2 if self.margin_rounding == "down" else round(spare / 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalize:
    """Divide by 255, subtract the mean and divide by the standard deviation of each channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """To the bit what torchvision's ``ToTensor`` and ``Normalize`` give."""
        mean, std = (_by_channel(values, pixels_BCHW.device) for values in (self.mean, self.std))
        pixels_BCHW = pixels_BCHW.to(torch.float32, copy=True)
        return pixels_BCHW.div_(255).sub_(mean).div_(std)


@dataclass(frozen=True, kw_only=True, slots=True)
class PicturePreprocessing:
    """Resize and crop with Pillow or torchvision, normalise with torch."""

    resize: Resize
    crop: CenterCrop | None = None
    normalization: Normalize
    resizer: Resizer = "pil"
    alpha: Alpha = "white"
    """What decoding did before; for the description."""

    def output_size(self, width: int, height: int) -> tuple[int, int]:
        """(height, width) of the model's input for a picture of the given size."""
        if self.crop is not None:
            return self.crop.size, self.crop.size
        return self.resize.output_size(width, height)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """Resize and crop.

        Returns:
            uint8 pixels of shape (3, H, W), the channels of a pixel side by side in memory.

        Raises:
            ImageError: ``too_large`` if the picture is so narrow that resizing its shorter side
                makes the longer one huge.
        """
        height, width = self.resize.output_size(image.width, image.height)
        check_resized(image.size, (height, width))
        box = (0, 0, width, height) if self.crop is None else self.crop.box(width, height)
        if self.resizer == "torchvision":
            left, top, right, bottom = box
            resized_CHW = _resize_tensor(_as_tensor(image), height, width, self.resize)
            return resized_CHW[:, top:bottom, left:right]
        image = image.resize((width, height), _RESAMPLING[self.resize.interpolation])
        if self.crop is not None:
            image = image.crop(box)
        return _as_tensor(image)

    def normalize(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 pixels, on their device."""
        return self.normalization.apply(pixels_BCHW)

    def describe(self) -> list[dict[str, Any]]:
        """Every step with its parameters and its implementation."""
        resize = {"step": "resize", **asdict(self.resize), "antialias": True}
        steps = [describe_decoding(self.alpha), {**resize, "implementation": self.resizer}]
        if self.crop is not None:
            cropping = "pil" if self.resizer == "pil" else "torch"
            steps.append({"step": "center_crop", **asdict(self.crop), "implementation": cropping})
        mean, std = list(self.normalization.mean), list(self.normalization.std)
        scale = {"step": "normalize", "divide_by": 255, "mean": mean, "std": std}
        return [*steps, {**scale, "implementation": "torch"}]

    @property
    def libraries(self) -> tuple[str, ...]:
        """Packages whose versions decide the pixels."""
        return ("pillow",) if self.resizer == "pil" else ("pillow", "torchvision")


def check_resized(
    size: tuple[int, int], resized: tuple[int, int], *, is_certain: bool = True
) -> None:
    """Refuse a picture that would take too much memory, before it is resized.

    Args:
        size: (width, height) of the picture.
        resized: (height, width) that it gets before it is cropped.
        is_certain: Whether it does get them, or may; for the error.

    Raises:
        ImageError: ``too_large`` if that has more than 2 ** 24 pixels.
    """
    height, width = resized
    if height * width > _MAX_INPUT_PIXELS:
        raise ImageError(
            "too_large",
            f"a picture of {size[0]} x {size[1]} {'becomes' if is_certain else 'may become'} "
            f"{width} x {height} for the model, more than {_MAX_INPUT_PIXELS} pixels",
        )


def _as_tensor(image: Image.Image) -> torch.Tensor:
    """(3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _resize_tensor(
    pixels_CHW: torch.Tensor, height: int, width: int, resize: Resize
) -> torch.Tensor:
    from torchvision.transforms.v2 import InterpolationMode, functional

    interpolation = InterpolationMode(resize.interpolation)
    return functional.resize(pixels_CHW, [height, width], interpolation, antialias=True)


@lru_cache
def _by_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """(C, 1, 1). A copy to a GPU waits for what the GPU computes, so it is made only once."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1)
