"""The plan of an extraction: which picture stands in which shard, and which are encoded together.

It depends on the spec, the distinct pictures in order and the shard size, and on nothing else; the
batches depend on the batch size, too. So the same request gives the same shards, whatever was
interrupted and however many processes share the work. A picture that can't be used keeps its
place, so that its repair moves no other.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from mmcot_data.encoders.base import Encoder
from mmcot_data.errors import ExtractionError
from mmcot_data.extraction.batches import plan_batches
from mmcot_data.extraction.config import ExtractionConfig
from mmcot_data.extraction.failures import check_failures
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.extraction.shard_task import PlannedShard, ShardTask
from mmcot_data.shards.planning import (
    default_shard_size,
    digest_json,
    folder_name,
    shard_files,
)
from mmcot_data.shards.schema import FeatureSpec, PlanKey
from mmcot_data.shards.writable import Place, find_place

__all__ = [
    "ExtractionPlan",
    "distinct_images",
    "find_batch_size",
    "find_spec",
    "plan_extraction",
    "usable_size",
]


_BATCH_SIZE_CPU, _BATCH_SIZE_GPU = 8, 64


@dataclass(frozen=True, kw_only=True)
class ExtractionPlan:
    """What is to be made, shard by shard, and all that ``finish_extraction`` needs to know."""

    config: ExtractionConfig
    folder: Place
    """The feature set."""
    batch_size: int
    """Pictures encoded together."""
    pad_to: int
    """What input sizes are rounded up to; 1 for an encoder that takes no padded pictures."""
    spec: FeatureSpec
    key: PlanKey
    request_sha256: str
    """Digest of all the (question id, role, picture) rows asked for."""
    images: tuple[ScannedImage, ...]
    """Every picture asked for; its row stands in the index, whatever becomes of it."""
    shards: tuple[PlannedShard, ...]

    @property
    def num_images(self) -> int:
        """Distinct pictures."""
        return self.key.num_images

    @property
    def unread(self) -> list[tuple[str, str]]:
        """(question id, image role) of the planned pictures whose bytes could not be read."""
        images = (image for shard in self.shards for image in shard.images)
        return [(i.question_id, i.role) for i in images if i.image_sha256 is None]

    def shard_task(self, number: int) -> ShardTask:
        """One shard of the plan as a piece of work for any process."""
        return ShardTask(
            config=self.config,
            folder=self.folder,
            batch_size=self.batch_size,
            pad_to=self.pad_to,
            spec=self.spec,
            key=self.key,
            number=number,
            shard=self.shards[number],
        )


def plan_extraction(
    config: ExtractionConfig,
    encoder: Encoder,
    images: Sequence[ScannedImage],
    data_licence: str,
    failed: Mapping[tuple[str, str], str | None] = MappingProxyType({}),
) -> ExtractionPlan:
    """Divide the work; reads and writes nothing.

    Args:
        config: The request.
        encoder: The loaded encoder of ``config.encoder``, at the precision that is to be used.
        images: Every picture that is asked for.
        data_licence: Licence of the pictures.
        failed: As for ``distinct_images``.

    Raises:
        ExtractionError: If there are no pictures, if more can't be used than
            ``config.max_failures`` allows, or if ``config.pad_to`` does not suit the encoder.
    """
    if not images:
        where = f"the splits {', '.join(config.splits)} of " if config.splits else ""
        raise ExtractionError(f"{where}{config.data} name no pictures: there is nothing to extract")
    spec = find_spec(config, encoder, data_licence)
    folder = find_place(config.out, folder_name(config.encoder.name))
    check_failures(images, config.max_failures)
    distinct = distinct_images(images, failed)
    key = PlanKey(
        format=config.format,
        num_images=len(distinct),
        request_sha256=digest_json([[image.question_id, image.role] for image in images]),
        shard_size=config.shard_size or default_shard_size(spec, len(distinct)),
    )
    return ExtractionPlan(
        config=config,
        folder=folder,
        batch_size=find_batch_size(config, encoder),
        pad_to=_find_padding(config, encoder),
        spec=spec,
        key=key,
        request_sha256=digest_json(
            [[i.question_id, i.role, i.image_sha256 or "", i.reason or ""] for i in images]
        ),
        images=tuple(images),
        shards=_plan_shards(config, distinct, key, encoder),
    )


def find_spec(config: ExtractionConfig, encoder: Encoder, data_licence: str) -> FeatureSpec:
    """What makes the features, as an encoder describes itself."""
    return FeatureSpec.from_json(
        json.loads(json.dumps(encoder.describe()))
        | {"dtype": config.dtype, "data_licence": data_licence},
        f"the description of encoder {config.encoder.name}",
    )


def distinct_images(
    images: Sequence[ScannedImage],
    failed: Mapping[tuple[str, str], str | None] = MappingProxyType({}),
) -> list[ScannedImage]:
    """The first one of equal pictures, in order; each that can't be used counts for itself.

    Args:
        images: Every picture that is asked for.
        failed: The pictures that have no row in the folder that is continued: their digest then,
            by (question id, image role). One that has been repaired keeps its place, without a row
            if it is equal to another picture now.
    """

    def is_repaired(image: ScannedImage) -> bool:
        key = image.question_id, image.role
        return key in failed and image.image_sha256 not in (None, failed[key])

    owned = {image.image_sha256 for image in images if not is_repaired(image)}
    distinct: dict[object, ScannedImage] = {}
    for image in images:
        key = image.question_id, image.role
        digest = image.image_sha256
        if is_repaired(image) and (digest in owned or digest in distinct):
            copy = replace(image, image_sha256=None, reason="copy", error="equal to another one")
            distinct[key] = copy
        else:
            is_usable = digest is not None and image.reason is None
            distinct.setdefault(digest if is_usable else key, image)
    return list(distinct.values())


def _plan_shards(
    config: ExtractionConfig, images: Sequence[ScannedImage], key: PlanKey, encoder: Encoder
) -> tuple[PlannedShard, ...]:
    shards = []
    for number, file in enumerate(shard_files(key)):
        part = tuple(images[number * key.shard_size : (number + 1) * key.shard_size])
        batches = plan_batches(
            [usable_size(image) for image in part],
            encoder.input_size,
            batch_size=find_batch_size(config, encoder),
            pad_to=_find_padding(config, encoder),
        )
        shards.append(PlannedShard(file=file, images=part, batches=batches))
    return tuple(shards)


def find_batch_size(config: ExtractionConfig, encoder: Encoder) -> int:
    """Pictures encoded together: as asked for, or what suits the device."""
    if config.batch_size is not None:
        return config.batch_size
    return _BATCH_SIZE_CPU if encoder.environment()["device"] == "cpu" else _BATCH_SIZE_GPU


def _find_padding(config: ExtractionConfig, encoder: Encoder) -> int:
    if encoder.pads or config.pad_to == 1:
        return config.pad_to
    if encoder.input_size(100, 100) != encoder.input_size(200, 100):
        raise ExtractionError(
            f"the encoder {encoder.name} takes no padded pictures with the backend "
            f"{config.encoder.backend}: leave out --pad-to"
        )
    return 1


def usable_size(image: ScannedImage) -> tuple[int, int] | None:
    """(width, height) of a picture; None if it can't be used."""
    if image.reason is not None or image.width is None or image.height is None:
        return None
    return image.width, image.height
