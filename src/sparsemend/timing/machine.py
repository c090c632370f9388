"""What machine this is, for tables of times."""

from __future__ import annotations

import platform
from pathlib import Path

from sparsemend.runtime import instruction_sets

_CPUINFO = Path("/proc/cpuinfo")


def describe_machine() -> str:
    """Processor and the best instruction set of the kernels."""
    name = _field("model name") or platform.processor() or platform.machine()
    sets = instruction_sets()
    return f"{name}, {sets[0] if sets else 'kernels not built'}"


def has_amx() -> bool:
    """Whether dense bfloat16 products run on a matrix unit of their own."""
    return "amx_bf16" in _field("flags").split()


def _field(name: str) -> str:
    """A line of Linux's description of the processor; empty elsewhere."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
