"""One shard in the making: what is decoded of it, which batches are ready, and its file.

Shape suffixes: N = pictures, B = batch, C = channels, H, W = pixels, P = patches, D = width.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from mmcot_data.encoders.base import Encoder
from mmcot_data.errors import EncoderError, ImageError
from mmcot_data.extraction.batches import Batch
from mmcot_data.extraction.decode import DecodedImage
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.extraction.shard_task import ShardTask
from mmcot_data.shards.feature_set_writer import ShardPart, ShardRows, write_part
from mmcot_data.shards.manifest import FailedImage
from mmcot_data.shards.schema import ShardRecord
from mmcot_data.shards.writer import cast_features

__all__ = ["ReadyBatch", "ShardInProgress", "stack_pictures"]


@dataclass(frozen=True, slots=True)
class ReadyBatch:
    """Prepared pictures that are to be encoded together."""

    positions: tuple[int, ...]
    """In the shard's part of the plan."""
    pixels_BCHW: torch.Tensor
    sizes: list[tuple[int, int]] | None
    """(height, width) of each without padding; None if none is padded."""

    def halves(self) -> list["ReadyBatch"]:
        """The first half and the rest; a picture alone is not divided."""
        count = len(self.positions)
        return [
            ReadyBatch(
                self.positions[start:stop],
                self.pixels_BCHW[start:stop],
                None if self.sizes is None else self.sizes[start:stop],
            )
            for start, stop in ((0, count // 2), (count // 2, count))
            if stop > start
        ]


class ShardInProgress:
    """Collects what becomes of a shard's pictures, in whatever order.

    A picture that can't be decoded has no row; it is listed in the commit record.

    Args:
        task: The shard.
        encoder: The encoder that the plan was made with.
    """

    def __init__(self, task: ShardTask, encoder: Encoder) -> None:
        self.task = task
        self.encoder = encoder
        self.shard = task.shard
        self.num_done = 0
        """Pictures with features or a reason."""
        self.num_halved = 0
        """Batches that were encoded in two halves, for want of memory."""
        self._features_NPD = np.empty(
            (len(self.shard.images), *task.spec.row_shape), task.spec.dtype
        )
        self._pixel_sha256: dict[int, str] = {}
        self._failed: dict[int, FailedImage] = {}
        self._prepared: dict[int, torch.Tensor] = {}
        self._batches = deque(self.shard.batches)
        for position, image in enumerate(self.shard.images):
            if image.reason is not None:
                self._fail(position, image, image.reason, image.error or "")

    def add(self, position: int, image: DecodedImage) -> None:
        """Take what became of a picture."""
        if isinstance(image, ImageError):
            self._fail(position, self.shard.images[position], image.reason, str(image))
        else:
            self._prepared[position] = image.pixels_CHW
            self._pixel_sha256[position] = image.pixel_sha256

    def ready_batches(self) -> Iterator[ReadyBatch]:
        """The next batches all of whose pictures are there; those that failed are left out."""
        while self._batches and all(map(self._is_known, self._batches[0].positions)):
            batch = self._batches.popleft()
            positions = tuple(p for p in batch.positions if p in self._prepared)
            if positions:
                pixels = [self._prepared.pop(position) for position in positions]
                yield ReadyBatch(positions, *stack_pictures(pixels, batch))

    def store(self, positions: tuple[int, ...], features_BPD: torch.Tensor) -> None:
        """Take the features of pictures.

        Raises:
            EncoderError: If their shape is not the one that the encoder promised.
            ShardError: If they are not finite, or too large for the storage dtype.
        """
        expected = (len(positions), *self.task.spec.row_shape)
        if features_BPD.shape != expected:
            raise EncoderError(
                f"{self.encoder.name} gave features of shape {tuple(features_BPD.shape)}, its "
                f"description promised {expected}"
            )
        names = [self.shard.images[position].stored.name for position in positions]
        self._features_NPD[list(positions)] = cast_features(
            features_BPD.numpy(), self.task.spec.dtype, names
        )
        self.num_done += len(positions)

    @property
    def is_done(self) -> bool:
        """Whether every picture has features or a reason."""
        return self.num_done == len(self.shard.images)

    def write(self) -> ShardRecord:
        """Write the shard, and then its commit record, which makes it complete.

        Raises:
            DiskFullError: If there is no room. Nothing half-written stays.
            OSError: If writing fails for another reason, or the claim was lost.
            ShardError: If features are not finite.
        """
        rows = sorted(self._pixel_sha256)
        digests = "".join(self.shard.sha256[row] for row in rows)
        part = ShardPart(
            file=self.shard.file,
            rows=len(rows),
            pixel_sha256=tuple(self._pixel_sha256[row] for row in rows),
            failed=tuple(self._failed[position] for position in sorted(self._failed)),
            made_by=self._made_by(),
        )
        content = ShardRows(
            self._features_NPD[rows] if self._failed else self._features_NPD,
            np.frombuffer(bytes.fromhex(digests), np.uint8).reshape(-1, 32),
            np.full(len(rows), self.task.spec.num_patches, np.int32),
        )
        commit = write_part(
            self.task.folder, self.task.spec, self.task.key, part, content if rows else None
        )
        return commit.shard

    def _is_known(self, position: int) -> bool:
        return position in self._prepared or position in self._failed

    def _fail(self, position: int, image: ScannedImage, reason: str, error: str) -> None:
        self._failed[position] = FailedImage(
            position=position,
            question_id=image.question_id,
            role=image.role,
            image_sha256=image.image_sha256,
            reason=reason,
            error=error,
        )
        self.num_done += 1

    def _made_by(self) -> dict[str, Any]:
        made_by = {
            "mmcot": version("mmcot"),
            "batch_size": self.task.batch_size,
            "pad_to": self.task.pad_to,
            **self.encoder.environment(),
        }
        return made_by | ({"halved_batches": self.num_halved} if self.num_halved else {})


def stack_pictures(
    pixels: Sequence[torch.Tensor], batch: Batch
) -> tuple[torch.Tensor, list[tuple[int, int]] | None]:
    """Put prepared pictures (C, H, W) together as an encoder takes them.

    Returns:
        The pictures (B, C, H, W) in channels_last, padded at the right and bottom to the batch's
        size; and the (height, width) of each without padding, None if none is padded.
    """
    sizes = [(int(item.shape[1]), int(item.shape[2])) for item in pixels]
    if all(size == (batch.height, batch.width) for size in sizes):
        return torch.stack([item.permute(1, 2, 0) for item in pixels]).permute(0, 3, 1, 2), None
    shape = (len(pixels), batch.height, batch.width, len(pixels[0]))
    pixels_BHWC = pixels[0].new_zeros(shape)
    for item, padded_HWC, (height, width) in zip(pixels, pixels_BHWC, sizes, strict=True):
        padded_HWC[:height, :width] = item.permute(1, 2, 0)
    return pixels_BHWC.permute(0, 3, 1, 2), sizes
