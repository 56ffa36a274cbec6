"""Workers of a Dask cluster."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import dask.config
from distributed import Nanny, Scheduler, SpecCluster
from prefect import get_run_logger
from prefect_dask.task_runners import DaskTaskRunner

from mmcot_data.errors import ExtractionError
from pipelines.task_runners import LocalWorkers, TaskWorkers, WorkersConfig

__all__ = ["start_dask"]

_HOST = "127.0.0.1"
_CONNECT_SECONDS = 10
_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"  # of workers, before they import anything
_NO_PLUGINS = {"PREFECT_PLUGINS_ENABLED": "false"}  # they can't be loaded in an event loop


@contextmanager
def start_dask(config: WorkersConfig, local: LocalWorkers | None) -> Iterator[TaskWorkers]:
    """Connect to a cluster, or start one on this machine for as long as the context lasts.

    Whoever runs a cluster starts its workers with ``--nthreads 1``, each with one GPU in
    CUDA_VISIBLE_DEVICES.

    Raises:
        ExtractionError: If no cluster answers at the address.
    """
    if local is not None:
        with (
            _errors_only(),
            _local_cluster(local) as cluster,
            DaskTaskRunner(cluster=cluster) as runner,
        ):
            yield TaskWorkers(runner=runner, in_this_process=False)
        return
    connect = {"timeout": _CONNECT_SECONDS}
    with _errors_only(), DaskTaskRunner(address=config.address, client_kwargs=connect) as runner:
        try:
            workers = runner.client.scheduler_info(n_workers=-1)["workers"]
        except OSError as error:
            raise ExtractionError(
                f"what answers at {config.address} is no Dask scheduler of this version: {error}"
            ) from error
        if not workers:
            get_run_logger().warning("%s has no workers yet: waiting for them", config.address)
        yield TaskWorkers(runner=runner, in_this_process=False)


def _local_cluster(local: LocalWorkers) -> SpecCluster:
    """Processes that end with this one, however it ends; each makes one shard at a time.

    They have no limit of memory: Dask would divide the machine's among its cores, and kill a
    worker that loads a model into more than its share.
    """
    common = {
        "host": _HOST,
        "nthreads": 1,
        "memory_limit": 0,
        "dashboard": False,
    }
    env = local.env | _NO_PLUGINS
    gpus = local.gpus or (None,) * local.num
    return SpecCluster(  # type: ignore[no-untyped-call]
        scheduler={
            "cls": Scheduler,
            "options": {"host": _HOST, "port": 0, "dashboard": False, "dashboard_address": ":0"},
        },
        workers={
            number: {
                "cls": Nanny,
                "options": common
                | {"env": env | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})},
            }
            for number, gpu in enumerate(gpus)
        },
    )


@contextmanager
def _errors_only() -> Iterator[None]:
    """Dask tells of each connection, and warns of a worker that takes seconds to end."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with dask.config.set({f"{_ENVIRONMENT}.DASK_LOGGING__DISTRIBUTED": "error"}):
            yield
    finally:
        logger.setLevel(level)
