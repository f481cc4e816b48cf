"""What comparisons of methods on images and on video share: options, settings, seconds."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from spade_faiss.errors import SpadeError
from spade_faiss.evaluation.config import versions
from spade_faiss.features import BACKBONES, DEFAULT_BACKBONE, Backbone

try:
    from baselines.method import Baseline
except ModuleNotFoundError as missing:
    sys.exit(f"compare.py: {missing.name} is missing: pip install -e '.[cpu,bench]'")


class Clock:
    """Seconds since it was made: by the wall, and of this process on all cores."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Return both."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def config_of(
    name: str, make: type[Baseline], network: Backbone, budget: str, seed: int
) -> dict[str, Any]:
    """Return what a method's scores depend on, as JSON values."""
    return {
        "method": name,
        "budget": budget,
        "setting": json.loads(json.dumps(asdict(make.budgets[budget]))),  # tuples are lists there
        "backbone": network.name,
        "weights_sha256": network.weights_sha256,
        "seed": seed,
        "device": str(network.device),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "versions": versions(),
    }


def add_options(parser: argparse.ArgumentParser, methods: Collection[str]) -> None:
    """Add the options that all comparisons have."""
    parser.add_argument("--method", action="append", choices=methods, help="may be given again")
    parser.add_argument("--budget", choices=("small", "paper"), default="small")
    parser.add_argument("--backbone", choices=BACKBONES, default=DEFAULT_BACKBONE)
    parser.add_argument("--weights", type=Path, metavar="FILE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="of torch; fewer are faster where others share the cores",
    )
    parser.add_argument("--out", type=Path, default=Path("compare"), metavar="DIR")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def check_options(args: argparse.Namespace) -> None:
    """Take over the number of threads.

    Raises
    ------
    SpadeError
        If it or the seed is out of its range.
    """
    if args.seed < 0 or args.threads < 1:
        raise SpadeError("--seed must be 0 or more, and --threads 1 or more")
    torch.set_num_threads(args.threads)


def note(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr)


def percent(value: float | None) -> str:
    """Return a share of 1 in percent; nothing for None."""
    return "" if value is None else f"{100 * value:.1f}"


def rounded(line: dict[str, Any]) -> dict[str, Any]:
    """Return values, floats to four digits."""
    return {
        key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()
    }
