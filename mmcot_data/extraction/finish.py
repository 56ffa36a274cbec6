"""Turn complete shards into a finished feature set: check them, write the index and manifest."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from mmcot_data.errors import ExtractionError
from mmcot_data.extraction.failures import check_failures
from mmcot_data.extraction.pending import find_made
from mmcot_data.extraction.plan import ExtractionPlan
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.shards.folder import finish_folder
from mmcot_data.shards.folder_content import read_folder
from mmcot_data.shards.index import INDEX_SCHEMA
from mmcot_data.shards.manifest import FailedImage, ShardCommit
from mmcot_data.shards.writable import Place, find_writable

__all__ = ["ExtractionSummary", "finish_extraction"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionSummary:
    """What a finished feature set holds."""

    folder: Place
    num_images: int
    """Pictures asked for: rows of the index."""
    num_distinct: int
    """Rows of features: distinct pictures that could be decoded."""
    row_shape: tuple[int, int]
    """(P, D) of a row."""
    num_shards: int
    nbytes: int
    """Size of the shards together."""
    precision: str
    """That was computed with."""
    precision_error: float | None
    """Relative error against float32, where ``auto`` chose the precision."""
    failed: Mapping[str, int]
    """Pictures without features, by reason."""
    num_halved: int = 0
    """Shards with batches that were encoded in halves, since memory was short."""
    num_extracted: int = 0
    """Pictures that this run decoded and encoded; the others were there already."""
    seconds: float = 0.0
    """Wall time of this run, without loading the encoder."""

    @property
    def num_failed(self) -> int:
        """Pictures without features."""
        return sum(self.failed.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    shard: str
    row: int
    pixel_sha256: str


def finish_extraction(plan: ExtractionPlan) -> ExtractionSummary:
    """Check every shard, write index.parquet, and last manifest.json.

    Where the folder is finished already and the request is the same, nothing is written. Several
    processes may call it: one after the other comes in.

    Raises:
        ExtractionError: If shards are missing, or if more pictures failed than
            ``max_failures`` allows; the folder stays unfinished and the shards stay.
        ShardError: If a shard's bytes are not those of its commit record.
    """
    with find_writable(plan.folder).lock(wait=-1):
        content = read_folder(plan.folder)
        complete = [
            commit
            for number in range(len(plan.shards))
            if (commit := find_made(plan.shard_task(number), content)) is not None
        ]
        if missing := len(plan.shards) - len(complete):
            raise ExtractionError(
                f"{plan.folder}: {missing} of {len(plan.shards)} shards are not complete; run the "
                "same command again to continue"
            )
        images, rows = _outcomes(plan, complete)
        check_failures(images, plan.config.max_failures)
        finish_folder(
            plan.folder,
            spec=plan.spec,
            plan=plan.key,
            request_sha256=plan.request_sha256,
            commits=complete,
            index=_make_index(plan, images, rows),
        )
    return ExtractionSummary(
        folder=plan.folder,
        num_images=len(images),
        num_distinct=len(rows),
        row_shape=plan.spec.row_shape,
        num_shards=len(complete),
        nbytes=sum(commit.shard.file_nbytes for commit in complete),
        precision=plan.spec.precision,
        precision_error=plan.spec.precision_error,
        failed=Counter(image.reason for image in images if image.reason is not None),
        num_halved=sum("halved_batches" in commit.made_by for commit in complete),
    )


def _outcomes(
    plan: ExtractionPlan, commits: list[ShardCommit]
) -> tuple[list[ScannedImage], dict[str, _Row]]:
    """Every picture asked for, with what became of it; and the place of each by its digest."""
    failed: dict[str, FailedImage] = {}
    rows: dict[str, _Row] = {}
    for shard, commit in zip(plan.shards, commits, strict=True):
        failed |= {image.image_sha256: image for image in commit.failed if image.image_sha256}
        for row, digests in enumerate(zip(commit.image_sha256, commit.pixel_sha256, strict=True)):
            rows[digests[0]] = _Row(shard=shard.file, row=row, pixel_sha256=digests[1])
    images = [
        replace(image, reason=failure.reason, error=failure.error)
        if image.image_sha256 is not None and (failure := failed.get(image.image_sha256))
        else image
        for image in plan.images
    ]
    return images, rows


def _make_index(
    plan: ExtractionPlan, images: list[ScannedImage], rows: Mapping[str, _Row]
) -> pl.DataFrame:
    records = []
    for image in images:
        place = rows.get(image.image_sha256 or "")
        records.append(
            {
                "question_id": image.question_id,
                "role": image.role,
                "shard": place and place.shard,
                "row": place and place.row,
                "num_patches": place and plan.spec.num_patches,
                "width": image.width,
                "height": image.height,
                "image_sha256": image.image_sha256,
                "pixel_sha256": place and place.pixel_sha256,
                "status": image.reason or "ok",
                "error": image.error,
                "file": image.file,
            }
        )
    return pl.DataFrame(records, schema=INDEX_SCHEMA)
