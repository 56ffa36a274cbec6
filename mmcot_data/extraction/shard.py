"""Extract one shard: decode ahead in threads, encode in the planned batches, write.

Shape suffixes: N = images, B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmcot_data.encoders.base import Encoder
from mmcot_data.errors import EncoderError, ExtractionError, ImageError
from mmcot_data.extraction.plan import ExtractionPlan, PlannedImage, PlannedShard
from mmcot_data.images import bytes_sha256, decode_rgb, pixel_sha256, read_image_bytes
from mmcot_data.shards.folder import read_complete
from mmcot_data.shards.manifest import FailedImage, ShardCommit, commit_path, write_commit
from mmcot_data.shards.schema import ShardRecord
from mmcot_data.shards.writer import cast_features, write_shard

__all__ = ["Progress", "extract_shard"]

Progress = Callable[[int, int], object]
"""Called with the number of pictures that are done and that of all."""

_NUM_THREADS = 2
_BATCHES_AHEAD = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    pixels: torch.Tensor
    """(C, H, W)."""
    pixel_sha256: str


_Outcome = _Prepared | FailedImage


def extract_shard(
    plan: ExtractionPlan, number: int, encoder: Encoder, on_progress: Progress | None = None
) -> ShardRecord:
    """Make one shard of the plan and its commit record; a complete one is left as it is.

    A picture that can't be decoded has no row; it is listed in the commit record.

    Args:
        plan: The plan.
        number: Which of its shards.
        encoder: The encoder that the plan was made with.
        on_progress: Called after each batch, with the pictures of this shard.

    Raises:
        ExtractionError: If a picture's file has changed since the plan was made.
        OSError: If reading a picture or writing the shard fails.
        EncoderError: If the encoder's output does not fit its description.
        ShardError: If features are not finite. Nothing half-written stays.
    """
    shard = plan.shards[number]
    if (complete := read_complete(plan.folder, shard.file, plan.spec, plan.key)) is not None:
        return complete.shard
    features_NPD = np.empty((len(shard.images), *plan.spec.row_shape), plan.spec.dtype)
    pixels: dict[int, str] = {}
    failed: dict[int, FailedImage] = {}
    for batch in _decode_ahead(shard, encoder):
        failed |= {row: item for row, item in batch.items() if isinstance(item, FailedImage)}
        prepared = {row: item for row, item in batch.items() if isinstance(item, _Prepared)}
        if prepared:
            rows = list(prepared)
            features_BPD = _encode(encoder, list(prepared.values()), plan.spec.row_shape)
            names = [str(shard.images[row].path) for row in rows]
            features_NPD[rows] = cast_features(features_BPD, plan.spec.dtype, names)
            pixels |= {row: item.pixel_sha256 for row, item in prepared.items()}
        if on_progress is not None:
            on_progress(len(pixels) + len(failed), len(shard.images))
    return _write(plan, shard, features_NPD, pixels, failed)


def _decode_ahead(shard: PlannedShard, encoder: Encoder) -> Iterator[dict[int, _Outcome]]:
    """The planned batches, by row; while one is encoded, threads decode the next ones."""
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        queue: deque[dict[int, Future[_Outcome]]] = deque()
        for batch in shard.batches:
            queue.append(
                {row: threads.submit(_decode, shard.images[row], encoder) for row in batch}
            )
            if len(queue) > _BATCHES_AHEAD:
                yield {row: future.result() for row, future in queue.popleft().items()}
        while queue:
            yield {row: future.result() for row, future in queue.popleft().items()}


def _decode(image: PlannedImage, encoder: Encoder) -> _Outcome:
    changed = f"{image.path} has changed since the plan was made; run the same command again"
    try:
        data = read_image_bytes(image.path)
    except ImageError as error:
        raise ExtractionError(changed) from error
    if bytes_sha256(data) != image.sha256:
        raise ExtractionError(changed)
    try:
        picture = decode_rgb(data, str(image.path))
        pixels_CHW = encoder.prepare(picture)
    except ImageError as error:
        return FailedImage(image_sha256=image.sha256, reason=error.reason, error=str(error))
    expected = encoder.input_size(image.width, image.height)
    if tuple(pixels_CHW.shape[1:]) != tuple(expected):
        raise EncoderError(
            f"{encoder.name} made {tuple(pixels_CHW.shape)} of {image.path}, whose header says "
            f"{image.width} x {image.height}; expected height and width {tuple(expected)}"
        )
    return _Prepared(pixels=pixels_CHW, pixel_sha256=pixel_sha256(picture))


def _encode(
    encoder: Encoder, batch: list[_Prepared], row_shape: tuple[int, int]
) -> npt.NDArray[np.floating[Any]]:
    pixels_BCHW = torch.stack([item.pixels for item in batch])
    features_BPD = encoder.encode(pixels_BCHW).numpy()
    if features_BPD.shape != (len(batch), *row_shape):
        raise EncoderError(
            f"{encoder.name} gave features of shape {features_BPD.shape}, its description "
            f"promised {(len(batch), *row_shape)}"
        )
    return features_BPD


def _write(
    plan: ExtractionPlan,
    shard: PlannedShard,
    features_NPD: npt.NDArray[np.floating[Any]],
    pixels: Mapping[int, str],
    failed: Mapping[int, FailedImage],
) -> ShardRecord:
    path = plan.folder / shard.file
    commit_path(path).unlink(missing_ok=True)
    rows = sorted(pixels)
    if rows:
        digests = b"".join(bytes.fromhex(shard.images[row].sha256) for row in rows)
        record = write_shard(
            path,
            features_NPD[rows] if failed else features_NPD,
            np.frombuffer(digests, np.uint8).reshape(-1, 32),
            plan.spec,
            failed=len(failed),
        )
    else:
        record = ShardRecord.without_rows(shard.file, failed=len(failed))
    commit = ShardCommit(
        spec=plan.spec,
        plan=plan.key,
        shard=record,
        pixel_sha256=tuple(pixels[row] for row in rows),
        failed=tuple(failed[row] for row in sorted(failed)),
    )
    write_commit(plan.folder, commit)
    return record
