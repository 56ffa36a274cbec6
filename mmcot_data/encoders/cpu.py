"""This machine's CPU, and which of torch's float32 matrix products suits it."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

__all__ = ["Cpu", "fp32_matmul", "has_fast_bf16", "read_cpu"]

_CPUINFO = Path("/proc/cpuinfo")
_MAX_ERROR = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class Cpu:
    """What the operating system says about a CPU."""

    name: str
    vendor: str | None
    """``AuthenticAMD``, ``GenuineIntel``, …; None where it isn't told."""
    flags: frozenset[str]
    """Instruction sets, as Linux names them; none on other systems."""


@lru_cache(maxsize=1)
def read_cpu() -> Cpu:
    """The first CPU that Linux lists; on other systems little more than the architecture."""
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.is_file() else []
    facts: dict[str, str] = {}
    for key, colon, value in (line.partition(":") for line in lines):
        if colon:
            facts.setdefault(key.strip(), value.strip())
    return Cpu(
        name=facts.get("model name") or platform.processor() or platform.machine(),
        vendor=facts.get("vendor_id"),
        flags=frozenset((facts.get("flags") or facts.get("Features", "")).split()),
    )


def has_fast_bf16() -> bool:
    """Whether the CPU multiplies bf16 itself; others emulate it, slower than float32."""
    return not read_cpu().flags.isdisjoint({"amx_bf16", "avx512_bf16", "bf16"})


@lru_cache(maxsize=1)
def fp32_matmul() -> Literal["default", "onednn"]:
    """Which library should multiply float32 matrices in linear layers.

    torch's default is MKL, which on CPUs of AMD reaches half of oneDNN's speed. torch calls
    oneDNN where it allows it to compute in bf16; without bf16 matrix units oneDNN computes in
    float32 all the same. That is checked once; the vendor decides rather than a timing, so that
    a machine always gives the same bits.
    """
    cpu = read_cpu()
    if cpu.vendor == "AuthenticAMD" and "avx512f" in cpu.flags and _onednn_error() < _MAX_ERROR:
        return "onednn"
    return "default"


def _onednn_error() -> float:
    """Relative error of a linear layer that may compute in bf16."""
    generator = torch.Generator().manual_seed(0)
    inputs, weights = (torch.randn(256, 512, generator=generator) for _ in range(2))
    exact = inputs.double() @ weights.double().T
    with _bf16_allowed():
        found = torch.nn.functional.linear(inputs, weights).double()
    return float((found - exact).norm() / exact.norm())


@contextmanager
def _bf16_allowed() -> Iterator[None]:
    backends: Any = torch.backends  # "matmul" is added at run time
    matmul = backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
