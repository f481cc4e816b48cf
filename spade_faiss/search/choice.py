"""Which engine is the fastest here: measured once for each kind of search."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from math import log2

logger = logging.getLogger("spade_faiss")

_chosen: dict[tuple[object, ...], str] = {}


def kind(queries: int, gallery: int, channels: int, k: int, *more: object) -> tuple[object, ...]:
    """Return what searches have in common that the same engine serves best."""
    return (round(log2(queries)), round(log2(gallery)), channels, k, *more)


def fastest(of: tuple[object, ...], trials: Mapping[str, Callable[[], object]]) -> str:
    """Return the name of the fastest trial; measured once for each kind of search.

    Each is run twice, and the second run counts: the first pays for what is made once.
    """
    if of not in _chosen:
        seconds = {name: min(_time(run), _time(run)) for name, run in trials.items()}
        _chosen[of] = min(seconds, key=lambda name: seconds[name])
        logger.debug(
            "search: %s for 2^%s queries, 2^%s gallery rows, %s channels, k = %s; in ms: %s",
            _chosen[of], *of[:4],
            ", ".join(f"{name} {1e3 * value:.2f}" for name, value in seconds.items()),
        )
    return _chosen[of]


def _time(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
