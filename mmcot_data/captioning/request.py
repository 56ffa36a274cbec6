"""What is asked for: the pictures with their keys, and where their captions go."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from mmcot_data.captioning.config import CaptionConfig
from mmcot_data.captions import CAPTION_KEY, CAPTION_SCHEMA
from mmcot_data.errors import DataError
from mmcot_data.extraction.failures import check_failures
from mmcot_data.extraction.scan import ScannedImage, scan_images
from mmcot_data.sources import ImageSource, open_source
from mmcot_data.tables import check_artifact_root, write_tables
from mmcot_data.text_artifacts import artifact_path

__all__ = ["SCHEMA", "CaptionRequest", "Failure", "Key", "key_of", "read_request"]

SCHEMA = pl.Schema({**CAPTION_SCHEMA, "image_sha256": pl.String()})

Key = tuple[str, str]
"""(question id, image role)."""
Failure = tuple[str, str]
"""Why a picture has no caption: one word, and the explanation."""


@dataclass(frozen=True, kw_only=True)
class CaptionRequest:
    """The pictures that are to have captions."""

    config: CaptionConfig
    dataset: str
    data_licence: str
    path: Path
    """Of the captions."""
    images: tuple[ScannedImage, ...]
    """Every picture asked for."""
    rank: Mapping[str, int]
    """Place of each question of the data set, by question id."""

    @cached_property
    def by_digest(self) -> dict[str, list[ScannedImage]]:
        """The pictures that can be used, equal ones together, in order."""
        pictures: dict[str, list[ScannedImage]] = {}
        for image in self.images:
            if image.image_sha256 is not None and image.reason is None:
                pictures.setdefault(image.image_sha256, []).append(image)
        return pictures

    @cached_property
    def unusable(self) -> dict[Key, Failure]:
        """The pictures of which the bytes or the header tell that they can't be used."""
        return {
            key_of(image): (image.reason, image.error or "")
            for image in self.images
            if image.reason is not None
        }


def key_of(image: ScannedImage) -> Key:
    """What a picture's caption is known by; the columns ``CAPTION_KEY``."""
    assert CAPTION_KEY == ("question_id", "role")
    return image.question_id, image.role


def read_request(
    config: CaptionConfig, on_scanned: Callable[[int, int], object] | None = None
) -> CaptionRequest:
    """List the pictures, write the data set's tables, read and hash each picture once.

    Args:
        config: The request.
        on_scanned: Called with the number of pictures that were read, and that of all.

    Raises:
        DataError: If the data set can't be read, has no such pictures, or the artifact root holds
            another one.
        ExtractionError: If more pictures can't be used than ``config.max_failures`` allows.
        OSError: If reading a picture fails.
    """
    source = open_source(
        config.data,
        config.layout,
        splits=config.splits,
        id_column=config.id_column,
        image_column=config.image_column,
        licence=config.licence,
    )
    path = artifact_path(config.out, "captions", config.producer_name)
    wanted = [i for i in source.images if config.roles is None or i.role in config.roles]
    if not wanted:
        raise DataError(_nothing(config, source))
    if source.questions is not None:
        write_tables(source.questions, config.out)
    else:
        check_artifact_root(config.out)
    images = scan_images(wanted, on_scanned)
    check_failures(images, config.max_failures)
    return CaptionRequest(
        config=config,
        dataset=source.dataset,
        data_licence=source.licence,
        path=path,
        images=tuple(images),
        rank=_rank(source),
    )


def _rank(source: ImageSource) -> dict[str, int]:
    ids: Sequence[str]
    if source.questions is not None:
        ids = [question.question_id for question in source.questions.questions]
    else:
        ids = [image.question_id for image in source.images]
    return {question_id: place for place, question_id in enumerate(dict.fromkeys(ids))}


def _nothing(config: CaptionConfig, source: ImageSource) -> str:
    where = f"the splits {', '.join(config.splits)} of " if config.splits else ""
    if not source.images:
        return f"{where}{config.data} name no pictures: there is nothing to caption"
    roles = ", ".join(sorted({image.role for image in source.images}))
    return (
        f"{where}{config.data} have no pictures in the role {' or '.join(config.roles or ())}; "
        f"expected some of {roles}"
    )
