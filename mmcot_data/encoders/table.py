"""The encoders that have a name of their own."""

from dataclasses import dataclass

__all__ = ["ENCODERS", "EncoderFacts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderFacts:
    """What an encoder gives with its own model; another ``--model`` may have other sizes."""

    model_id: str
    """Hugging Face id of its model; its own name where the weights are drawn, not loaded."""
    num_patches: int
    feature_dim: int
    layer: str
    """Which activations are the features."""


ENCODERS = {
    "detr": EncoderFacts(
        model_id="facebook/detr-resnet-101-dc5",
        num_patches=100,
        feature_dim=256,
        layer="last decoder layer, after its final norm",
    ),
    "clip": EncoderFacts(
        model_id="openai/clip-vit-base-patch32",
        num_patches=50,
        feature_dim=768,
        layer="last encoder layer, before the final norm, class token first",
    ),
    "vit": EncoderFacts(
        model_id="google/vit-large-patch32-384",
        num_patches=145,
        feature_dim=1024,
        layer="last encoder layer, after the final norm, class token first",
    ),
    "clip-rn101": EncoderFacts(
        model_id="timm/resnet101_clip.openai",
        num_patches=49,
        feature_dim=2048,
        layer="last residual block, before the attention pooling",
    ),
    "resnet": EncoderFacts(
        model_id="timm/resnet50.tv_in1k",
        num_patches=1,
        feature_dim=2048,
        layer="last residual block, averaged over the picture",
    ),
    "tiny": EncoderFacts(
        model_id="mmcot-tiny-v1",
        num_patches=50,
        feature_dim=192,
        layer="last encoder layer, after the final norm, class token first",
    ),
}
"""By name. The module of the same name in this package, with ``_`` for ``-``, loads it."""
