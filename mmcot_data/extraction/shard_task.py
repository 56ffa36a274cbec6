"""One shard as a piece of work: all that a process, here or elsewhere, needs to make it."""

from dataclasses import dataclass

from mmcot_data.extraction.batches import Batch
from mmcot_data.extraction.config import ExtractionConfig
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.shards.schema import FeatureSpec, PlanKey
from mmcot_data.shards.writable import Place

__all__ = ["PlannedShard", "ShardTask"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedShard:
    """A shard's part of the plan."""

    file: str
    images: tuple[ScannedImage, ...]
    """Distinct pictures in the order of the rows; those with a reason get none."""
    batches: tuple[Batch, ...]

    @property
    def sha256(self) -> tuple[str, ...]:
        """Hex digest of each picture, "" if its bytes can't be read."""
        return tuple(image.image_sha256 or "" for image in self.images)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask:
    """A shard of a plan without the rest of it; it can be pickled and sent to another machine."""

    config: ExtractionConfig
    folder: Place
    """The feature set."""
    batch_size: int
    """Pictures encoded together."""
    pad_to: int
    """What input sizes are rounded up to; 1 for an encoder that takes no padded pictures."""
    spec: FeatureSpec
    key: PlanKey
    number: int
    """Place of the shard in the plan."""
    shard: PlannedShard
