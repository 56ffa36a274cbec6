"""One set of weights for every way to extract: a folder as transformers saves it, or a hub id.

Shape suffixes: B = batch, C = channels, H, W = pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torchvision import transforms as T
from torchvision.transforms import functional
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    DetrConfig,
    DetrImageProcessor,
    DetrModel,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d
from transformers.utils import logging as transformers_logging

__all__ = ["ENCODERS", "Model", "draw_model", "find_model", "silence_transformers"]

_CLASSES: dict[str, Any] = {"clip": CLIPVisionModel, "vit": ViTModel, "detr": DetrModel}
_SIDES = {"clip": 224, "vit": 384, "detr": 224}
_MEANS_AND_STDS = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "vit": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "detr": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
_BIAS_STD = 0.3
_NUM_CALIBRATION = 4

ENCODERS = tuple(_CLASSES)
"""The encoders that Multimodal-CoT and transformers have too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """The weights of one encoder."""

    encoder: str
    location: str
    """Folder or hub id."""

    def load(self) -> nn.Module:
        """The model as transformers makes it, in float32, on the CPU."""
        options = {"add_pooling_layer": False} if self.encoder == "vit" else {}
        model: nn.Module = _CLASSES[self.encoder].from_pretrained(
            self.location, dtype=torch.float32, **options
        )
        return model.eval().requires_grad_(False)

    def load_processor(self) -> Any:
        """An image processor of transformers with the settings of ``transform``."""
        side, (mean, std) = _SIDES[self.encoder], _MEANS_AND_STDS[self.encoder]
        options: dict[str, Any] = {"image_mean": mean, "image_std": std}
        if self.encoder == "detr":
            size = {"shortest_edge": side, "longest_edge": 1 << 14}
            return DetrImageProcessor(size=size, do_pad=False, **options)
        crop = {"height": side, "width": side}
        return CLIPImageProcessor(size={"shortest_edge": side}, crop_size=crop, **options)

    def transform(self) -> Callable[[Image.Image], torch.Tensor]:
        """What Multimodal-CoT builds for every picture: (C, H, W) of an RGB picture.

        CLIP is cropped as its own processor does it: half a pixel of margin is rounded down.
        """
        side, (mean, std) = _SIDES[self.encoder], _MEANS_AND_STDS[self.encoder]
        as_input = [T.ToTensor(), T.Normalize(mean, std)]
        if self.encoder == "detr":
            return T.Compose([T.Resize(side), *as_input])
        crop = T.CenterCrop(side) if self.encoder == "vit" else T.Lambda(_crop_rounding_down)
        resize = T.Resize(side, T.InterpolationMode.BICUBIC)
        return T.Compose([resize, crop, *as_input])

    def normalize(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Input of the model from uint8 pixels, on their device."""
        device = pixels_BCHW.device
        mean, std = (
            torch.tensor(values, device=device).view(-1, 1, 1)
            for values in _MEANS_AND_STDS[self.encoder]
        )
        return pixels_BCHW.float().div(255).sub(mean).div(std)


def _crop_rounding_down(image: Image.Image) -> Image.Image:
    side = _SIDES["clip"]
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return functional.crop(image, top, left, side, side)


def find_model(
    encoder: str,
    trained: Sequence[str],
    folder: Path,
    pictures: Sequence[Path],
    *,
    seed: int,
    tiny: bool,
) -> Model:
    """The weights that an option ``ENCODER=MODEL`` names, else random ones.

    Raises:
        SystemExit: If an option has another form.
    """
    for option in trained:
        name, equals, location = option.partition("=")
        if name not in ENCODERS or not equals or not location:
            raise SystemExit(f"--model {option}: expected ENCODER=FOLDER or ENCODER=HUB_ID")
        if name == encoder:
            return Model(encoder=encoder, location=location)
    return draw_model(encoder, folder, pictures, seed=seed, tiny=tiny)


def draw_model(
    encoder: str, folder: Path, pictures: Sequence[Path], *, seed: int, tiny: bool = False
) -> Model:
    """Save a model with random weights as transformers does.

    Args:
        encoder: One of ``ENCODERS``.
        folder: Where it is saved.
        pictures: DETR's frozen norms get the statistics of the first of them, as after training;
            otherwise its activations grow or vanish, and rounding errors with them.
        seed: Of the weights.
        tiny: Two layers instead of the published size: to try the benchmark itself.
    """
    torch.manual_seed(seed)
    model = _BUILD[encoder](tiny).eval().requires_grad_(False)
    drawn = Model(encoder=encoder, location=str(folder))
    if encoder == "detr":
        _calibrate(model, [_open(path) for path in pictures[:_NUM_CALIBRATION]], drawn)
    model.save_pretrained(folder)
    return drawn


def _build_clip(tiny: bool) -> PreTrainedModel:
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=2 if tiny else 12,
            num_attention_heads=12,
            image_size=224,
            patch_size=32,
        )
    )


def _build_vit(tiny: bool) -> PreTrainedModel:
    config = ViTConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=2 if tiny else 24,
        num_attention_heads=16,
        image_size=384,
        patch_size=32,
    )
    return ViTModel(config, add_pooling_layer=False)


def _build_detr(tiny: bool) -> PreTrainedModel:
    """Without the last stride (DC5) in both sizes."""
    backbone = {
        "model_type": "timm_backbone",
        "backbone": "resnet26" if tiny else "resnet101",
        "use_pretrained_backbone": False,
        "features_only": True,
        "out_indices": [1, 2, 3, 4],
        "output_stride": 16,
    }
    num_layers = 2 if tiny else 6
    return DetrModel(
        DetrConfig(
            backbone_config=backbone,
            dilation=True,
            encoder_layers=num_layers,
            decoder_layers=num_layers,
        )
    )


_BUILD: dict[str, Callable[[bool], PreTrainedModel]] = {
    "clip": _build_clip,
    "vit": _build_vit,
    "detr": _build_detr,
}


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


@torch.inference_mode()
def _calibrate(model: nn.Module, pictures: Sequence[Image.Image], drawn: Model) -> None:
    """Frozen norms as after training: the statistics of pictures, and biases that are not zero."""
    transform, side = drawn.transform(), _SIDES["detr"]
    pixels_BCHW = torch.stack([T.CenterCrop(side)(transform(picture)) for picture in pictures])

    def take_statistics(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)).clamp_min(1e-5))
        norm.bias.normal_(0, _BIAS_STD)

    norms = [module for module in model.modules() if isinstance(module, DetrFrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(take_statistics) for norm in norms]
    model(pixel_values=pixels_BCHW)
    for hook in hooks:
        hook.remove()


def silence_transformers() -> None:
    """No progress bars and no warnings: its pipeline warns of what it sets itself."""
    settings: Any = transformers_logging
    settings.disable_progress_bar()
    settings.set_verbosity_error()
