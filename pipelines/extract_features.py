"""The flow ``extract-features``: question tables, plan, one task a shard, index and manifest.

What is on disk decides what is left to do: Prefect caches nothing and keeps no results. Tasks are
given the request and a number, not the plan, for Prefect walks through every argument in search
of futures, which takes longer than a second for the plan of 20,000 pictures. So each process
loads the encoder and plans once, and keeps both.
"""

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from prefect import flow, get_run_logger, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field

from mmcot_data import extraction
from mmcot_data.encoders import ENCODERS, Encoder, EncoderConfig, Precision, load_encoder
from mmcot_data.errors import ExtractionError, MmcotError
from mmcot_data.extraction import ExtractionConfig, ExtractionPlan, ExtractionSummary
from mmcot_data.scienceqa import read_scienceqa
from mmcot_data.shards.folder import write_folder
from mmcot_data.shards.schema import Container, ShardRecord, StorageDtype
from pipelines import artifacts

__all__ = ["extract_features"]

_Encoder = Annotated[str, Field(pattern=f"^({'|'.join(ENCODERS)}|hf:.+)$")]
_Split = Literal["train", "val", "test", "trainval", "minitrain", "minival", "minitest"]
_Count = Annotated[int, Field(ge=1, le=100_000)]
_Failures = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$|^\d+$")]

# The device is busy with one shard; a task decodes pictures in threads of its own. Prefect's
# annotations do not let a runner of its own be one.
_ONE_AT_A_TIME = cast("TaskRunner[Any]", ThreadPoolTaskRunner(max_workers=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """What the flow must know of the plan."""

    folder: Path
    pending: list[int]
    """Numbers of the shards to make."""
    num_shards: int
    num_done: int
    """Pictures of the shards that are complete."""
    num_images: int
    """Pictures of all shards."""


@lru_cache(maxsize=1)
def _encoder(config: EncoderConfig) -> Encoder:
    return load_encoder(config)


@lru_cache(maxsize=1)
def _plan(config: ExtractionConfig) -> ExtractionPlan:
    return extraction.plan_extraction(config, _encoder(config.encoder))


def _count_done(plan: ExtractionPlan, pending: list[int]) -> int:
    done = set(range(len(plan.shards))) - set(pending)
    return sum(len(plan.shards[number].images) for number in done)


def _is_io_error(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.result(raise_on_failure=False), OSError)


@task(name="write-question-tables", cache_policy=NO_CACHE, persist_result=False)
def _write_question_tables(config: ExtractionConfig) -> None:
    extraction.write_tables(read_scienceqa(config.data), config.out)


@task(
    name="plan-shards",
    retries=2,
    retry_delay_seconds=[1, 10],
    retry_condition_fn=_is_io_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _plan_shards(config: ExtractionConfig) -> None:
    _plan.cache_clear()
    _plan(config)


def _remaining_work(plan: ExtractionPlan) -> _Work:
    pending = plan.pending()
    return _Work(
        folder=plan.folder,
        pending=pending,
        num_shards=len(plan.shards),
        num_done=_count_done(plan, pending),
        num_images=_count_done(plan, []),
    )


@task(
    name="extract-shard",
    task_run_name="{config.encoder.name}-{number:05d}",
    retries=2,
    retry_delay_seconds=[1, 10],
    retry_jitter_factor=0.5,
    retry_condition_fn=_is_io_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _extract_shard(number: int, config: ExtractionConfig, progress: UUID) -> ShardRecord:
    plan = _plan(config)
    file = plan.shards[number].file
    before, total = _count_done(plan, plan.pending()), _count_done(plan, [])
    start = time.perf_counter()
    record = extraction.extract_shard(
        plan,
        number,
        _encoder(config.encoder),
        artifacts.shard_progress(progress, file, before, total),
    )
    seconds = time.perf_counter() - start
    rate = (record.rows + record.failed) / seconds
    get_run_logger().info("%s: %d rows, %.1f pictures/s", file, record.rows, rate)
    return record


@task(name="finish", cache_policy=NO_CACHE, persist_result=False)
def _finish(config: ExtractionConfig) -> ExtractionSummary:
    return extraction.finish_extraction(_plan(config))


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
    precision: Precision = "fp32",
    device: str = "auto",
    batch_size: _Count = 8,
    splits: tuple[_Split, ...] = (),
    max_failures: _Failures = "1%",
    format: Container = "hdf5",
    dtype: StorageDtype = "float16",
    shard_size: _Count | None = None,
) -> State[ExtractionSummary]:
    """Compute patch features of all pictures of a data set and write them as shards.

    Interrupted, killed or failed, a new run with the same parameters continues.

    Args:
        encoder: detr, clip, vit, tiny (needs no download) or hf:<model id>.
        data: Data set in ScienceQA's official layout; relative to the checkout.
        out: Artifact root; the feature set becomes a folder in it. Relative to the checkout.
        model: Local folder or hub id instead of the encoder's own.
        revision: Hub revision: branch, tag or commit.
        random_weights: Seed of weights that are drawn instead of loaded, for trials.
        preprocessing: As in Multimodal-CoT (reference), or as the model's authors did (native).
        precision: Of the computation.
        device: auto, cpu, cuda, cuda:1, …
        batch_size: Pictures encoded together.
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
                precision=precision,
                device=device,
            ),
            splits=splits or None,
            format=format,
            dtype=dtype,
            shard_size=shard_size,
            batch_size=batch_size,
            max_failures=str(max_failures),
        )
    except ValueError as error:
        return _fail(error)
    try:
        summary = _extract(config)
    except (MmcotError, OSError) as error:
        return _fail(error)
    get_run_logger().info("%s", artifacts.describe(summary))
    get_run_logger().info("next: mmcot-train --features %s", summary.folder)
    return Completed(message=artifacts.describe(summary), data=summary)


def _extract(config: ExtractionConfig) -> ExtractionSummary:
    _write_question_tables(config)
    _plan_shards(config)
    plan = _plan(config)
    with write_folder(plan.folder, plan.spec, plan.key):
        return _extract_shards(config, _remaining_work(plan))


def _extract_shards(config: ExtractionConfig, work: _Work) -> ExtractionSummary:
    get_run_logger().info(
        "%s: %d of %d shards are to be made, %d of %d pictures",
        work.folder,
        len(work.pending),
        work.num_shards,
        work.num_images - work.num_done,
        work.num_images,
    )
    progress = artifacts.start_progress(work.folder, work.num_done, work.num_images)
    start = time.perf_counter()
    futures = _extract_shard.map(work.pending, unmapped(config), unmapped(progress))
    outcomes = [future.result(raise_on_failure=False) for future in futures]
    seconds = time.perf_counter() - start
    artifacts.publish_shards(_plan(config), work.pending)
    _check_outcomes(work, outcomes)
    summary = replace(
        _finish(config), num_extracted=work.num_images - work.num_done, seconds=seconds
    )
    artifacts.publish_failures(work.folder)
    artifacts.publish_samples(work.folder, config.data)
    artifacts.publish_summary(_plan(config), summary)
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


def _fail(error: Exception) -> State[Any]:
    """End the run by an error that explains itself; a flow that is called raises it.

    Its traceback is in the log of the task already; without it the explanation stands last.
    """
    get_run_logger().error("%s", error)
    return Failed(message=str(error), data=error.with_traceback(None))
