"""Open a picture once, and prepare it for each encoder that asks for it.

Shape suffixes: C = channels, H, W = pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from mmcot_data.encoders.base import Alpha, Encoder
from mmcot_data.errors import EncoderError, ExtractionError, ImageError
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.images import bytes_sha256, decode_rgb, pixel_sha256

__all__ = ["DecodedImage", "PreparedImage", "decode_image", "decode_scanned"]


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What an encoder made of a picture."""

    pixels_CHW: torch.Tensor
    pixel_sha256: str


DecodedImage = PreparedImage | ImageError
"""A picture for one encoder, or why it can't be used."""


def decode_image(
    image: ScannedImage, encoders: Sequence[Encoder], alpha: Alpha
) -> tuple[DecodedImage, ...]:
    """Read, decode and prepare one picture.

    Returns:
        What becomes of it for each of the encoders.

    Raises:
        ExtractionError: If its file has changed since it was scanned.
        EncoderError: If an encoder makes another size of it than it announced.
        OSError: If reading fails.
    """
    try:
        picture = decode_scanned(image, alpha)
    except ImageError as error:
        return (error,) * len(encoders)
    digest = pixel_sha256(picture)
    return tuple(_prepare(image, picture, digest, encoder) for encoder in encoders)


def decode_scanned(image: ScannedImage, alpha: Alpha) -> Image.Image:
    """Read and decode one picture to RGB.

    Raises:
        ImageError: If it can't be used.
        ExtractionError: If its file has changed since it was scanned.
        OSError: If reading fails.
    """
    picture = decode_rgb(_read_unchanged(image), image.stored.name, alpha=alpha)
    _check_size(image, picture)
    return picture


def _read_unchanged(image: ScannedImage) -> bytes:
    changed = f"{image.stored.name} has changed since it was read; run the same command again"
    try:
        data = image.stored.read()
    except ImageError as error:
        raise ExtractionError(changed) from error
    if bytes_sha256(data) != image.image_sha256:
        raise ExtractionError(changed)
    return data


def _check_size(image: ScannedImage, picture: Image.Image) -> None:
    if picture.size != (image.width, image.height):
        raise ImageError(
            "unreadable",
            f"{image.stored.name}: its header says {image.width} x {image.height} pixels, and it "
            f"has {picture.width} x {picture.height}",
        )


def _prepare(
    image: ScannedImage, picture: Image.Image, digest: str, encoder: Encoder
) -> DecodedImage:
    try:
        pixels_CHW = encoder.prepare(picture)
    except ImageError as error:
        return error
    expected = encoder.input_size(picture.width, picture.height)
    if tuple(pixels_CHW.shape[1:]) != tuple(expected):
        raise EncoderError(
            f"{encoder.name} made {tuple(pixels_CHW.shape)} of {image.stored.name}, which has "
            f"{picture.width} x {picture.height} pixels; expected height and width "
            f"{tuple(expected)}"
        )
    return PreparedImage(pixels_CHW, digest)
