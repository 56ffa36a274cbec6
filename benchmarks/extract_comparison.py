"""All ways to extract with one encoder, in turns."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.extract_ours import Ours, Request, decode_all, load_ours
from benchmarks.extract_tables import Comparison, Row
from benchmarks.extract_timing import take_turns
from benchmarks.extract_ways import (
    Extract,
    Way,
    load_peer,
    measure_memory,
    plain_forward,
    read_features,
)

__all__ = ["compare"]

_PLAIN = "forward: transformers, fp32"
_DECODE = "decode"
_LOOP = "Multimodal-CoT's loop"
_PIPELINE = "HF pipeline"


def compare(
    request: Request, ways: Sequence[Way], *, rounds: int, num_threads: int, folder: Path
) -> Comparison:
    """Load everything, check the features, time all in turns, and measure the memory.

    Args:
        request: What is extracted.
        ways: Our settings that are compared.
        rounds: Rounds of timing, after one that checks the features.
        num_threads: That compute, and that decode in the limit.
        folder: For files of the benchmark.
    """
    loaded, choices = _load_ours(request, ways)
    batches = next(iter(loaded.values())).prepare_batches()
    decoder = next(iter(loaded.values())).encoder
    extracts: dict[str, Extract] = {
        _LOOP: load_peer(Way(kind="loop"), request),
        _PIPELINE: load_peer(Way(kind="pipeline"), request),
        **{name: ours.extract for name, ours in loaded.items()},
    }
    runs: dict[str, Callable[[], object]] = {_PLAIN: plain_forward(request, batches)}
    for name, ours in loaded.items():
        runs[_forward(name)] = partial(ours.forward, batches)
    runs[_DECODE] = partial(decode_all, request, decoder, num_threads)
    for name, extract in extracts.items():
        runs[name] = partial(_extract_anew, extract, folder)
    errors = _compare_features(request, extracts, loaded, folder)
    for name in (_PLAIN, _DECODE, *map(_forward, loaded)):
        runs[name]()
    timings = take_turns(runs, rounds)
    peaks = {
        name: measure_memory(way, request, num_threads, folder)
        for name, way in _as_ways(loaded).items()
    }
    limits = {_LOOP: _PLAIN, _PIPELINE: _PLAIN, **{name: _forward(name) for name in loaded}}
    rows = {
        name: Row(
            timing=timing,
            limit=limits.get(name),
            memory_mib=peaks.get(name),
            relative_error=errors[name][0] if name in errors else None,
            largest_error=errors[name][1] if name in errors else None,
        )
        for name, timing in timings.items()
    }
    return Comparison(
        encoder=request.model.encoder,
        num_images=len(request.pictures),
        num_threads=num_threads,
        rows=rows,
        decode=_DECODE,
        reference=_LOOP,
        notes=[*_notes(request, len(batches)), *choices],
    )


def _load_ours(request: Request, ways: Sequence[Way]) -> tuple[dict[str, Ours], list[str]]:
    """By name, each precision of a backend once; and what ``auto`` chose, in sentences."""
    loaded: dict[str, Ours] = {}
    notes = []
    for way in ways:
        ours = load_ours(request, way.precision, way.backend)
        backend = "" if way.backend == "torch" else f", {way.backend}"
        name = f"ours, {ours.config.encoder.precision}{backend}"
        if way.precision == "auto":
            notes.append(f"{way.backend}, auto: {_explain_choice(ours)}")
        loaded.setdefault(name, ours)
    return loaded, notes


def _explain_choice(ours: Ours) -> str:
    chosen, seconds = ours.config.encoder.precision, f"{ours.choosing_seconds:.1f} s"
    if chosen == "fp32":
        return f"fp32, since nothing faster is near enough; found in {seconds}, not counted above"
    error = ours.encoder.describe()["precision_error"]
    return f"{chosen}, off by {error:.1e} on a batch; found in {seconds}, not counted above"


def _as_ways(loaded: Mapping[str, Ours]) -> dict[str, Way]:
    ways = {_LOOP: Way(kind="loop"), _PIPELINE: Way(kind="pipeline")}
    for name, ours in loaded.items():
        encoder = ours.config.encoder
        ways[name] = Way(kind="ours", precision=encoder.precision, backend=encoder.backend)
    return ways


def _forward(name: str) -> str:
    return f"forward: {name}"


def _extract_anew(extract: Extract, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        extract(Path(out))


def _compare_features(
    request: Request, extracts: Mapping[str, Extract], loaded: Mapping[str, Ours], folder: Path
) -> dict[str, tuple[float, float]]:
    """Relative difference of each way's features to the loop's, as a norm and at most.

    Ours are stored in float32 for this, so that what storing rounds off is not counted.
    """
    expected_NPD: npt.NDArray[np.float32] | None = None
    errors = {}
    for name, extract in extracts.items():
        with tempfile.TemporaryDirectory(dir=folder) as out:
            if name in loaded:
                loaded[name].extract(Path(out), dtype="float32")
            else:
                extract(Path(out))
            features_NPD = read_features(Path(out), request)
        if expected_NPD is None:
            expected_NPD = features_NPD
        difference_NPD = features_NPD - expected_NPD
        errors[name] = (
            float(np.linalg.norm(difference_NPD) / np.linalg.norm(expected_NPD)),
            float(np.abs(difference_NPD).max() / np.abs(expected_NPD).max()),
        )
    return errors


def _notes(request: Request, num_batches: int) -> list[str]:
    size = len(request.pictures) / num_batches
    notes = [f"{size:.1f} pictures in a batch of the plan on average, {num_batches} in all"]
    if request.model.encoder == "detr":
        notes.append("HF pipeline: one picture at a time, its batches need pictures of one size")
    if request.model.encoder == "vit":
        notes.append("HF pipeline: crops some pictures one pixel off, because it rounds down")
    return notes
