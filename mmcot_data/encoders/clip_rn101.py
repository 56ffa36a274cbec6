"""CLIP's ResNet-101 (Radford et al. 2021, https://arxiv.org/abs/2103.00020): its grid features.

Multimodal-CoT's "clip" features: the 7 x 7 map that CLIP pools by attention, before it does. They
were made with another project (https://github.com/jianjieluo/OpenAI-CLIP-Feature, setting RN101),
which prepares pictures as OpenAI does: shorter side 224 and a centre crop.

Shape suffixes: B = batch, C = channels, H, W = pixels.
"""

from typing import Any, cast

import torch
from torch import nn

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.encoders.model_encoder import ModelEncoder
from mmcot_data.encoders.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    CenterCrop,
    Normalize,
    PicturePreprocessing,
    Resize,
)
from mmcot_data.encoders.pretrained import find_source
from mmcot_data.encoders.processor_settings import check_pretrained_cfg
from mmcot_data.encoders.table import ENCODERS
from mmcot_data.encoders.timm_models import LastHiddenState, load_network, read_pretrained_cfg

__all__ = ["GridFeatures", "load"]

_FACTS = ENCODERS["clip-rn101"]
_ARCHITECTURES = ("resnet101_clip", "resnet101_clip_gap")
_SIZE, _STRIDE = 224, 32


class GridFeatures(nn.Module):
    """The map of the last residual block, in place of what the head makes of it.

    Args:
        network: timm's; it loses its head.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        network.head = nn.Identity()
        self.network = network
        self.feature_dim: int = network.num_features

    def forward(self, pixel_values: torch.Tensor) -> LastHiddenState:
        """Map of shape (B, D, 7, 7) from normalised pixels (B, 3, 224, 224)."""
        return LastHiddenState(self.network.forward_features(pixel_values))


def load(config: EncoderConfig) -> ModelEncoder:
    """Load the convolutions of CLIP RN101.

    Both settings of ``preprocessing`` are OpenAI's. timm's configuration differs in ``crop_pct``,
    which is timm's default and not OpenAI's; so it is not compared.

    Raises:
        EncoderError: If the model cannot be loaded, is not RN101, or was trained with another
            preprocessing.
    """
    source = find_source(config, _FACTS.model_id)
    preprocessing = PicturePreprocessing(
        resize=Resize(rule="shorter_side", size=_SIZE, interpolation="bicubic"),
        crop=CenterCrop(size=_SIZE, margin_rounding="half_even"),
        normalization=Normalize(mean=CLIP_MEAN, std=CLIP_STD),
        resizer=config.resize,
        alpha=config.alpha,
    )
    cfg = read_pretrained_cfg(config, source, _ARCHITECTURES)
    if cfg is not None:
        check_pretrained_cfg(source, cfg, preprocessing, not_compared=("crop_pct",))
    model = load_network(config, source, _ARCHITECTURES[0], GridFeatures)
    side = _SIZE // _STRIDE
    return ModelEncoder(
        config=config,
        model=model,
        preprocessing=preprocessing,
        num_patches=side**2,
        feature_dim=cast(GridFeatures, model.module).feature_dim,
        grid=(side, side),
        layer=_FACTS.layer,
    )
