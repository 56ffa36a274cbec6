"""The flow ``extract-features``: question tables, plan, one task a shard, index and manifest.

What is on disk decides what is left to do: Prefect caches nothing and keeps no results. Tasks are
given the request and a number, not the plan, for Prefect walks through every argument in search
of futures, which takes longer than a second for the plan of 20,000 pictures. So each process
loads the encoder and plans once, and keeps both.
"""

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from prefect import flow, get_run_logger, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field

from mmcot_data import extraction
from mmcot_data.encoders import ENCODERS, Encoder, EncoderConfig, Precision, load_encoder
from mmcot_data.encoders.base import Alpha, Backend, Resizer
from mmcot_data.errors import ExtractionError, MmcotError
from mmcot_data.extraction import ExtractionConfig, ExtractionPlan, ExtractionSummary
from mmcot_data.shards.schema import Container, ShardRecord, StorageDtype
from mmcot_data.sources import Layout
from mmcot_data.tables import check_artifact_root, write_tables
from pipelines import artifacts
from pipelines.outcomes import fail, is_io_error

__all__ = ["extract_features"]

_Encoder = Annotated[str, Field(pattern=f"^({'|'.join(ENCODERS)}|hf:.+)$")]
_Count = Annotated[int, Field(ge=1, le=100_000)]
_Failures = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$|^\d+$")]

