"""What people see of an extraction in Prefect's web interface: progress, tables, pictures, summary.

The key of an artifact says which feature set it belongs to: ``features-detr-shards`` is of
shards/detr. A later run adds a new version of it.
"""

import base64
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast
from uuid import UUID

import polars as pl
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from mmcot_data.extraction import ExtractionPlan, ExtractionSummary
from mmcot_data.extraction.pending import is_made
from mmcot_data.images import decode_rgb
from mmcot_data.shards.folder import read_complete
from mmcot_data.sources import open_stored
from pipelines.contact_sheet import contact_sheet

__all__ = [
    "artifact_key",
    "describe",
    "publish_failures",
    "publish_samples",
    "publish_shards",
    "publish_summary",
    "shard_progress",
    "start_progress",
]

_SECONDS_BETWEEN_UPDATES = 2.0
_NUM_SAMPLES = 8
_MAX_FAILURES_SHOWN = 500


def artifact_key(folder: Path, what: str) -> str:
    """Key of an artifact: lowercase letters, digits and single dashes, which is what Prefect takes.

    Args:
        folder: The feature set.
        what: What the artifact shows, in the same letters.
    """
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    return f"features-{name}-{what}"


def start_progress(folder: Path, done: int, total: int) -> UUID:
    """Create the progress bar of a feature set; it begins with the pictures that are done."""
    artifact = create_progress_artifact(
        progress=_percent(done, total),
        key=artifact_key(folder, "progress"),
        description=f"{done} of {total} pictures were there already.",
    )
    return cast(UUID, artifact)  # a coroutine only where there is an event loop


def shard_progress(
    artifact: UUID, file: str, before: int, total: int
) -> Callable[[int, int], None]:
    """What moves the progress bar while a shard is extracted.

    Args:
        artifact: The progress bar.
        file: The shard.
        before: Pictures of complete shards.
        total: Pictures of all shards.

    Returns:
        A function to call with the pictures of the shard that are done, and with all of them. It
        updates the bar every two seconds and at the end.
    """
    start = updated = time.monotonic()

    def report(done: int, of_shard: int) -> None:
        nonlocal updated
        now = time.monotonic()
        if now - updated < _SECONDS_BETWEEN_UPDATES and done < of_shard:
            return
        updated = now
        update_progress_artifact(
            artifact,
            _percent(before + done, total),
            f"{before + done} of {total} pictures; "
            f"{file} at {done / (now - start):.1f} pictures/s.",
        )

    return report


def publish_shards(plan: ExtractionPlan, extracted: Collection[int]) -> None:
    """Table of the plan's shards, as their commit records describe them.

    Args:
        plan: The plan.
        extracted: Numbers of the shards that this run had to make.
    """
    table = []
    for number, shard in enumerate(plan.shards):
        commit = read_complete(plan.folder, shard.file, plan.spec, plan.key)
        record = None if commit is None or not is_made(plan, number, commit) else commit.shard
        status = "extracted" if number in extracted else "was there already"
        table.append(
            {
                "shard": shard.file,
                "pictures": len(shard.images),
                "rows": record and record.rows,
                "bytes": record and record.file_nbytes,
                "sha256": record and record.sha256[:12],
                "status": "failed" if record is None else status,
            }
        )
    create_table_artifact(
        table=table,
        key=artifact_key(plan.folder, "shards"),
        description=f"The shards of {plan.folder}. Failed ones are made by the next run.",
    )


def publish_failures(folder: Path) -> None:
    """Table of the pictures without features; an empty one replaces that of an earlier run."""
    failed = _read_index(folder).filter(pl.col("status") != "ok")
    shown = failed.select("question_id", "role", "file", reason="status", explanation="error")
    create_table_artifact(
        table=shown.head(_MAX_FAILURES_SHOWN).to_dicts(),
        key=artifact_key(folder, "failures"),
        description=f"{len(failed)} pictures of {folder} have no features"
        + (f"; the first {_MAX_FAILURES_SHOWN}" if len(failed) > _MAX_FAILURES_SHOWN else "")
        + ". All are in index.parquet, with their status.",
    )


def publish_samples(folder: Path, data: Path) -> None:
    """A sheet of pictures that have features, evenly spread over the data set.

    Args:
        folder: The feature set.
        data: The data set that it was made from.

    Raises:
        ImageError: If a picture can't be read any more.
    """
    index = _read_index(folder).filter(pl.col("status") == "ok")
    if index.is_empty():
        return
    chosen = index.gather_every(max(1, len(index) // _NUM_SAMPLES)).head(_NUM_SAMPLES)
    pictures = []
    for question_id, role, file in chosen.select("question_id", "role", "file").rows():
        stored = open_stored(data, file)
        pictures.append((f"{question_id}, {role}", decode_rgb(stored.read(), stored.name)))
    sheet = contact_sheet(pictures)
    create_markdown_artifact(
        markdown=f"![pictures](data:image/png;base64,{base64.b64encode(sheet).decode()})",
        key=artifact_key(folder, "samples"),
        description=f"Some pictures of {folder}, with question id and role.",
    )


def publish_summary(plan: ExtractionPlan, summary: ExtractionSummary) -> None:
    """What the feature set holds, what made it, and what can be done with it."""
    spec, folder = plan.spec, plan.folder
    seed = None if spec.random_weights is None else f"random weights of seed {spec.random_weights}"
    rows = {
        "pictures": f"{summary.num_images}, {summary.num_failed} of them without features",
        "features": f"{summary.num_distinct} rows of {spec.row_shape} {spec.dtype}",
        "shards": f"{summary.num_shards} ({plan.key.format}), {summary.nbytes / 1e6:.1f} MB",
        "this run": _speed(summary),
        "data": f"`{plan.config.data}`, {spec.data_licence}",
        "model": ", ".join(filter(None, (spec.model_id, spec.revision, seed))),
        "layer": spec.layer,
        "precision": f"{spec.precision} with {spec.backend}",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    create_markdown_artifact(
        markdown=f"""# {folder}

| | |
| --- | --- |
{table}

## Next

Train both stages with these features, in the folder that `{folder}` is relative to:

    mmcot-train --features {folder}

Or read them, with numpy alone:

    from mmcot_data.shards import open_features

    features = open_features("{folder}")
    features_BPD, mask_BP = features.gather(features.question_ids[:8])
""",
        key=artifact_key(folder, "summary"),
        description=describe(summary),
    )


def describe(summary: ExtractionSummary) -> str:
    """The summary in one line."""
    return (
        f"{summary.folder}: {summary.num_images} pictures, {summary.num_failed} of them without "
        f"features; {summary.num_distinct} rows in {summary.num_shards} shards; {_speed(summary)}"
    )


def _speed(summary: ExtractionSummary) -> str:
    if not summary.num_extracted:
        return "all of it was there already"
    rate = summary.num_extracted / summary.seconds
    return f"{summary.num_extracted} extracted in {summary.seconds:.1f} s ({rate:.1f} pictures/s)"


def _percent(done: int, total: int) -> float:
    return 100.0 * done / total if total else 100.0


def _read_index(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "index.parquet")
