"""CLIP's vision tower (Radford et al. 2021, https://arxiv.org/abs/2103.00020)."""

from typing import Any

from transformers import CLIPVisionConfig, CLIPVisionModel

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
from mmcot_data.encoders.pretrained import find_source, load_model, read_config
from mmcot_data.encoders.processor_settings import check_processor_settings
from mmcot_data.encoders.table import ENCODERS
from mmcot_data.encoders.weights import draw_model

__all__ = ["architecture", "load"]

_FACTS = ENCODERS["clip"]
_TYPES = ("clip", "clip_vision_model")


def architecture() -> CLIPVisionConfig:
    """openai/clip-vit-base-patch32."""
    return CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=224,
        patch_size=32,
    )


def load(config: EncoderConfig) -> ModelEncoder:
    """Load CLIP's vision tower, out of the whole CLIP or by itself.

    Both settings of ``preprocessing`` are CLIP's own: shorter side and centre crop.

    Raises:
        EncoderError: If the model cannot be loaded, is not CLIP, or was trained with another
            preprocessing.
    """
    source = find_source(config, _FACTS.model_id)
    if config.random_weights is None or config.model:
        tower = _vision_config(read_config(source, _TYPES))
    else:
        tower = architecture()
    size = tower.image_size
    preprocessing = PicturePreprocessing(
        resize=Resize(rule="shorter_side", size=size, interpolation="bicubic"),
        crop=CenterCrop(size=size, margin_rounding="down"),
        normalization=Normalize(mean=CLIP_MEAN, std=CLIP_STD),
        resizer=config.resize,
        alpha=config.alpha,
    )
    if config.random_weights is None:
        model = load_model(CLIPVisionModel, source)
        check_processor_settings(source, preprocessing, only_normalization=False)
    else:
        model = draw_model(lambda: CLIPVisionModel(tower), config.random_weights, source.model_id)
    side = size // tower.patch_size
    return ModelEncoder(
        config=config,
        model=model,
        preprocessing=preprocessing,
        num_patches=side**2 + 1,
        feature_dim=tower.hidden_size,
        grid=(side, side),
        layer=_FACTS.layer,
    )


def _vision_config(config: Any) -> Any:
    return config.vision_config if config.model_type == "clip" else config
