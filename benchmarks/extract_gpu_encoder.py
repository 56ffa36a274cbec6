"""One encoder on a GPU: end to end, its limits, its stages and its features, setting by setting."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.extract_gpu_budget import Budget
from benchmarks.extract_gpu_stages import (
    plain_forward_seconds,
    scan_seconds,
    time_device,
    transfer_seconds,
    write_seconds,
)
from benchmarks.extract_ours import Ours, Request, decode_all, load_ours
from benchmarks.extract_pictures import Pictures
from benchmarks.extract_timing import num_cores, time_once
from benchmarks.extract_ways import Way, load_peer, read_features
from mmcot_data.encoders.base import Backend, Precision
from mmcot_data.extraction import extract_feature_sets

__all__ = ["Sets", "Setting", "measure_encoder", "measure_together"]

_LEAST_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How ours computes."""

    precision: Precision | Literal["auto"] = "fp32"
    backend: Backend = "torch"
    pad_to: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Sets:
    """Pictures: many for us, fewer for the peers, and a few whose features are compared."""

    many: Pictures
    fewer: Pictures
    few: Pictures


def measure_encoder(
    budget: Budget, request: Request, sets: Sets, settings: Sequence[Setting], folder: Path
) -> None:
    """Peers, decoding alone, and then each of the settings."""
    name = request.model.encoder
    expected_NPD = _expected_features(replace(request, pictures=sets.few), folder)
    _measure_peers(budget, replace(request, pictures=sets.fewer), folder)
    decode_seconds = _measure_decoding(budget, replace(request, pictures=sets.many))
    seconds = _LEAST_SECONDS
    measured: set[Setting] = set()
    for setting in settings:
        values = {"encoder": name, **asdict(setting)}
        if budget.allows(1.5 * seconds, "setting", **values):
            start = time.perf_counter()
            ours = _load(replace(request, pictures=sets.many), setting)
            chosen = replace(setting, precision=ours.config.encoder.precision)
            if setting.precision == "auto":
                budget.emit(
                    "auto",
                    **values,
                    chosen=chosen.precision,
                    error=ours.encoder.describe()["precision_error"],
                    choosing_s=round(ours.choosing_seconds, 2),
                    measured_above=chosen in measured,
                )
            if chosen not in measured:
                _measure_setting(budget, ours, sets, decode_seconds, expected_NPD, folder)
                seconds = time.perf_counter() - start
            measured.add(chosen)


def _load(request: Request, setting: Setting) -> Ours:
    return load_ours(request, setting.precision, setting.backend, setting.pad_to)


def _expected_features(request: Request, folder: Path) -> npt.NDArray[np.float32]:
    """Of transformers' model in float32 on the CPU, one picture at a time."""
    request = replace(request, device="cpu")
    with tempfile.TemporaryDirectory(dir=folder) as out:
        load_peer(Way(kind="loop"), request)(Path(out))
        return read_features(Path(out), request)


def _measure_peers(budget: Budget, request: Request, folder: Path) -> None:
    for kind in ("loop", "pipeline"):
        if not budget.allows(_LEAST_SECONDS, kind, encoder=request.model.encoder):
            continue
        extract = load_peer(Way(kind=kind), request)
        for _ in range(2):  # the first one warms the device up
            with tempfile.TemporaryDirectory(dir=folder) as out:
                timing = time_once(lambda: extract(Path(out)))  # noqa: B023
        budget.emit(
            "peer",
            encoder=request.model.encoder,
            way={"loop": "Multimodal-CoT's loop, on this device", "pipeline": "HF pipeline"}[kind],
            img_s=round(timing.rate(len(request.pictures)), 1),
            cores=round(timing.cores, 2),
        )


