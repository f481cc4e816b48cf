"""How long each stage of the work takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Adds up the seconds that stages take.

    Attributes
    ----------
    seconds : dict of str to float
        By stage, in the order of first use.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time spent in a `with` block towards a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds that were spent elsewhere towards a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
