"""Which features a checkpoint of the reference reads: its weights only tell how wide they are."""

from mmcot_data.errors import TrainingError
from mmcot_model.feature_layout import FeatureLayout

__all__ = ["choose_layout"]


def _layout(encoder: str, num_patches: int, patch_dim: int) -> FeatureLayout:
    return FeatureLayout(encoders=(encoder,), num_patches=num_patches, patch_dim=patch_dim)


_KNOWN = (
    _layout("detr", 100, 256),
    _layout("vit", 145, 1024),
    _layout("vit", 577, 768),  # ViT-B/16, which the reference used for some months
    _layout("clip", 50, 768),
    _layout("clip-rn101", 49, 2048),
    _layout("clip", 49, 2048),  # the reference's name of it
    _layout("resnet", 1, 2048),
)


def choose_layout(
    patch_dim: int, *, encoder: str | None = None, num_patches: int | None = None
) -> FeatureLayout:
    """The features that a model with a given projection reads.

    Args:
        patch_dim: Width of a patch feature, from the weights.
        encoder: Name of the encoder, if it is known.
        num_patches: Patches of a picture, where they are not those of the encoder's own model.

    Raises:
        TrainingError: If several encoders, or none that is known, have this width.
    """
    fitting = [
        known
        for known in _KNOWN
        if known.patch_dim == patch_dim and encoder in (None, known.encoders[0])
    ]
    if encoder is not None and not fitting:
        widths = [str(known.patch_dim) for known in _KNOWN if known.encoders == (encoder,)]
        if widths:
            raise TrainingError(
                f"the checkpoint reads patch features of width {patch_dim}, those of {encoder} "
                f"have width {' or '.join(widths)}: choose another --encoder, or give the "
                "--features that it was trained on"
            )
        if num_patches is None:
            raise TrainingError(
                f"how many patches {encoder!r} gives is not known: give --num-patches, or "
                "--features DIR (a feature set of it)"
            )
        return _layout(encoder, num_patches, patch_dim)
    if len(fitting) == 1:
        (known,) = fitting
        return known if num_patches is None else _layout(known.encoders[0], num_patches, patch_dim)
    choices = " or ".join(str(known) for known in fitting) or "those of no encoder that is known"
    raise TrainingError(
        f"the checkpoint reads patch features of width {patch_dim}: {choices}. Its weights don't "
        "tell: give --encoder NAME, or --features DIR (a feature set of the encoder)"
    )
