"""What people see of an extraction in Prefect's web interface: tables, pictures, summary.

The key of an artifact says which feature set it belongs to: ``features-detr-shards`` is of
shards/detr. A later run adds a new version of it. ``extraction_progress`` has the progress bar.
"""

import base64
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from mmcot_data.errors import DataError, ImageError
from mmcot_data.extraction import ExtractionPlan, ExtractionSummary
from mmcot_data.extraction.pending import find_commit, is_made
from mmcot_data.shards.schema import ShardRecord
from mmcot_data.shards.store import open_store
from pipelines.page import artifact_key, artifact_link, command_text, summary_table
from pipelines.quantities import bytes_text, count_text, duration_text, rate_text
from pipelines.sample_pictures import choose_pictures, draw_sheet
from pipelines.shard_work import WorkedShard

__all__ = [
    "describe",
    "publish_failures",
    "publish_samples",
    "publish_shards",
    "publish_summary",
]

_NUM_SAMPLES = 6
_MAX_SHARDS_SHOWN = 1000
_MAX_FAILURES_SHOWN = 500
_NUM_READERS = 8
_PARTS = ("summary", "shards", "failures", "samples", "progress")
_NONE: Mapping[int, BaseException] = {}


class _Folder(Protocol):
    """A feature set's place: a folder, or a URL."""

    @property
    def name(self) -> str: ...


def publish_shards(
    plan: ExtractionPlan,
    extracted: Mapping[int, WorkedShard],
    failed: Mapping[int, BaseException] = _NONE,
) -> None:
    """Table of the plan's shards, as their commit records describe them; of many, the first part.

    Those that failed come first, then those that this run made, then the others. No record is read
    that is not shown.

    Args:
        plan: The plan.
        extracted: What this run made, by the shard's number.
        failed: Why it could not make others.
    """
    others = (n for n in range(len(plan.shards)) if n not in extracted and n not in failed)
    order = chain(sorted(failed), sorted(extracted), others)
    shown = list(islice(order, _MAX_SHARDS_SHOWN))
    with ThreadPoolExecutor(_NUM_READERS) as threads:
        records = list(threads.map(lambda number: _find_record(plan, number), shown))
    rows = [
        _shard_row(plan, number, record, extracted.get(number), failed.get(number))
        for number, record in zip(shown, records, strict=True)
    ]
    rows.sort(key=lambda row: not row["status"].startswith("failed"))
    num_failed = sum(row["status"].startswith("failed") for row in rows)
    num_others = len(plan.shards) - len(extracted) - max(num_failed, len(failed))
    counts = {
        "failed, which the next run makes": max(num_failed, len(failed)),
        "made by this run": len(extracted),
        "there already": num_others,
    }
    counted = "; ".join(f"{count_text(number)} {what}" for what, number in counts.items() if number)
    all_of = f"The {count_text(len(plan.shards))} shards of `{plan.folder}`: {counted or 'none'}."
    if len(shown) < len(plan.shards):
        all_of += f" Here are {count_text(len(shown))} of them."
    create_table_artifact(
        table=rows,
        key=artifact_key("features", plan.folder.name, "shards"),
        description=f"{all_of} {_links(plan.folder, 'shards')}",
    )


def publish_failures(folder: _Folder) -> None:
    """Table of the pictures without features; an empty one replaces that of an earlier run."""
    index = open_store(str(folder)).read_index(
        ("question_id", "role", "row", "num_patches", "file", "status", "error")
    )
    failed = index.filter(pl.col("status") != "ok")
    shown = failed.select("question_id", "role", "file", reason="status", explanation="error")
    more = len(failed) > _MAX_FAILURES_SHOWN
    create_table_artifact(
        table=shown.head(_MAX_FAILURES_SHOWN).to_dicts(),
        key=artifact_key("features", folder.name, "failures"),
        description=f"{count_text(len(failed))} of the {count_text(len(index))} pictures of "
        f"`{folder}` have no features"
        + (f"; here are the first {_MAX_FAILURES_SHOWN}" if more else "")
        + ". The column `status` of its index.parquet says it of all; the next run tries them "
        f"again. {_links(folder, 'failures')}",
    )


def publish_samples(folder: _Folder, data: Path) -> None:
    """A sheet of pictures with their features' principal components as colours.

    Pictures that are gone by now, or have changed, are no reason to end a run: the maps are drawn
    without them, which the artifact and the log say.

    Args:
        folder: The feature set.
        data: The data set that it was made of.
    """
    store = open_store(str(folder))
    pictures = choose_pictures(store, _NUM_SAMPLES)
    note = ""
    if not pictures:
        text = "No picture has features: there is nothing to show."
    else:
        try:
            kind, sheet = draw_sheet(store, pictures, data)
        except (DataError, ImageError, OSError) as error:
            get_run_logger().warning("the samples are shown without their pictures: %s", error)
            note = f"\n\nThe pictures themselves can't be shown: {error}"
            kind, sheet = draw_sheet(store, pictures, None)
        encoded = base64.b64encode(sheet).decode()
        text = f"![pictures and their features](data:image/{kind};base64,{encoded})"
    create_markdown_artifact(
        markdown=text + note,
        key=artifact_key("features", folder.name, "samples"),
        description=f"Pictures of `{folder}` and what their patches tell apart: similar features "
        f"have similar colours. {_links(folder, 'samples')}",
    )


