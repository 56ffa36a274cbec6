"""A run of ``extract-features``: tables, plan, one task a shard on any workers, index and manifest.

What is on disk decides what is left to do: Prefect caches nothing and keeps no results. A task is
given a shard of the plan and returns a few numbers. Any number of runs, here or on other machines,
may make the same feature set at the same time: each skips the shards that another one makes.

These tasks are not in the module of the flow: Prefect loads that as a file, under a name that a
worker in another process can't import.
"""

import time
from asyncio import CancelledError
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.logging.handlers import APILogHandler
from prefect.utilities.annotations import opaque

from mmcot_data import extraction
from mmcot_data.encoders import load_encoder
from mmcot_data.extraction import ExtractionConfig, ExtractionPlan, ExtractionSummary
from mmcot_data.tables import check_artifact_root, write_tables
from pipelines import artifacts, shard_work
from pipelines.extraction_progress import ExtractionProgress
from pipelines.outcomes import check_failed, is_io_error
from pipelines.shard_work import WorkedShard
from pipelines.task_runners import TaskWorkers, WorkersConfig, start_workers

__all__ = ["run_extraction"]

_MAX_SUBMITTED = 512  # a shard of 1,024 pictures is 170 kB for the scheduler of a cluster

_Outcome = WorkedShard | BaseException | None
"""What became of a shard: complete, failed, or made by another process."""


@dataclass(frozen=True, slots=True)
class _Made:
    """What the tasks of a run did."""

    shards: dict[int, WorkedShard] = field(default_factory=dict)
    """Those that this run made, by number."""
    failed: dict[int, BaseException] = field(default_factory=dict)


def run_extraction(config: ExtractionConfig, workers: WorkersConfig) -> ExtractionSummary:
    """Make a feature set, within a flow.

    Args:
        config: The request.
        workers: What makes the shards.

    Raises:
        MmcotError: As ``mmcot_data.extraction.extract_feature_sets``.
        ExtractionError: Also if the workers can't be started, or if shards failed; lists them.
        OSError: If the disk fails.
    """
    if workers.runner != "threads":
        config = _without_relative_paths(config)
    _write_question_tables(config)
    try:
        return _extract(_plan_shards(config), workers)
    finally:
        shard_work.forget_encoder()


def _extract(plan: ExtractionPlan, workers: WorkersConfig) -> ExtractionSummary:
    encoder = shard_work.planned_encoder(plan)
    with extraction.begin_extraction(plan, encoder, _Waiting()) as pending:
        del encoder
        sizes = [len(plan.shards[number].images) for number in pending]
        get_run_logger().info(
            "%s: %d of %d shards are to be made, %d of %d pictures",
            plan.folder,
            len(pending),
            len(plan.shards),
            sum(sizes),
            plan.num_images,
        )
        done = plan.num_images - sum(sizes)
        progress = ExtractionProgress(plan.folder.name, done, plan.num_images)
        start = time.perf_counter()
        try:
            made = _make_shards(plan, pending, workers, progress) if pending else _Made()
        finally:
            progress.close()
        seconds = time.perf_counter() - start
        artifacts.publish_shards(plan, made.shards, made.failed)
        check_failed(made.failed, len(pending))
        num_extracted = sum(shard.rows + shard.failed for shard in made.shards.values())
        summary = replace(
            _finish(opaque(plan), return_state=False), num_extracted=num_extracted, seconds=seconds
        )
    artifacts.publish_failures(plan.folder)
    artifacts.publish_samples(plan.folder, plan.config.data)
    artifacts.publish_summary(plan, summary)
    return summary


def _without_relative_paths(config: ExtractionConfig) -> ExtractionConfig:
    """Workers may have been started in another folder."""
    model = config.encoder.model
    if model is not None and Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().absolute())
    return replace(
        config,
        data=config.data.absolute(),
        out=config.out.absolute() if isinstance(config.out, Path) else config.out,
        encoder=replace(config.encoder, model=model),
    )


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
    retry_jitter_factor=0.5,
    retry_condition_fn=is_io_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _plan_shards(config: ExtractionConfig) -> ExtractionPlan:
    """Plan; the encoder is kept apart, for Prefect holds what a task returns until the run ends."""
    source = extraction.scan_source(extraction.open_pictures(config))
    plan, encoder = extraction.prepare_extraction(config, load_encoder(config.encoder), source)
    shard_work.keep_encoder(plan, encoder)
    return plan


