"""Which workers run a flow's tasks, and what they are started with; no server, no cluster."""

import importlib.util
import io
import os
import pickle
import sys
import threading
import time
from dataclasses import dataclass

import pytest
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL, temporary_settings

from mmcot_data.encoders import EncoderConfig
from mmcot_data.errors import ExtractionError
from pipelines import extract_features, shard_work
from pipelines.task_runners import WorkersConfig, plan_local_workers, start_workers


@pytest.mark.parametrize(
    ("settings", "explanation"),
    [
        ({"num_workers": 2}, "expected runner dask or ray"),
        ({"address": "tcp://host:8786"}, "expected runner dask or ray"),
        ({"runner": "dask", "address": "tcp://host:8786", "num_workers": 2}, "one of the two"),
        ({"runner": "dask", "address": "host"}, "expected one like tcp://host:8786"),
        ({"runner": "dask", "address": "tcp://host:port"}, "expected one like tcp://host:8786"),
        ({"runner": "dask", "address": "auto"}, "expected one like tcp://host:8786"),
        ({"runner": "ray", "address": "ray://host"}, "expected one like ray://host:10001 or auto"),
        ({"runner": "ray", "num_workers": 2, "device": "cuda:1"}, "expected device auto"),
        ({"runner": "ray", "address": "auto", "device": "cuda:1"}, "expected device auto"),
    ],
)
def test_settings_that_exclude_each_other_are_explained(settings, explanation):
    with pytest.raises(ValueError, match=explanation):
        WorkersConfig(**settings)


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def planned(**settings):
    return plan_local_workers(WorkersConfig(runner="dask", **settings))


def test_each_worker_has_a_gpu_of_its_own(four_gpus, monkeypatch):
    """Catches workers that all take the first one, or one that this process may not use."""
    assert (planned().num, planned().gpus) == (4, ("0", "1", "2", "3"))
    assert planned(num_workers=2).gpus == ("0", "1")
    assert planned(num_workers=2, device="cuda").gpus == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5f0c,7,9")
    assert planned(num_workers=2).gpus == ("3", "GPU-5f0c")


def test_more_workers_than_gpus_are_refused(four_gpus):
    with pytest.raises(ExtractionError, match="num_workers is 5, and there are 4 GPUs"):
        planned(num_workers=5)


def test_workers_without_gpus(four_gpus, monkeypatch):
    assert (planned(device="cpu").num, planned(device="cpu").gpus) == (1, ())
    assert (planned(device="cuda:1").num, planned(device="cuda:1").gpus) == (1, ())
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert (planned().num, planned(num_workers=3).num) == (1, 3)


def test_workers_of_a_machine_divide_its_cores(monkeypatch):
    """Catches n workers that each compute with all cores, and Dask's one thread a worker."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = [planned(num_workers=n, device="cpu").env["OMP_NUM_THREADS"] for n in (1, 3, 99)]
    assert threads == ["16", "5", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert planned(num_workers=3, device="cpu").env["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(("runner", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_missing_extra_is_explained(monkeypatch, runner, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"pipelines.{runner}_workers", raising=False)
    with (
        pytest.raises(ExtractionError, match=rf"needs the package {package}: pip .*\[{runner}\]"),
        start_workers(WorkersConfig(runner=runner)),
    ):
        pass


def test_workers_without_a_server_are_refused():
    """Catches workers that each start a server of their own, and report to that."""
    pytest.importorskip("prefect_dask")
    with (
        temporary_settings({PREFECT_API_URL: None}),
        pytest.raises(ExtractionError, match="PREFECT_API_URL is not set"),
        start_workers(WorkersConfig(runner="dask")),
    ):
        pass


class Loader(pickle._Unpickler):
    """Loads only what another process can import."""

    def find_class(self, module, name):
        assert importlib.util.find_spec(module) is not None, f"{module}.{name}"
        return super().find_class(module, name)


def test_flow_can_be_sent_to_another_process(monkeypatch):
    """Prefect loads the file as the module ``extract_features``, which no worker can import.

    With each task it sends the flow. Catches a class or function of that file in what is sent.
    """
    cloudpickle = pytest.importorskip("cloudpickle")
    flow = load_flow_from_entrypoint(f"{extract_features.__file__}:extract_features")
    name = flow.fn.__module__
    sent = cloudpickle.dumps(flow)
    monkeypatch.delitem(sys.modules, name)
    assert Loader(io.BytesIO(sent)).load().name == "extract-features"


@dataclass(frozen=True)
class Config:
    encoder: EncoderConfig


@dataclass(frozen=True)
class Spec:
    precision: str


@dataclass(frozen=True)
class Work:
    """As much of a ShardTask as matters here."""

    config: Config
    spec: Spec


def work_for(name, precision="fp32"):
    return Work(Config(EncoderConfig(name=name)), Spec(precision))


@pytest.fixture
def loads(monkeypatch):
    """What is loaded, in a process that makes shards of nothing."""
    loads = []

    def load(work):
        encoder = work.config.encoder
        loads.append((encoder.name, encoder.device, work.spec.precision))
        return object()

    monkeypatch.setattr(shard_work, "load_planned_encoder", load)
    monkeypatch.setattr(shard_work, "extract_shard", lambda *_, **__: None)
    yield loads
    shard_work.forget_encoder()


def test_process_loads_an_encoder_once(loads):
    """Until another one is asked for, or the same at another precision."""
    for work in [work_for("detr")] * 3 + [work_for("clip")] * 2 + [work_for("clip", "bf16")]:
        shard_work.make_shard(work)
    assert loads == [
        ("detr", "auto", "fp32"),
        ("clip", "auto", "fp32"),
        ("clip", "auto", "bf16"),
    ]


def test_process_makes_one_shard_at_a_time(loads, monkeypatch):
    """Catches two models' activations in one GPU's memory."""
    running, most = [], []

    def extract(*_, wait):
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()

    monkeypatch.setattr(shard_work, "extract_shard", extract)
    threads = [
        threading.Thread(target=shard_work.make_shard, args=[work_for("detr")]) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1]
    assert len(loads) == 1


def test_task_can_say_which_device_is_its_own(loads):
    """As on Ray, where each task is given a GPU."""
    shard_work.make_shard(work_for("detr"), None, lambda: "cuda:3")
    shard_work.make_shard(work_for("detr"), None, lambda: "cuda:3")
    shard_work.make_shard(work_for("detr"), None, lambda: "cuda:1")
    assert [device for _, device, _ in loads] == ["cuda:3", "cuda:1"]
