"""What a benchmark ran on."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

LOW_PRECISION = ("amx_", "avx512_bf16", "avx512_vnni", "avx_vnni")


def processor() -> str:
    """Return the processor's name."""
    return _told("model name") or platform.processor() or platform.machine()


def instructions() -> str:
    """Return what the processor has for products of low precision, where Linux tells."""
    return " ".join(flag for flag in _told("flags").split() if flag.startswith(LOW_PRECISION))


@cache
def _told(key: str) -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
