"""The GPU that the kernels run on, or Triton's interpreter in its stead."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch


def interpreted() -> bool:
    """Say whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def multiprocessors(device: torch.device) -> int:
    """Return how many multiprocessors a GPU has; the CPU counts as one."""
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Make a GPU the one that kernels are started on."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
