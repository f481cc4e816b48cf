"""The GPU itself, and what searches on it."""

from __future__ import annotations

import operator
import os
import platform
import statistics
from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.machine import processor

from .running import one_line
from .setting import Result, Setting


def device_part(setting: Setting) -> Iterator[Result]:
    """Say what the GPU is and how fast it multiplies."""
    result: Result = {"part": "device", "torch": torch.__version__}
    result["python"] = platform.python_version()
    result["host"] = processor()
    result["host_cores"] = os.cpu_count()
    try:
        import triton

        result["triton"] = triton.__version__
    except ImportError as error:
        result["triton"] = one_line(error)
    result["faiss"], gpus = faiss_kind()
    result["faiss_gpus"] = gpus
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        result["gpu"] = properties.name
        result["multiprocessors"] = properties.multi_processor_count
        result["memory_gib"] = round(properties.total_memory / 2**30, 1)
        result["cuda"] = torch.version.cuda
    n = setting.sized(8192, 256)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        a, b = (torch.randn(n, n, device=setting.device).to(dtype) for _ in range(2))
        for _ in range(3):
            a @ b
        times = [setting.clock.gpu_seconds(partial(operator.matmul, a, b)) for _ in range(9)]
        name = str(dtype).removeprefix("torch.")
        result[f"{name}_tflops"] = round(2 * n**3 / statistics.median(times) / 1e12, 1)
    yield result


def faiss_kind() -> tuple[str, int]:
    """Return faiss's version and how many GPUs it can use."""
    try:
        import faiss
    except ImportError:
        return "not installed", 0
    if not hasattr(faiss, "StandardGpuResources"):
        return f"{faiss.__version__}, without GPU", 0
    return faiss.__version__, faiss.get_num_gpus()


def faiss_place() -> str:
    """Return which FAISS searches, and on what."""
    kind, gpus = faiss_kind()
    return f"FAISS {kind.partition(',')[0]} on the {'GPU' if gpus else 'CPU'}"
