"""Which part of a picture the features' patch grid covers."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["covered_box"]

_PROCESSORS = (
    "BitImageProcessor",
    "CLIPImageProcessor",
    "DINOv3ViTImageProcessor",
    "DeiTImageProcessor",
    "SiglipImageProcessor",
    "ViTImageProcessor",
)
"""Of transformers: those that resize, then perhaps crop at the centre, and move nothing else."""

_Sides = tuple[float, float]


def covered_box(
    width: int, height: int, preprocessing: Sequence[Any]
) -> tuple[float, float, float, float] | None:
    """The part of a picture that its encoder saw.

    Args:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        preprocessing: The steps as they stand in a feature set's spec.

    Returns:
        Left, top, right and bottom in pixels of the picture, right to a pixel of the model's
        input. None if that is not known: there is no resizing, the picture is padded, or a step
        is of another kind than those of this package and of the usual image processors of
        transformers. A guess would draw features beside what they are of.
    """
    resized = crop = None
    for step in preprocessing:
        match step:
            case {"step": "decode" | "normalize"}:
                pass
            case {"step": "resize", "rule": "square", "size": size}:
                resized = (size, size)
            case {"step": "resize", "rule": "shorter_side", "size": size}:
                resized = _shorter_side(width, height, size)
            case {"step": "center_crop", "size": size}:
                crop = (size, size)
            case {"step": "processor", "settings": dict(settings)} if (
                settings.get("image_processor_type") in _PROCESSORS
            ):
                resized, crop = _processed(width, height, settings)
            case _:
                return None
    if resized is None:
        return None
    share_x, share_y = (c / r for c, r in zip(crop or resized, resized, strict=True))
    if max(share_x, share_y) > 1:
        return None
    left, top = width * (1 - share_x) / 2, height * (1 - share_y) / 2
    return left, top, width - left, height - top


def _shorter_side(width: int, height: int, size: int) -> _Sides:
    return width * size / min(width, height), height * size / min(width, height)


def _processed(
    width: int, height: int, settings: Mapping[str, Any]
) -> tuple[_Sides | None, _Sides | None]:
    """Sides after resizing and after cropping; None where that is not done."""
    resized = crop = None
    match settings:
        case {"do_resize": True, "size": {"shortest_edge": size}}:
            resized = _shorter_side(width, height, size)
        case {"do_resize": True, "size": {"height": rows, "width": columns}}:
            resized = (columns, rows)
    match settings:
        case {"do_center_crop": True, "crop_size": {"height": rows, "width": columns}}:
            crop = (columns, rows)
    return resized, crop
