"""ResNet (He et al. 2016, https://arxiv.org/abs/1512.03385): one average-pooled feature a picture.

How Multimodal-CoT made its "resnet" features is not published beyond ResNet-50 and their width;
the default here is the best known recipe: torchvision's first weights and its evaluation transform.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

import math
from typing import Any, cast

import torch
from torch import nn

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.encoders.model_encoder import ModelEncoder
from mmcot_data.encoders.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CenterCrop,
    Normalize,
    PicturePreprocessing,
    Resize,
)
from mmcot_data.encoders.pretrained import Source, find_source
from mmcot_data.encoders.processor_settings import check_pretrained_cfg
from mmcot_data.encoders.table import ENCODERS
from mmcot_data.encoders.timm_models import LastHiddenState, load_network, read_pretrained_cfg
from mmcot_data.errors import EncoderError

__all__ = ["PooledFeatures", "load"]

_FACTS = ENCODERS["resnet"]
_ARCHITECTURE = "resnet50"
_ARCHITECTURES = ("resnet18", "resnet34", _ARCHITECTURE, "resnet101", "resnet152")
_ADVICE = "`--preprocessing native` follows it"


class PooledFeatures(nn.Module):
    """The average over the map of the last residual block.

    Args:
        network: timm's; it loses its classifier.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        network.fc = nn.Identity()
        self.network = network
        self.feature_dim: int = network.num_features

    def forward(self, pixel_values: torch.Tensor) -> LastHiddenState:
        """Features of shape (B, 1, D) from normalised pixels (B, 3, H, W)."""
        features_BD = self.network.forward_features(pixel_values).mean((2, 3))
        return LastHiddenState(features_BD[:, None])


def load(config: EncoderConfig) -> ModelEncoder:
    """Load a ResNet without its classifier.

    ``reference`` preprocessing is torchvision's: shorter side 256, centre crop of 224. ``native``
    is what the model's ``pretrained_cfg`` says, for weights that were trained in another way.

    Raises:
        EncoderError: If the model cannot be loaded, is not ResNet, or was trained with another
            preprocessing.
    """
    source = find_source(config, _FACTS.model_id)
    cfg = read_pretrained_cfg(config, source, _ARCHITECTURES)
    if cfg is not None and config.preprocessing == "native":
        preprocessing = _native(config, source, cfg)
    else:
        preprocessing = _reference(config)
        if cfg is not None:
            check_pretrained_cfg(source, cfg, preprocessing, advice=_ADVICE)
    model = load_network(config, source, _ARCHITECTURE, PooledFeatures)
    return ModelEncoder(
        config=config,
        model=model,
        preprocessing=preprocessing,
        num_patches=1,
        feature_dim=cast(PooledFeatures, model.module).feature_dim,
        grid=(1, 1),
        layer=_FACTS.layer,
    )


def _reference(config: EncoderConfig) -> PicturePreprocessing:
    return PicturePreprocessing(
        resize=Resize(rule="shorter_side", size=256, interpolation="bilinear"),
        crop=CenterCrop(size=224, margin_rounding="half_even"),
        normalization=Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        resizer=config.resize,
        alpha=config.alpha,
    )


def _native(config: EncoderConfig, source: Source, cfg: dict[str, Any]) -> PicturePreprocessing:
    """What timm's evaluation transform does."""
    match {"crop_mode": "center", **cfg}:
        case {
            "input_size": [3, int(size), int(width)],
            "interpolation": ("bilinear" | "bicubic") as interpolation,
            "crop_mode": "center",
            "crop_pct": float(crop_pct),
            "mean": [*mean],
            "std": [*std],
        } if size == width:
            return PicturePreprocessing(
                resize=Resize(
                    rule="shorter_side",
                    size=math.floor(size / crop_pct),
                    interpolation=interpolation,
                ),
                crop=CenterCrop(size=size, margin_rounding="half_even"),
                normalization=Normalize(mean=tuple(mean), std=tuple(std)),
                resizer=config.resize,
                alpha=config.alpha,
            )
    raise EncoderError(
        f"{source.location}: its pretrained_cfg asks for a preprocessing that this encoder lacks; "
        "expected a square input_size of 3 channels, interpolation bilinear or bicubic, crop_mode "
        f"center, crop_pct, mean and std, found {cfg}"
    )
