"""Which engine is the fastest here: measured once for each kind of search."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from math import log2

logger = logging.getLogger("spade_faiss")

Kind = tuple[object, ...]

_QUICK = 0.02
"""Seconds under which one run says too little."""
_chosen: dict[Kind, str] = {}


def kind(queries: int, gallery: int, channels: int, k: int, *more: object) -> Kind:
    """Return what searches have in common that the same engine serves best."""
    return (round(log2(queries)), round(log2(gallery)), channels, k, *more)


def known(of: Kind) -> str | None:
    """Return what was found to be the fastest for a kind of search, if it was measured."""
    return _chosen.get(of)


def fastest(of: Kind, trials: Mapping[str, Callable[[], object]]) -> str:
    """Measure trials, remember the fastest for a kind of search, and return its name."""
    seconds = {name: _time(run) for name, run in trials.items()}
    _chosen[of] = min(seconds, key=lambda name: seconds[name])
    logger.debug(
        "search: %s for 2^%s queries, 2^%s gallery rows, %s channels, k = %s; measured in ms: %s",
        _chosen[of], *of[:4],
        ", ".join(f"{name} {1e3 * value:.2f}" for name, value in seconds.items()),
    )
    return _chosen[of]


def _time(run: Callable[[], object]) -> float:
    least = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - start)
        if least > _QUICK:
            break
    return least
