"""How long work takes here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

_ROUNDS = 5


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def least_seconds(works: Sequence[Callable[[], object]]) -> list[float]:
    """Return the least time that each takes of a few, by turns."""
    rounds = [[seconds_of(work) for work in works] for _ in range(_ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]