def _measure_decoding(budget: Budget, request: Request) -> float:
    """Seconds that reading, decoding and resizing takes on all cores."""
    encoder = load_ours(request, "fp32").encoder
    num = len(request.pictures)
    seconds = float("inf")
    for num_threads in sorted({1, max(1, num_cores() // 2), num_cores()}):
        some = replace(request, pictures=request.pictures.first(num * num_threads // num_cores()))
        timing = time_once(lambda: decode_all(some, encoder, num_threads))  # noqa: B023
        rate = timing.rate(len(some.pictures))
        seconds = min(seconds, num / rate)
        budget.emit(
            "decode alone",
            encoder=request.model.encoder,
            threads=num_threads,
            img_s=round(rate, 1),
            cores=round(timing.cores, 2),
        )
    return seconds


def _measure_setting(
    budget: Budget,
    ours: Ours,
    sets: Sets,
    decode_seconds: float,
    expected_NPD: npt.NDArray[np.float32],
    folder: Path,
) -> None:
    """End to end twice, then the stages by themselves, and the features."""
    request, config = ours.request, ours.config
    device, num = request.device, len(request.pictures)
    precision = config.encoder.precision
    values = {
        "encoder": request.model.encoder,
        "precision": precision,
        "backend": config.encoder.backend,
        "pad_to": config.pad_to,
        "batch_size": config.batch_size,
    }
    _forget_peak(device)
    runs = []
    for _ in range(2):
        with tempfile.TemporaryDirectory(dir=folder) as out:
            runs.append(time_once(lambda: ours.extract(Path(out))))
    total = min(run.seconds[0] for run in runs)
    peak_mib = _peak_mib(device)
    batches = ours.prepare_batches()
    forward = min(time_device(device, lambda: ours.forward(batches)) for _ in range(2))
    model = request.model.load().to(device)
    plain_forward_seconds(model, request.model, batches[:4], device, precision)
    plain = plain_forward_seconds(model, request.model, batches, device, precision)
    stages = {
        "scan": scan_seconds(ours),
        "decode": decode_seconds,
        "transfer": transfer_seconds(ours, batches),
        "forward": forward,
        "write": _write_seconds(ours, folder),
    }
    budget.emit(
        "end to end",
        **values,
        images=num,
        batches=len(batches),
        img_s=[round(num / run.seconds[0], 1) for run in runs],
        cores=[round(run.cores, 2) for run in runs],
        forward_ours_img_s=round(num / forward, 1),
        forward_transformers_img_s=round(num / plain, 1),
        decode_img_s=round(num / decode_seconds, 1),
        of_limit=round(max(min(forward, plain), decode_seconds) / total, 3),
        shares_alone={name: round(seconds / total, 3) for name, seconds in stages.items()},
        peak_gpu_mib=peak_mib,
    )
    budget.emit("features", **values, **_compare(ours, sets.few, expected_NPD, folder))


def measure_together(
    budget: Budget,
    requests: Sequence[Request],
    precision: Precision | Literal["auto"],
    folder: Path,
) -> None:
    """All encoders with one decoding of each picture, beside one after the other."""
    loaded = [load_ours(request, precision) for request in requests]
    encoders = [ours.encoder for ours in loaded]
    seconds = {}
    with tempfile.TemporaryDirectory(dir=folder) as out:
        configs = [replace(ours.config, out=Path(out)) for ours in loaded]
        start = time.perf_counter()
        extract_feature_sets(configs, encoders=encoders)
        seconds["together"] = time.perf_counter() - start
    with tempfile.TemporaryDirectory(dir=folder) as out:
        start = time.perf_counter()
        for ours in loaded:
            ours.extract(Path(out))
        seconds["one after the other"] = time.perf_counter() - start
    budget.emit(
        "all encoders",
        encoders=[request.model.encoder for request in requests],
        precisions=[ours.config.encoder.precision for ours in loaded],
        images=len(requests[0].pictures),
        seconds={name: round(value, 2) for name, value in seconds.items()},
    )


def _write_seconds(ours: Ours, folder: Path) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        return write_seconds(ours, Path(out))


def _forget_peak(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_mib(device: str) -> int | None:
    if torch.device(device).type != "cuda":
        return None
    return round(torch.cuda.max_memory_allocated(device) / 2**20)


def _compare(
    ours: Ours, few: Pictures, expected_NPD: npt.NDArray[np.float32], folder: Path
) -> dict[str, float]:
    """Difference to transformers' model in float32 on the CPU, stored without rounding."""
    request = replace(ours.request, pictures=few)
    same = replace(ours, request=request, config=replace(ours.config, data=few.folder))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        same.extract(Path(out), dtype="float32")
        difference_NPD = read_features(Path(out), request) - expected_NPD
    norm, largest = np.linalg.norm(expected_NPD), np.abs(expected_NPD).max()
    return {
        "relative_error": float(f"{np.linalg.norm(difference_NPD) / norm:.2e}"),
        "largest_error": float(f"{np.abs(difference_NPD).max() / largest:.2e}"),
    }
