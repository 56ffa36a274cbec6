"""DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872): one feature for each object query.

Multimodal-CoT resized pictures to a shorter side of 224 instead of DETR's 800. Its batches were
single pictures; here a batch gives what single pictures give, padded or not.

Shape suffixes: B = batch, C = channels, H, W = pixels.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import DetrConfig, DetrModel
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.encoders.layers import fold_norms
from mmcot_data.encoders.masked_backbone import find_mixing_layers, padding_mask, zero_padding
from mmcot_data.encoders.model_encoder import ModelEncoder
from mmcot_data.encoders.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalize,
    PicturePreprocessing,
    Resize,
)
from mmcot_data.encoders.pretrained import find_source, load_model, read_config
from mmcot_data.encoders.processor_settings import check_processor_settings
from mmcot_data.encoders.table import ENCODERS
from mmcot_data.encoders.weights import draw_model

__all__ = ["PaddableDetr", "architecture", "load"]

_FACTS = ENCODERS["detr"]
_SIZES = {
    "reference": Resize(rule="shorter_side", size=224, interpolation="bilinear"),
    "native": Resize(rule="shorter_side", size=800, max_longer_side=1333, interpolation="bilinear"),
}
_QUERY_STD = 100.0
_NORM_EPS = 1e-5
"""Of the frozen norms, in their code."""


class PaddableDetr(nn.Module):
    """DETR with frozen norms folded into its convolutions, for padded batches too.

    DETR's own ``pixel_mask`` reaches only the attention: its backbone lets padding change the
    pictures' borders.

    Args:
        detr: The model; it is changed.
    """

    def __init__(self, detr: Any) -> None:
        super().__init__()
        self.detr = detr
        backbone = detr.backbone.model
        fold_norms(backbone, DetrFrozenBatchNorm2d, _NORM_EPS)
        mixing_layers = find_mixing_layers(backbone, harmless=(DetrFrozenBatchNorm2d,))
        self.pads = mixing_layers is not None
        """False for a backbone that isn't a plain ResNet: padding would change its features."""
        self._mixing_layers = tuple(mixing_layers or ())

    def forward(self, pixel_values: torch.Tensor, sizes_B2: torch.Tensor | None = None) -> Any:
        """DETR's output, with the features as ``last_hidden_state``.

        Args:
            pixel_values: Normalised pixels (B, 3, H, W).
            sizes_B2: (height, width) of pictures that are padded at the right and bottom, to a H
                and W that are multiples of 32; only if ``pads``.
        """
        if sizes_B2 is None:
            return self.detr(pixel_values=pixel_values)
        batch = (pixel_values.shape[2], pixel_values.shape[3])
        with zero_padding(self._mixing_layers, sizes_B2, batch):
            pixel_mask = ~padding_mask(sizes_B2, batch, batch)
            return self.detr(pixel_values=pixel_values, pixel_mask=pixel_mask)


def architecture() -> DetrConfig:
    """facebook/detr-resnet-101-dc5: dilation instead of the last stride (DC5)."""
    return DetrConfig(
        backbone_config={
            "model_type": "timm_backbone",
            "backbone": "resnet101",
            "use_pretrained_backbone": False,
            "features_only": True,
            "out_indices": [1, 2, 3, 4],
            "output_stride": 16,
        },
        dilation=True,
    )


def load(config: EncoderConfig) -> ModelEncoder:
    """Load DETR.

    Raises:
        EncoderError: If the model cannot be loaded or is not DETR.
    """
    source = find_source(config, _FACTS.model_id)
    preprocessing = PicturePreprocessing(
        resize=_SIZES[config.preprocessing],
        normalization=Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        resizer=config.resize,
        alpha=config.alpha,
    )
    if config.random_weights is None:
        detr = read_config(source, ("detr",))
        model = load_model(DetrModel, source)
        is_reference = config.preprocessing == "reference"
        check_processor_settings(source, preprocessing, only_normalization=is_reference)
    else:
        detr = read_config(source, ("detr",)) if config.model else architecture()
        model = draw_model(lambda: _draw(detr), config.random_weights, source.model_id)
    module = PaddableDetr(model.module)
    return ModelEncoder(
        config=config,
        model=replace(model, module=module),
        preprocessing=preprocessing,
        num_patches=detr.num_queries,
        feature_dim=detr.d_model,
        grid=None,
        layer=_FACTS.layer,
        pads=module.pads,
    )


def _draw(config: DetrConfig) -> DetrModel:
    """Random DETR whose features depend on the picture and on the query.

    Untrained frozen norms let activations grow with every block; so each divides by the scale
    that it meets on noise, taken as a power of two so that rounding cannot change it. Queries as
    small as transformers draws them all look at the same; large ones make attention sharp.
    """
    model = DetrModel(config).train(False)
    torch.nn.init.normal_(model.query_position_embeddings.weight, std=_QUERY_STD)

    def match_scale(norm: DetrFrozenBatchNorm2d, inputs: tuple[torch.Tensor, ...]) -> None:
        exponent = math.log2(inputs[0].var().item())
        norm.running_var.fill_(2.0 ** round(exponent))

    norms = [m for m in model.modules() if isinstance(m, DetrFrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(match_scale) for norm in norms]
    coarse_noise = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        model(pixel_values=torch.nn.functional.interpolate(coarse_noise, size=(96, 96)))
    for hook in hooks:
        hook.remove()
    return model
