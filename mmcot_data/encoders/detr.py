"""DETR (Carion et al. 2020, https://arxiv.org/abs/2005.12872): one feature for each object query.

Multimodal-CoT resized pictures to a shorter side of 224 instead of DETR's 800. Its batches were
single pictures; here pictures of equal size share a batch, so that there is no padding.
"""

import math

import torch
from transformers import DetrConfig, DetrModel
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

from mmcot_data.encoders.base import EncoderConfig
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

__all__ = ["architecture", "load"]

_FACTS = ENCODERS["detr"]
_SIZES = {
    "reference": Resize(rule="shorter_side", size=224, interpolation="bilinear"),
    "native": Resize(rule="shorter_side", size=800, max_longer_side=1333, interpolation="bilinear"),
}
_QUERY_STD = 100.0


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
    )
    if config.random_weights is None:
        detr = read_config(source, ("detr",))
        model = load_model(DetrModel, source)
        is_reference = config.preprocessing == "reference"
        check_processor_settings(source, preprocessing, only_normalization=is_reference)
    else:
        detr = read_config(source, ("detr",)) if config.model else architecture()
        model = draw_model(lambda: _draw(detr), config.random_weights, source.model_id)
    return ModelEncoder(
        config=config,
        model=model,
        preprocessing=preprocessing,
        num_patches=detr.num_queries,
        feature_dim=detr.d_model,
        grid=None,
        layer=_FACTS.layer,
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
