"""How long calls take, and how much memory they need."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile


class Clock:
    """Measures calls on a device.

    Parameters
    ----------
    device : torch.device
        Of the CPU, the clock is the host's and there is no memory to tell of.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_gpu = device.type == "cuda"

    def gpu_seconds(self, call: Callable[[], Any]) -> float:
        """Return the time of a call by CUDA events."""
        if not self._is_gpu:
            return self.host_seconds(call)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def host_seconds(self, call: Callable[[], Any]) -> float:
        """Return the time of a call by the host's clock, until the GPU is done."""
        self._synchronize()
        begin = time.perf_counter()
        call()
        self._synchronize()
        return time.perf_counter() - begin

    def median_seconds(self, call: Callable[[], Any], repeats: int) -> float:
        """Return the median of some times by the host's clock."""
        return statistics.median(self.host_seconds(call) for _ in range(repeats))

    def each_seconds(self, call: Callable[[Any], Any], items: Sequence[Any]) -> list[float]:
        """Return the time of a call for each item, one after another."""
        return [self.host_seconds(partial(call, item)) for item in items]

    def kernels(self, call: Callable[[], Any]) -> dict[str, Any]:
        """Return what the GPU does in a call: kernels and copies, and those that take longest.

        Their times are added up, though some may run beside others.
        """
        if not self._is_gpu:
            return {"skipped": "no GPU"}
        call()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
            call()
            torch.cuda.synchronize()
        times = [
            (event.name[:60], event.time_range.elapsed_us())
            for event in profiler.events() or ()
            if event.device_type.name == "CUDA"
        ]
        total: Counter[str] = Counter()
        for name, spent in times:
            total[name] += spent
        return {
            "launches": len(times),
            "gpu_ms": sum(total.values()) / 1e3,
            "most_us": dict(total.most_common(12)),
        }

    def forget_peak(self) -> None:
        """Begin anew to look for the peak of memory."""
        if self._is_gpu:
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float | None:
        """Return the peak of the GPU memory of tensors, in GiB, since it was last forgotten."""
        return _gib(torch.cuda.max_memory_allocated()) if self._is_gpu else None

    def held_gib(self) -> float | None:
        """Return what is taken of the GPU's memory, in GiB: by tensors, FAISS, CUDA, and others."""
        if not self._is_gpu:
            return None
        free, total = torch.cuda.mem_get_info()
        return _gib(total - free)

    def _synchronize(self) -> None:
        if self._is_gpu:
            torch.cuda.synchronize()


def _gib(size: int) -> float:
    return round(size / 2**30, 3)


def milliseconds(times: Sequence[float]) -> dict[str, float | int]:
    """Return the median and the 95th percentile of times in seconds, and how many they are."""
    return {
        "median_ms": 1e3 * float(np.median(times)),
        "p95_ms": 1e3 * float(np.percentile(times, 95)),
        "images": len(times),
    }
