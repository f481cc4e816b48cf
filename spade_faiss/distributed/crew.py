"""Actors that share out batches, and replace each other when one is lost."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from ..errors import SpadeError
from ..images import Frame, Framing, Source, name_of
from .worker import Answer, Recipe, Worker

_AHEAD = 2
"""Batches a worker that are under way or wait to be written."""
_ATTEMPTS = 3
"""Workers that one batch may end, and starts in a row that may fail, before it is given up."""
_PATIENCE = 300.0
"""Seconds without a single worker after which none is hoped for."""


@dataclass(order=True)
class _Task:
    """One batch: images from place `start` on."""

    start: int
    sources: list[Source] = field(compare=False)
    framing: Framing = field(compare=False)
    last: bool = field(compare=False)
    attempts: int = field(default=0, compare=False)
    answer: Answer | None = field(default=None, compare=False)
    dropped: bool = field(default=False, compare=False)


class Crew:
    """Some actors with one recipe.

    A worker or node that ends takes nothing along: its batch, known by the place of its first
    image, goes to another worker, and a new worker is asked for. Answers are handed over in the
    images' order, each once.

    Parameters
    ----------
    recipe : Recipe
    count : int
        Actors.
    share : dict
        What each asks of its node, such as {"num_cpus": 1}.
    """

    def __init__(self, recipe: Recipe, count: int, share: dict[str, float]) -> None:
        import ray

        self._ray = ray
        self._recipe = recipe
        self._actor = ray.remote(**share)(Worker)
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._working: dict[Any, tuple[Any, _Task]] = {}
        self._todo: list[_Task] = []
        self._count = count
        self._failed_starts = 0
        self._last_seen = time.monotonic()
        for _ in range(count):
            self._start()

    def answers(
        self, sources: Iterable[Source], size: int, framing: Framing
    ) -> Iterator[tuple[int, Answer]]:
        """Yield for each batch the place of the image after it and the answer, in order.

        A batch has `size` images that can be decoded, as on one machine. Which these are is
        known only when the batch is answered: where an image failed, that batch and those after
        it are cut anew.
        """
        feed = _Feed(sources)
        tasks: deque[_Task] = deque()
        cut, wanted = 0, size
        try:
            while True:
                while len(tasks) < _AHEAD * self._count:
                    some, last = feed.take(cut, wanted)
                    if not some:
                        break
                    tasks.append(_Task(cut, some, framing, last))
                    heapq.heappush(self._todo, tasks[-1])
                    cut, wanted = cut + len(some), size
                if not tasks:
                    return
                answer = self._answer(tasks[0])
                if answer.filled:
                    task = tasks.popleft()
                    end = task.start + len(task.sources)
                    feed.forget(end)
                    yield end, answer
                    continue
                cut, wanted = tasks[0].start, size + len(answer.problems)
                while tasks:
                    tasks.pop().dropped = True
        finally:
            for task in tasks:
                task.dropped = True

    def dismiss(self) -> None:
        """End the actors."""
        for handle in [*self._idle, *self._starting.values(),
                       *(handle for handle, _ in self._working.values())]:
            self._ray.kill(handle)
        self._idle, self._starting, self._working = [], {}, {}

    def _start(self) -> None:
        handle = self._actor.remote(self._recipe)
        self._starting[handle.prepare.remote()] = handle

    def _answer(self, task: _Task) -> Answer:
        while task.answer is None:
            self._hand_out()
            self._collect()
        return task.answer

    def _hand_out(self) -> None:
        while self._idle and self._todo:
            task = heapq.heappop(self._todo)
            if not task.dropped:
                handle = self._idle.pop()
                ref = handle.answer.remote(task.sources, task.start, task.framing, task.last)
                self._working[ref] = handle, task

    def _collect(self) -> None:
        """Wait for a worker that has started, answered or ended."""
        ray = self._ray
        done, _ = ray.wait([*self._starting, *self._working], timeout=5.0)
        if done or self._working:
            self._last_seen = time.monotonic()
        elif time.monotonic() - self._last_seen > _PATIENCE:
            raise SpadeError("no Ray worker could start in five minutes: the cluster has no room "
                             "for one; add nodes, or lower --ray-workers")
        for ref in done:
            task = None
            if ref in self._starting:
                handle = self._starting.pop(ref)
            else:
                handle, task = self._working.pop(ref)
            try:
                value = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, SpadeError) else SpadeError(
                    f"a Ray worker failed: {type(error.cause).__name__}: {error.cause}"
                ) from None
            except ray.exceptions.RayError as error:
                self._replace(handle, task, str(error).strip().splitlines()[0])
                continue
            if task is None:
                if value is not None:
                    raise SpadeError(value)
                self._failed_starts = 0
            else:
                task.answer = value
            self._idle.append(handle)

    def _replace(self, handle: Any, task: _Task | None, why: str) -> None:
        self._ray.kill(handle)
        if task is None:
            self._failed_starts += 1
        else:
            task.attempts += 1
            if not task.dropped:
                heapq.heappush(self._todo, task)
        if task and task.attempts >= _ATTEMPTS:
            raise SpadeError(
                f"{name_of(task.sources[0], task.start)} and the {len(task.sources) - 1} images "
                f"after it ended {_ATTEMPTS} Ray workers ({why}); lower --batch-size if memory "
                "ran out")
        if self._failed_starts >= _ATTEMPTS * self._count:
            raise SpadeError(f"Ray workers end as they start ({why}); see Ray's logs")
        self._start()


class _Feed:
    """The images that are not done with yet, of a list or a stream."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._coming = iter(sources)
        self._first = 0
        self._held: deque[Source] = deque()

    def take(self, start: int, count: int) -> tuple[list[Source], bool]:
        """Return up to `count` images from place `start` on, and whether no more follow."""
        skip = start - self._first
        missing = skip + count + 1 - len(self._held)
        for source in islice(self._coming, max(missing, 0)):
            place = self._first + len(self._held)
            if isinstance(source, np.ndarray):
                source = Frame(name_of(source, place), source)
            self._held.append(source)
        return list(islice(self._held, skip, skip + count)), len(self._held) <= skip + count

    def forget(self, until: int) -> None:
        """Let go of the images before place `until`."""
        while self._first < until:
            self._held.popleft()
            self._first += 1
