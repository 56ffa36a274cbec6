"""Time several ways to do one thing in turns, with the processor time that each took."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["Timing", "describe_machine", "num_cores", "take_turns", "time_once"]

_LIBRARIES = ("torch", "torchvision", "transformers", "pillow")
_OTHERS_ALLOWED = 0.1


@dataclass(frozen=True, slots=True)
class Timing:
    """What one way took, round by round."""

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    """Of this process and of those that it started."""
    others: tuple[float, ...]
    """Cores that other processes used meanwhile; empty where the system does not tell."""

    def rate(self, num_items: int) -> float:
        """Items a second, the median of the rounds."""
        return num_items / statistics.median(self.seconds)

    def best_rate(self, num_items: int) -> float:
        """Items a second of the quickest round."""
        return num_items / min(self.seconds)

    @property
    def cpu(self) -> float:
        """CPU-seconds of a round, the median."""
        return statistics.median(self.cpu_seconds)

    @property
    def cores(self) -> float:
        """Cores used, the median of the rounds."""
        pairs = zip(self.cpu_seconds, self.seconds, strict=True)
        return statistics.median(cpu / wall for cpu, wall in pairs)

    @property
    def was_disturbed(self) -> bool:
        """Whether other processes used a tenth of a core or more."""
        return bool(self.others) and statistics.median(self.others) > _OTHERS_ALLOWED


def take_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Run every way once a round; what slows the machine for a while slows all of them."""
    found: dict[str, list[Timing]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            found[name].append(time_once(run))
    return {
        name: Timing(
            seconds=tuple(t.seconds[0] for t in times),
            cpu_seconds=tuple(t.cpu_seconds[0] for t in times),
            others=tuple(value for t in times for value in t.others),
        )
        for name, times in found.items()
    }


def time_once(run: Callable[[], object]) -> Timing:
    """One round of one way."""
    busy, cpu, start = _busy_seconds(), _cpu_seconds(), time.perf_counter()
    run()
    wall = time.perf_counter() - start
    cpu = _cpu_seconds() - cpu
    after = _busy_seconds()
    others = () if busy is None or after is None else (max(0.0, after - busy - cpu) / wall,)
    return Timing(seconds=(wall,), cpu_seconds=(cpu,), others=others)


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _busy_seconds() -> float | None:
    """CPU-seconds of the whole machine; None where this process may use a part of it only."""
    lines = Path("/proc/stat").read_text().splitlines()
    if sum(line.startswith("cpu") for line in lines) - 1 != num_cores():
        return None
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, lines[0].split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def describe_machine() -> dict[str, Any]:
    """Processor, cores, and the versions and threads of what computes."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": num_cores(),
        "instructions": [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{library: version(library) for library in _LIBRARIES},
    }
