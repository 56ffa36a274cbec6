"""Everything that comes before the first shard: list and scan the pictures, settle, plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mmcot_data.encoders.base import Encoder
from mmcot_data.encoders.precision import AdjustableEncoder, choose_precision
from mmcot_data.errors import ImageError
from mmcot_data.extraction.batches import plan_batches
from mmcot_data.extraction.config import ExtractionConfig
from mmcot_data.extraction.decode import decode_image
from mmcot_data.extraction.plan import (
    ExtractionPlan,
    distinct_images,
    find_batch_size,
    plan_extraction,
    usable_size,
)
from mmcot_data.extraction.scan import ScannedImage, scan_images
from mmcot_data.shards.folder_content import FolderContent, read_folder
from mmcot_data.shards.planning import folder_name
from mmcot_data.shards.writable import find_place
from mmcot_data.sources import ImageSource, open_source

__all__ = ["ScannedSource", "open_pictures", "prepare_extraction", "scan_source"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedSource:
    """The pictures of a data set, known as far as their bytes and headers tell."""

    licence: str
    images: tuple[ScannedImage, ...]


def open_pictures(config: ExtractionConfig) -> ImageSource:
    """List the pictures that a request is about.

    Raises:
        DataError: If the data set can't be read.
    """
    return open_source(
        config.data,
        config.layout,
        splits=config.splits,
        id_column=config.id_column,
        image_column=config.image_column,
        licence=config.licence,
    )


def scan_source(
    source: ImageSource, on_progress: Callable[[int, int], object] | None = None
) -> ScannedSource:
    """Read every picture's bytes once; decodes none.

    Raises:
        OSError: If reading a picture fails.
    """
    images = scan_images(source.images, on_progress)
    return ScannedSource(licence=source.licence, images=tuple(images))


def prepare_extraction(
    config: ExtractionConfig, encoder: Encoder, source: ScannedSource
) -> tuple[ExtractionPlan, Encoder]:
    """Plan the extraction, and give the encoder at the precision that it is to use.

    With ``precision="auto"`` that is the precision of the features that the folder holds already,
    else the one that the first batch decides. Writes nothing.

    Raises:
        ExtractionError: As ``plan_extraction``.
        ShardError: If the folder's records are damaged.
    """
    content = read_folder(find_place(config.out, folder_name(config.encoder.name)))
    if config.encoder.precision == "auto":
        encoder = _settle_precision(config, encoder, source.images, content)
    plan = plan_extraction(config, encoder, source.images, source.licence, content.failed())
    return plan, encoder


def _settle_precision(
    config: ExtractionConfig,
    encoder: Encoder,
    images: Sequence[ScannedImage],
    content: FolderContent,
) -> Encoder:
    if isinstance(encoder, AdjustableEncoder):
        for spec, _ in content.requests():
            for precision in encoder.precisions:
                if precision == spec.precision:
                    return encoder.at_precision(precision, error=spec.precision_error)
    pixels_BCHW = _first_batch(config, encoder, distinct_images(images))
    return encoder if pixels_BCHW is None else choose_precision(encoder, pixels_BCHW)


def _first_batch(
    config: ExtractionConfig, encoder: Encoder, images: Sequence[ScannedImage]
) -> torch.Tensor | None:
    """Prepared pictures (B, C, H, W) of the first full batch, or the fullest that there is."""
    sizes = [usable_size(image) for image in images]
    batches = plan_batches(sizes, encoder.input_size, batch_size=find_batch_size(config, encoder))
    for batch in sorted(batches, key=lambda batch: -len(batch.positions)):
        decoded = [
            decode_image(images[position], [encoder], config.encoder.alpha)[0]
            for position in batch.positions
        ]
        prepared = [item.pixels_CHW for item in decoded if not isinstance(item, ImageError)]
        if prepared:
            return torch.stack(prepared)
    return None