def publish_summary(plan: ExtractionPlan, summary: ExtractionSummary) -> None:
    """What the feature set holds, what made it, and what can be done with it."""
    spec, folder = plan.spec, plan.folder
    seed = None if spec.random_weights is None else f"random weights of seed {spec.random_weights}"
    error = summary.precision_error
    patches, width = spec.row_shape
    rows = {
        "pictures": f"{count_text(summary.num_images)}; {_failures_text(summary)}",
        "features": f"{count_text(summary.num_distinct)} rows of {patches:,} x {width:,} "
        f"{spec.dtype}",
        "shards": f"{count_text(summary.num_shards)} ({plan.key.format}), "
        f"{bytes_text(summary.nbytes)}",
        "this run": _speed(summary),
        "short of memory": _halved_text(summary),
        "data": f"`{plan.config.data}`, {spec.data_licence}",
        "model": ", ".join(filter(None, (spec.model_id, spec.revision, seed))),
        "layer": spec.layer,
        "precision": f"{spec.precision} with {spec.backend}"
        + ("" if error is None else f"; differs by {error:.2g} from fp32"),
        "place": f"`{folder}`",
    }
    create_markdown_artifact(
        markdown=f"""# {folder}

{summary_table(rows)}

{_links(folder, "summary")}

## Next

Train both stages with these features:

{command_text(f"mmcot-train --features {folder}")}

Look at what they tell apart, and compare them with their checksums:

{command_text(f"mmcot-data inspect {folder} --pictures maps.png", f"mmcot-data verify {folder}")}

Or read them, with numpy alone:

{
            command_text(
                "from mmcot_data.shards import open_features",
                "",
                f'features = open_features("{folder}")',
                "features_BPD, mask_BP = features.gather(features.question_ids[:8])",
            )
        }

A relative path is relative to the folder of the checkout that the run worked in.
""",
        key=artifact_key("features", folder.name, "summary"),
        description=describe(summary),
    )


def describe(summary: ExtractionSummary) -> str:
    """The summary in one line."""
    return (
        f"{summary.folder}: {count_text(summary.num_images)} pictures, {_failures_text(summary)}; "
        f"{count_text(summary.num_distinct)} rows in {count_text(summary.num_shards)} shards; "
        f"{_speed(summary)}"
    )


def _find_record(plan: ExtractionPlan, number: int) -> ShardRecord | None:
    task = plan.shard_task(number)
    commit = find_commit(task)
    return commit.shard if commit is not None and is_made(task, commit) else None


def _shard_row(
    plan: ExtractionPlan,
    number: int,
    record: ShardRecord | None,
    made: WorkedShard | None,
    error: BaseException | None,
) -> dict[str, Any]:
    if error is not None:
        status = f"failed: {type(error).__name__}: {error}"
    elif record is None:
        status = "failed"
    else:
        status = "was there already" if made is None else "made by this run"
    shard = plan.shards[number]
    return {
        "shard": shard.file,
        "status": status,
        "pictures": len(shard.images),
        "rows": record and record.rows,
        "size": record and bytes_text(record.file_nbytes),
        "pictures/s": made and rate_text(made.pictures_per_second),
        "sha256": record and record.sha256[:12],
    }


def _failures_text(summary: ExtractionSummary) -> str:
    if not summary.num_failed:
        return "all of them have features"
    reasons = ", ".join(f"{count_text(n)} {reason}" for reason, n in summary.failed.items())
    return f"{count_text(summary.num_failed)} of them have no features ({reasons})"


def _halved_text(summary: ExtractionSummary) -> str | None:
    if not summary.num_halved:
        return None
    return (
        f"{count_text(summary.num_halved)} shards have batches that were encoded in halves; "
        "a smaller batch_size would be faster"
    )


def _speed(summary: ExtractionSummary) -> str:
    if not summary.num_extracted:
        return "all of it was there already"
    rate = rate_text(summary.num_extracted / summary.seconds)
    seconds = duration_text(summary.seconds)
    return f"{count_text(summary.num_extracted)} pictures in {seconds} ({rate} pictures/s)"


def _links(folder: _Folder, this: str, parts: Collection[str] = _PARTS) -> str:
    """Links to the other artifacts of a feature set."""
    return "See also: " + " · ".join(
        artifact_link(part, artifact_key("features", folder.name, part))
        for part in parts
        if part != this
    )
