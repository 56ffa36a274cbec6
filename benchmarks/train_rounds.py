"""Rounds in which the ways of ``benchmarks.train`` take turns, and what comes out of them."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch

from benchmarks.extract_timing import describe_machine
from benchmarks.train_flops import matmul_peak
from benchmarks.train_process import REFERENCE
from benchmarks.train_task import Request

__all__ = ["Rounds", "Training", "Writing", "take_rounds"]

_STEPS_OF_OURS = 8
_PRECISION = {REFERENCE: "fp32"}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How fast a way trains, over all rounds."""

    tokens_per_second: float
    speedup: float
    """Times the reference's tokens a second."""
    cpu_speedup: float
    """The same by the time of the processor, which other processes disturb less."""
    examples_per_second: float
    padding: float
    """Share of the positions that hold no token."""
    waiting: float
    """Share of the time in which the next batch is made."""
    of_bound: float
    peak_mib: float
    """Private memory, on a GPU that of the device."""
    rounds: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Writing:
    """How fast a way generates, over all rounds."""

    tokens_per_second: float
    speedup: float
    cpu_speedup: float
    rounds: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """What was found."""

    training: Mapping[str, Training]
    writing: Mapping[str, Writing]
    matmul_peak: Mapping[str, float]
    """Operations a second by precision."""

    def to_json(self) -> dict[str, Any]:
        """With a description of the machine."""
        return {**asdict(self), "machine": describe_machine()}


def take_rounds(
    request: Request,
    precisions: Sequence[str],
    *,
    num_rounds: int,
    num_steps: int,
    num_writing_rounds: int,
    num_texts: int,
    num_tokens: int,
) -> Rounds:
    """Let the reference's way and ours take turns; what slows the machine slows all of them.

    Args:
        request: What is measured.
        precisions: Those of ours.
        num_rounds: Rounds of training.
        num_steps: Steps of the reference's way in a round.
        num_writing_rounds: Rounds of generation.
        num_texts: Texts in a round.
        num_tokens: Tokens of a text.
    """
    names = [REFERENCE, *(f"ours, {precision}" for precision in precisions)]
    steps = {name: num_steps * (1 if name == REFERENCE else _STEPS_OF_OURS) for name in names}
    trained: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    written: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    device = torch.device(request.device)
    peaks = dict.fromkeys(_DTYPES, 0.0)
    with ExitStack() as stack:
        ways = {name: stack.enter_context(_Process(name, request)) for name in names}
        for number in range(max(num_rounds, num_writing_rounds)):
            for precision, dtype in _DTYPES.items():
                peaks[precision] = max(peaks[precision], matmul_peak(device, dtype))
            for name, way in ways.items():
                if number < num_rounds:
                    trained[name].append(way.ask(f"train {steps[name]}"))
            for name, way in ways.items():
                if number < num_writing_rounds:
                    written[name].append(way.ask(f"write {num_texts} {num_tokens}"))
    tokens_per_example = ways[REFERENCE].tokens_per_example
    return Rounds(
        training=_summarize_training(trained, peaks, tokens_per_example),
        writing=_summarize_writing(written),
        matmul_peak=peaks,
    )


class _Process:
    """A way in a process of its own, which is ready when this returns."""

    def __init__(self, name: str, request: Request) -> None:
        command = [sys.executable, "-m", "benchmarks.train_process", name, request.to_json()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.tokens_per_example: float = self._read()["tokens_per_example"]

    def ask(self, command: str) -> dict[str, Any]:
        """Have something measured."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with {self._process.wait()}; see above")
        found: dict[str, Any] = json.loads(line)
        return found


def _summarize_training(
    rounds: Mapping[str, list[dict[str, Any]]],
    peaks: Mapping[str, float],
    tokens_per_example: float,
) -> dict[str, Training]:
    speeds = {name: _speed(rows) for name, rows in rounds.items() if rows}
    found = {}
    for name, speed in speeds.items():
        rows = rounds[name]
        seconds = _total(rows, "seconds")
        peak = peaks[_PRECISION.get(name, name.removeprefix("ours, "))]
        found[name] = Training(
            tokens_per_second=speed,
            speedup=speed / speeds[REFERENCE],
            cpu_speedup=_speed(rows, "cpu_seconds") / _speed(rounds[REFERENCE], "cpu_seconds"),
            examples_per_second=speed / tokens_per_example,
            padding=1 - _total(rows, "tokens") / _total(rows, "positions"),
            waiting=_total(rows, "waiting") / seconds,
            of_bound=_total(rows, "flops") / seconds / peak,
            peak_mib=max(row.get("device_peak_mib", row["peak_mib"]) for row in rows),
            rounds=rows,
        )
    return found


def _summarize_writing(rounds: Mapping[str, list[dict[str, Any]]]) -> dict[str, Writing]:
    speeds = {name: _speed(rows) for name, rows in rounds.items() if rows}
    return {
        name: Writing(
            tokens_per_second=speed,
            speedup=speed / speeds[REFERENCE],
            cpu_speedup=_speed(rounds[name], "cpu_seconds")
            / _speed(rounds[REFERENCE], "cpu_seconds"),
            rounds=rounds[name],
        )
        for name, speed in speeds.items()
    }


def _speed(rows: Sequence[dict[str, Any]], seconds: str = "seconds") -> float:
    return _total(rows, "tokens") / _total(rows, seconds)


def _total(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(row[name] for row in rows))
