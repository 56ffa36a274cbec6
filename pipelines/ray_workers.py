"""Workers of a Ray cluster."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from prefect_ray import RayTaskRunner  # type: ignore[import-untyped]
from prefect_ray.context import remote_options  # type: ignore[import-untyped]

from mmcot_data.errors import ExtractionError
from pipelines.task_runners import LocalWorkers, TaskWorkers, WorkersConfig

__all__ = ["start_ray"]

_OBJECT_STORE_NBYTES = 128 * 2**20  # tasks are given and return small records only
_LOCAL_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # by default they give way to any other process
}
_ALL_GPUS_VISIBLE = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}


@contextmanager
def start_ray(config: WorkersConfig, local: LocalWorkers | None) -> Iterator[TaskWorkers]:
    """Connect to a cluster, or start one on this machine for as long as the context lasts.

    Tasks ask for a GPU each where there are any. Ray may give a process another GPU for its next
    task, which CUDA does not take up once it is initialised; so processes see all GPUs, and each
    task looks up which one is its own. They are kept (``max_calls=0``) with what they have loaded.

    Raises:
        ExtractionError: If no cluster can be started, or none answers at the address.
    """
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": _ALL_GPUS_VISIBLE | (local.env if local else {})},
    }
    if local is None:
        options |= {"address": config.address}
    else:
        for name, value in _LOCAL_SETTINGS.items():
            os.environ.setdefault(name, value)
        options |= {
            "address": "local",
            "num_cpus": local.num,
            "num_gpus": len(local.gpus),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_NBYTES,
        }
    try:
        with _same_handler_of_sigterm():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "on this machine" if local else f"at {config.address}"
        raise ExtractionError(f"no Ray cluster can be used {where}: {error}") from error
    try:
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        has_gpus = config.device in ("auto", "cuda") and resources.get("GPU", 0) > 0
        asked = {"num_gpus": 1, "max_calls": 0} if has_gpus else {}
        with remote_options(**asked), RayTaskRunner() as runner:
            yield TaskWorkers(
                runner=runner,
                in_this_process=False,
                find_device=_own_gpu if has_gpus else None,
            )
    finally:
        ray.shutdown()


def _own_gpu() -> str:
    """In a task: the GPU that Ray has given to it."""
    (gpu,) = ray.get_gpu_ids()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"cuda:{visible.split(',').index(str(gpu)) if visible else gpu}"


@contextmanager
def _same_handler_of_sigterm() -> Iterator[None]:
    """Prefect cancels a run by SIGTERM, which Ray would answer in its own way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
