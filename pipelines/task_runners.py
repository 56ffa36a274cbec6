"""What runs a flow's tasks: a thread of its process, or workers of Dask or Ray, here or elsewhere.

A flow enters a runner and submits to it (``runner.submit``), instead of being declared with one:
the runner is then a parameter of the run, all tasks stand in the one graph of that run, and
dask and ray are imported only where they are asked for. A subflow with another runner would be a
second run to look at, with the plan among its recorded parameters.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from prefect.settings import PREFECT_API_URL
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from mmcot_data.errors import ExtractionError, how_to_install

__all__ = [
    "LocalWorkers",
    "RunnerName",
    "TaskWorkers",
    "WorkersConfig",
    "plan_local_workers",
    "start_workers",
]

RunnerName = Literal["threads", "dask", "ray"]

_CONNECT_SECONDS = 5.0
_AUTO = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkersConfig:
    """Which workers are to run the tasks.

    Raises:
        ValueError: If settings exclude each other.
    """

    runner: RunnerName = "threads"
    address: str | None = None
    """Of a cluster that runs: ``tcp://host:8786`` of Dask; ``ray://host:10001`` of Ray, or
    ``auto`` for one on this machine. None starts a cluster here, and ends it."""
    num_workers: int | None = None
    """Of a cluster that is started; None is one a GPU, or one in all."""
    device: str = "auto"
    """That the tasks use, as ``EncoderConfig`` takes it."""

    def __post_init__(self) -> None:
        if self.runner == "threads" and not (self.address is None and self.num_workers is None):
            raise ValueError(
                "address and num_workers are of a cluster, and runner is threads, which is one "
                "worker in the flow's own process: expected runner dask or ray with them"
            )
        if self.address is not None:
            if self.num_workers is not None:
                raise ValueError(
                    f"num_workers is of a cluster that is started, and address is {self.address}, "
                    "a cluster that has its workers: expected one of the two"
                )
            _check_address(self.runner, self.address)
        if ":" in self.device and (self.address is not None or (self.num_workers or 1) > 1):
            raise ValueError(
                f"device is {self.device}, one GPU, for several workers: expected device auto, "
                "which gives each worker a GPU of its own, or num_workers 1"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalWorkers:
    """The workers of a cluster that is started on this machine."""

    num: int
    gpus: tuple[str, ...]
    """For CUDA_VISIBLE_DEVICES, one a worker; empty where the workers choose for themselves."""
    env: dict[str, str]
    """Environment variables of each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskWorkers:
    """Workers that have been started."""

    runner: TaskRunner[Any]
    """Takes tasks by ``submit``."""
    in_this_process: bool
    """Whether a task can be given what can't be pickled."""
    find_device: Callable[[], str] | None = None
    """Says in a task which device it is to use, if that differs between tasks."""


@contextmanager
def start_workers(config: WorkersConfig) -> Iterator[TaskWorkers]:
    """Start the workers, or connect to them, for as long as the context lasts.

    Raises:
        ExtractionError: If the packages are not installed, the cluster can't be reached, there are
            fewer GPUs than workers, or the workers would have no server to report to.
    """
    if config.runner == "threads":
        thread: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1)
        with thread:
            yield TaskWorkers(runner=thread, in_this_process=True)
        return
    local = None
    if config.address is None:
        local = plan_local_workers(config)
    elif config.address != _AUTO:
        _check_reachable(config.runner, config.address)
    try:
        if config.runner == "dask":
            from pipelines.dask_workers import start_dask as start
        else:
            from pipelines.ray_workers import start_ray as start
    except ModuleNotFoundError as error:
        raise ExtractionError(
            f"the runner {config.runner} needs the package {error.name}: "
            f"{how_to_install(config.runner)}"
        ) from error
    if not PREFECT_API_URL.value():
        raise ExtractionError(
            "workers in other processes report to Prefect's server, and PREFECT_API_URL is not "
            "set: start one with `prefect server start`, and set PREFECT_API_URL to its address, "
            "such as http://127.0.0.1:4200/api, which every worker must reach"
        )
    with start(config, local) as workers:
        yield workers


def plan_local_workers(config: WorkersConfig) -> LocalWorkers:
    """How many workers to start here, and with what.

    Raises:
        ExtractionError: If there are fewer GPUs than workers.
    """
    gpus = _visible_gpus() if config.device in ("auto", "cuda") else ()
    num = config.num_workers or len(gpus) or 1
    if gpus and num > len(gpus):
        raise ExtractionError(
            f"num_workers is {num}, and there are {len(gpus)} GPUs: expected no more workers than "
            "GPUs, for each has one of its own; or set device to cpu"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (cores or 1) // num))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return LocalWorkers(num=num, gpus=gpus[:num], env=dict.fromkeys(names, threads))


def _visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    number = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(number)]
    return tuple(names[:number])


def _check_address(runner: RunnerName, address: str) -> None:
    if runner == "ray" and address == _AUTO:
        return
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        complete = place.hostname is not None and place.port is not None
    except ValueError:  # the port is no number
        complete = False
    if not complete:
        expected = {"dask": "tcp://host:8786", "ray": "ray://host:10001 or auto"}.get(runner)
        raise ValueError(f"address is {address!r}, expected one like {expected}")


def _check_reachable(runner: RunnerName, address: str) -> None:
    """Find out in seconds what the libraries find out in up to a minute."""
    place = urlsplit(address if "://" in address else f"//{address}")
    assert place.hostname is not None
    assert place.port is not None
    try:
        socket.create_connection((place.hostname, place.port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise ExtractionError(
            f"no {runner.capitalize()} cluster can be reached at {address}: {error}. Start it, "
            "correct the address, or leave the address out to start a cluster on this machine"
        ) from error
