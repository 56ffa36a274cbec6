"""ViT (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929)."""

from transformers import ViTConfig, ViTModel

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.encoders.model_encoder import ModelEncoder
from mmcot_data.encoders.preprocessing import (
    HALF,
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

_FACTS = ENCODERS["vit"]


def architecture() -> ViTConfig:
    """google/vit-large-patch32-384."""
    return ViTConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=384,
        patch_size=32,
    )


def load(config: EncoderConfig) -> ModelEncoder:
    """Load ViT without its pooling layer.

    ``reference`` preprocessing is timm's, which Multimodal-CoT used: bicubic, shorter side and
    centre crop. ``native`` is that of transformers: bilinear, squashed to a square.

    Raises:
        EncoderError: If the model cannot be loaded, is not ViT, or was trained with another
            preprocessing.
    """
    source = find_source(config, _FACTS.model_id)
    if config.random_weights is None or config.model:
        vit = read_config(source, ("vit",))
    else:
        vit = architecture()
    preprocessing = _preprocessing(config, vit.image_size)
    if config.random_weights is None:
        model = load_model(ViTModel, source, add_pooling_layer=False)
        is_reference = config.preprocessing == "reference"
        check_processor_settings(source, preprocessing, only_normalization=is_reference)
    else:
        seed = config.random_weights
        model = draw_model(lambda: ViTModel(vit, add_pooling_layer=False), seed, source.model_id)
    side = vit.image_size // vit.patch_size
    return ModelEncoder(
        config=config,
        model=model,
        preprocessing=preprocessing,
        num_patches=side**2 + 1,
        feature_dim=vit.hidden_size,
        grid=(side, side),
        layer=_FACTS.layer,
    )


def _preprocessing(config: EncoderConfig, size: int) -> PicturePreprocessing:
    normalization = Normalize(mean=HALF, std=HALF)
    if config.preprocessing == "native":
        return PicturePreprocessing(
            resize=Resize(rule="square", size=size, interpolation="bilinear"),
            normalization=normalization,
            resizer=config.resize,
            alpha=config.alpha,
        )
    return PicturePreprocessing(
        resize=Resize(rule="shorter_side", size=size, interpolation="bicubic"),
        crop=CenterCrop(size=size, margin_rounding="half_even"),
        normalization=normalization,
        resizer=config.resize,
        alpha=config.alpha,
    )