@task(
    name="extract-shard",
    task_run_name="{name}",
    retries=2,
    retry_delay_seconds=[1, 10],
    retry_jitter_factor=0.5,
    retry_condition_fn=is_io_error,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _extract_shard(
    name: str,  # noqa: ARG001  (of the task run)
    work: Callable[[], WorkedShard | None],
) -> WorkedShard | None:
    made = work()
    if made is not None and made.is_new:
        _log_shard(made)
        context = FlowRunContext.get()
        if context is not None and context.detached:  # in a process that is ended with its cluster
            APILogHandler().flush()
    return made


@task(name="finish", cache_policy=NO_CACHE, persist_result=False)
def _finish(plan: ExtractionPlan) -> ExtractionSummary:
    return extraction.finish_extraction(plan)


def _log_shard(made: WorkedShard) -> None:
    logger = get_run_logger()
    logger.info("%s: %d rows, %.1f pictures/s", made.file, made.rows, made.pictures_per_second)
    if made.failed:
        logger.warning("%s: %d pictures have no features", made.file, made.failed)
    if made.halved_batches:
        logger.warning(
            "%s: memory was short, %d batches were encoded in halves; a smaller batch_size would "
            "be faster",
            made.file,
            made.halved_batches,
        )


def _make_shards(
    plan: ExtractionPlan, pending: list[int], config: WorkersConfig, progress: ExtractionProgress
) -> _Made:
    """Make what no other process makes, until all is complete or has failed."""
    if config.runner != "threads":
        shard_work.forget_encoder()  # the workers may need its memory
    made = _Made()
    waiting = _Waiting()
    with start_workers(config) as workers:
        of_others: set[int] = set()
        to_make = pending
        while to_make:
            of_others.difference_update(to_make)
            with closing(_work(plan, to_make, workers, progress)) as outcomes:
                for number, outcome in outcomes:
                    shard = plan.shards[number]
                    if isinstance(outcome, BaseException):
                        made.failed[number] = outcome
                        progress.advance(shard.file, 0)
                    elif outcome is None:
                        of_others.add(number)
                    else:
                        progress.advance(shard.file, len(shard.images))
                        if outcome.is_new:
                            made.shards[number] = outcome
            to_make = extraction.wait_for_others(plan, of_others, waiting)
            for number in of_others.difference(to_make):
                progress.advance(plan.shards[number].file, len(plan.shards[number].images))
    return made


def _work(
    plan: ExtractionPlan,
    numbers: Iterable[int],
    workers: TaskWorkers,
    progress: ExtractionProgress,
) -> Generator[tuple[int, _Outcome], None, None]:
    """Let the workers make shards; gives each with its outcome as it ends, in whatever order."""
    stopped = Event()
    ended: SimpleQueue[tuple[int, PrefectFuture[Any]]] = SimpleQueue()

    def submit(number: int) -> None:
        shard = plan.shard_task(number)
        report = partial(_report, progress, stopped, shard.shard.file)
        parameters = {
            "name": f"{plan.config.encoder.name}-{number:05d}",
            # Prefect would walk through a ShardTask in search of futures, which takes 130 ms for
            # 1,024 pictures; it takes a function as it is.
            "work": partial(
                shard_work.make_shard,
                shard,
                report if workers.in_this_process else None,
                workers.find_device,
            ),
        }
        future = workers.runner.submit(_extract_shard, parameters)
        future.add_done_callback(lambda future: ended.put((number, future)))

    remaining = iter(numbers)
    running = 0
    try:
        for number in islice(remaining, _MAX_SUBMITTED):
            submit(number)
            running += 1
        while running:
            number, future = ended.get()
            running -= 1
            for following in islice(remaining, 1):
                submit(following)
                running += 1
            yield number, _outcome(future)
    finally:
        stopped.set()


def _report(
    progress: ExtractionProgress, stopped: Event, file: str, done: int, _of_shard: int
) -> None:
    """Told by the task of a thread; ends it between two batches if the run has been cancelled."""
    if stopped.is_set():
        raise CancelledError("the run has ended")
    progress.advance(file, done)


def _outcome(future: PrefectFuture[Any]) -> _Outcome:
    try:
        return future.result(raise_on_failure=False)
    except (Exception, CancelledError) as error:  # of Dask or Ray: its worker died, or all did
        return error


class _Waiting:
    """Says once whom the run is waiting for."""

    def __init__(self) -> None:
        self._said: Sequence[str] = ()

    def __call__(self, busy: Sequence[str]) -> None:
        if busy and list(busy) != self._said:
            more = f" and {len(busy) - 1} more" if len(busy) > 1 else ""
            get_run_logger().info("waiting for another process: %s%s", busy[0], more)
        self._said = list(busy)