# The device is busy with one shard; a task decodes pictures in threads of its own. Prefect's
# annotations do not let a runner of its own be one.
_ONE_AT_A_TIME = cast("TaskRunner[Any]", ThreadPoolTaskRunner(max_workers=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """What is left to do."""

    pending: list[int]
    """Numbers of the shards to make."""
    before: list[int]
    """Pictures that are done before each of them is made."""
    num_images: int
    """Pictures of the pending shards."""


@lru_cache(maxsize=1)
def _encoder(config: EncoderConfig) -> Encoder:
    return load_encoder(config)


@lru_cache(maxsize=1)
def _plan(config: ExtractionConfig) -> tuple[ExtractionPlan, Encoder]:
    """The plan, and the encoder at the precision that it is to use."""
    source = extraction.scan_source(extraction.open_pictures(config))
    return extraction.prepare_extraction(config, _encoder(config.encoder), source)


@task(name="write-question-tables", cache_policy=NO_CACHE, persist_result=False)
def _write_question_tables(config: ExtractionConfig) -> None:
    source = extraction.open_pictures(config)
    if source.questions is None:
        check_artifact_root(config.out)
    else:
        write_tables(source.questions, config.out)


@task(
    name="plan-shards",
    retries=2,
    retry_delay_seconds=[1, 10],
    retry_condition_fn=is_io_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _plan_shards(config: ExtractionConfig) -> None:
    _plan.cache_clear()
    _plan(config)


def _remaining_work(plan: ExtractionPlan, pending: list[int]) -> _Work:
    sizes = [len(plan.shards[number].images) for number in pending]
    num_done = plan.num_images - sum(sizes)
    return _Work(
        pending=pending,
        before=list(accumulate(sizes, initial=num_done))[:-1],
        num_images=sum(sizes),
    )


@task(
    name="extract-shard",
    task_run_name="{config.encoder.name}-{number:05d}",
    retries=2,
    retry_delay_seconds=[1, 10],
    retry_jitter_factor=0.5,
    retry_condition_fn=is_io_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _extract_shard(
    number: int, before: int, config: ExtractionConfig, progress: UUID
) -> ShardRecord:
    plan, encoder = _plan(config)
    file = plan.shards[number].file
    report = artifacts.shard_progress(progress, file, before, plan.num_images)
    start = time.perf_counter()
    record = extraction.extract_shard(plan, number, encoder, report).shard
    seconds = time.perf_counter() - start
    rate = (record.rows + record.failed) / seconds
    get_run_logger().info("%s: %d rows, %.1f pictures/s", file, record.rows, rate)
    return record


@task(name="finish", cache_policy=NO_CACHE, persist_result=False)
def _finish(config: ExtractionConfig) -> ExtractionSummary:
    return extraction.finish_extraction(_plan(config)[0])


@flow(
    name="extract-features",
    flow_run_name="extract-{encoder}-{data.name}",
    task_runner=_ONE_AT_A_TIME,
    persist_result=False,
)
def extract_features(
    encoder: _Encoder = "detr",
    data: Path = Path("data/scienceqa"),
    out: Path = Path("shards"),
    model: str | None = None,
    revision: str | None = None,
    random_weights: Annotated[int, Field(ge=0)] | None = None,
    preprocessing: Literal["reference", "native"] = "reference",
    resize: Resizer = "pil",
    alpha: Alpha = "white",
    precision: Precision | Literal["auto"] = "fp32",
    backend: Backend = "torch",
    device: str = "auto",
    batch_size: _Count | None = None,
    pad_to: Literal[1, 32] = 1,
    layout: Layout = "auto",
    id_column: str | None = None,
    image_column: str | None = None,
    licence: str | None = None,
    splits: tuple[str, ...] = (),
    max_failures: _Failures = "1%",
    format: Container = "hdf5",
    dtype: StorageDtype = "float16",
    shard_size: _Count | None = None,
) -> State[ExtractionSummary]:
    """Compute patch features of all pictures of a data set and write them as shards.

    Interrupted, killed or failed, a new run with the same parameters continues.

    Args:
        encoder: detr, clip, vit, clip-rn101, resnet, tiny (needs no download) or hf:<model id>.
        data: Data set in ScienceQA's layout, folder of pictures, parquet file or folder, or folder
            written by Hugging Face datasets; relative to the checkout.
        out: Artifact root; the feature set becomes a folder in it. Relative to the checkout.
        model: Local folder or hub id instead of the encoder's own.
        revision: Hub revision: branch, tag or commit.
        random_weights: Seed of weights that are drawn instead of loaded, for trials.
        preprocessing: As in Multimodal-CoT (reference), or as the model's authors did (native).
        resize: What resizes pictures: pil as in the reference, or torchvision, which is faster.
        alpha: Transparent pixels on white paper, or (drop) the colour that they hide.
        precision: Of the computation; auto takes the fastest within 1e-2 of fp32.
        backend: What runs the model: torch, compile (torch.compile) or openvino.
        device: auto, cpu, cuda, cuda:1, …
        batch_size: Pictures encoded together; empty means 8 on a CPU, 64 on a GPU.
        pad_to: 1, or 32 for fuller batches of DETR on a GPU.
        layout: What data is; auto looks at it.
        id_column: Of a table of pictures: what identifies them.
        image_column: Of a table of pictures: what holds them.
        licence: Of the pictures, where the data set does not say it.
        splits: Only the pictures of these splits; none named means all.
        max_failures: Pictures that may fail: a number, or a percentage such as 1%.
        format: Of the shards.
        dtype: Of the stored features.
        shard_size: Rows in a shard; empty means 256 MiB, 1024 rows at most.
    """
    try:
        config = ExtractionConfig(
            data=data,
            out=out,
            encoder=EncoderConfig(
                name=encoder,
                model=model,
                revision=revision,
                random_weights=random_weights,
                preprocessing=preprocessing,
                resize=resize,
                alpha=alpha,
                precision=precision,
                backend=backend,
                device=device,
            ),
            layout=layout,
            id_column=id_column,
            image_column=image_column,
            licence=licence,
            splits=splits or None,
            format=format,
            dtype=dtype,
            shard_size=shard_size,
            batch_size=batch_size,
            pad_to=pad_to,
            max_failures=str(max_failures),
        )
    except ValueError as error:
        return fail(error)
    try:
        summary = _extract(config)
    except (MmcotError, OSError) as error:
        return fail(error)
    get_run_logger().info("%s", artifacts.describe(summary))
    get_run_logger().info("next: mmcot-train --features %s", summary.folder)
    return Completed(message=artifacts.describe(summary), data=summary)


def _extract(config: ExtractionConfig) -> ExtractionSummary:
    _write_question_tables(config)
    _plan_shards(config)
    plan, encoder = _plan(config)
    with extraction.begin_extraction(plan, encoder) as pending:
        return _make_shards(config, plan, _remaining_work(plan, pending))


def _make_shards(config: ExtractionConfig, plan: ExtractionPlan, work: _Work) -> ExtractionSummary:
    get_run_logger().info(
        "%s: %d of %d shards are to be made, %d of %d pictures",
        plan.folder,
        len(work.pending),
        len(plan.shards),
        work.num_images,
        plan.num_images,
    )
    num_done = plan.num_images - work.num_images
    progress = artifacts.start_progress(plan.folder, num_done, plan.num_images)
    start = time.perf_counter()
    futures = _extract_shard.map(work.pending, work.before, unmapped(config), unmapped(progress))
    outcomes = [future.result(raise_on_failure=False) for future in futures]
    seconds = time.perf_counter() - start
    artifacts.publish_shards(plan, work.pending)
    _check_outcomes(work, outcomes)
    summary = replace(_finish(config), num_extracted=work.num_images, seconds=seconds)
    artifacts.publish_failures(plan.folder)
    artifacts.publish_samples(plan.folder, config.data)
    artifacts.publish_summary(plan, summary)
    return summary


def _check_outcomes(work: _Work, outcomes: list[Any]) -> None:
    """Raise if shards failed, when all the others are made."""
    failed = [
        f"  shard {number}: {type(outcome).__name__}: {outcome}"
        for number, outcome in zip(work.pending, outcomes, strict=True)
        if isinstance(outcome, BaseException)
    ]
    if failed:
        raise ExtractionError(
            f"{len(failed)} of {len(outcomes)} shards failed:\n"
            + "\n".join(failed)
            + "\nThe others are complete; a new run makes only those that are missing."
        )
