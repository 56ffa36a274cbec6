"""Turn complete shards into a finished feature set: check them, write the index and manifest."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from mmcot_data.errors import ExtractionError, ShardError
from mmcot_data.extraction.failures import check_failures
from mmcot_data.extraction.folder import read_complete, remove_temporary
from mmcot_data.extraction.plan import ExtractionPlan
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.files import file_sha256, write_parquet
from mmcot_data.shards.manifest import (
    FailedImage,
    Manifest,
    ShardCommit,
    commit_path,
    read_manifest,
    write_manifest,
)
from mmcot_data.shards.schema import ShardRecord

__all__ = ["ExtractionSummary", "finish_extraction"]

_INDEX_SCHEMA = pl.Schema(
    {
        "question_id": pl.String(),
        "role": pl.String(),
        "shard": pl.String(),
        "row": pl.Int32(),
        "num_patches": pl.Int32(),
        "width": pl.Int32(),
        "height": pl.Int32(),
        "image_sha256": pl.String(),
        "pixel_sha256": pl.String(),
        "status": pl.String(),
        "error": pl.String(),
        "file": pl.String(),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionSummary:
    """What a finished feature set holds."""

    folder: Path
    num_images: int
    """Pictures asked for: rows of the index."""
    num_distinct: int
    """Rows of features: distinct pictures that could be decoded."""
    row_shape: tuple[int, int]
    """(P, D) of a row."""
    num_shards: int
    nbytes: int
    """Size of the shards together."""
    failed: Mapping[str, int]
    """Pictures without features, by reason."""
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

    Where the folder is finished already and the request is the same, nothing is written.

    Raises:
        ExtractionError: If shards are missing, or if more pictures failed than
            ``max_failures`` allows; the folder stays unfinished and the shards stay.
        ShardError: If a shard's bytes are not those of its commit record.
    """
    commits = [read_complete(plan.folder, s.file, plan.spec, plan.key) for s in plan.shards]
    if missing := commits.count(None):
        raise ExtractionError(
            f"{plan.folder}: {missing} of {len(commits)} shards are not complete; run the same "
            "command again to continue"
        )
    complete = [commit for commit in commits if commit is not None]
    images, rows = _outcomes(plan, complete)
    check_failures(images, plan.config.max_failures, plan.folder)
    shards = tuple(commit.shard for commit in complete if commit.shard.rows)
    if not _is_finished(plan, shards):
        _verify_shards(plan.folder, complete)
        (plan.folder / "manifest.json").unlink(missing_ok=True)
        _write_index(plan, images, rows)
        write_manifest(
            plan.folder,
            Manifest(
                spec=plan.spec,
                plan=plan.key,
                request_sha256=plan.request_sha256,
                index_sha256=file_sha256(plan.folder / "index.parquet"),
                rows=len(rows),
                shards=shards,
            ),
        )
    remove_temporary(plan.folder)
    return ExtractionSummary(
        folder=plan.folder,
        num_images=len(images),
        num_distinct=len(rows),
        row_shape=plan.spec.row_shape,
        num_shards=len(complete),
        nbytes=sum(commit.shard.file_nbytes for commit in complete),
        failed=Counter(image.reason for image in images if image.reason is not None),
    )


def _outcomes(
    plan: ExtractionPlan, commits: list[ShardCommit]
) -> tuple[list[ScannedImage], dict[str, _Row]]:
    """Every picture asked for, with what became of it; and the place of each by its digest."""
    failed: dict[str, FailedImage] = {}
    rows: dict[str, _Row] = {}
    for shard, commit in zip(plan.shards, commits, strict=True):
        failed |= {image.image_sha256: image for image in commit.failed}
        kept = [image.sha256 for image in shard.images if image.sha256 not in failed]
        for row, (digest, pixels) in enumerate(zip(kept, commit.pixel_sha256, strict=True)):
            rows[digest] = _Row(shard=shard.file, row=row, pixel_sha256=pixels)
    images = [
        replace(image, reason=failure.reason, error=failure.error)
        if image.image_sha256 is not None and (failure := failed.get(image.image_sha256))
        else image
        for image in plan.images
    ]
    return images, rows


def _is_finished(plan: ExtractionPlan, shards: tuple[ShardRecord, ...]) -> bool:
    index = plan.folder / "index.parquet"
    if not (plan.folder / "manifest.json").is_file() or not index.is_file():
        return False
    manifest = read_manifest(plan.folder)
    return (manifest.request_sha256, manifest.shards, manifest.index_sha256) == (
        plan.request_sha256,
        shards,
        file_sha256(index),
    )


def _verify_shards(folder: Path, commits: list[ShardCommit]) -> None:
    for commit in commits:
        path = folder / commit.shard.file
        if commit.shard.rows and (found := file_sha256(path)) != commit.shard.sha256:
            raise ShardError(
                f"{path} is damaged: its sha256 is {found}, its commit record says "
                f"{commit.shard.sha256}; delete {commit_path(path)} and run the same command again"
            )


def _write_index(
    plan: ExtractionPlan, images: list[ScannedImage], rows: Mapping[str, _Row]
) -> None:
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
                "file": str(image.path.relative_to(plan.config.data)),
            }
        )
    table = pl.DataFrame(records, schema=_INDEX_SCHEMA)
    write_parquet(plan.folder / "index.parquet", table)
