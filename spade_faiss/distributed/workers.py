"""Actors that share out tasks, and replace each other when one is lost."""

from __future__ import annotations

import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Condition, Thread
from typing import Any

from .._support.memory import is_shortage
from ..errors import SpadeError
from .worker import PipelineSpec, Setting, Worker

_AHEAD = 2
"""Tasks a worker that are under way or wait to be taken, of all streams together."""
ATTEMPTS = 3
"""Workers that one task may end, and starts in a row that may fail, before it is given up."""
_PATIENCE = 300.0
"""Seconds without a single worker after which none is hoped for."""
_LOOK = 2.0
"""Seconds after which a thread that waits for Ray looks whether it still should."""


@dataclass(order=True)
class Task:
    """A function that some worker is to call with a pipeline.

    Attributes
    ----------
    number : int
        Earlier tasks come first, and so does what comes back from a lost worker.
    key : str
        Of the spec.
    spec : list of one ObjectRef
        A worker that knows it does not fetch it.
    call : callable
    what : str
        What it is about, for a person.
    """

    number: int
    key: str = field(compare=False)
    spec: list[Any] = field(compare=False)
    call: Callable[[Any], object] = field(compare=False)
    what: str = field(compare=False)
    attempts: int = field(default=0, compare=False)
    dropped: bool = field(default=False, compare=False)
    answer: Future[Any] = field(default_factory=Future, compare=False)


class Workers:
    """Some actors that serve any number of pipelines, and of threads that ask, at once.

    A worker or node that ends takes nothing along: its task goes to another worker, and a new
    worker is asked for.

    Parameters
    ----------
    setting : Setting
    size : int
        Actors; they are started with the first stream.
    share : dict
        What each asks of its node, such as {"num_cpus": 1}.
    cores : int
        What the cluster has, to decode images with.
    """

    def __init__(self, setting: Setting, size: int, share: dict[str, float], cores: int) -> None:
        import ray

        self.setting = setting
        self.size = size
        self.cores = cores
        self._ray = ray
        self._actor = ray.remote(**share)(Worker)
        self._numbers = count()
        self._changed = Condition()
        self._todo: list[Task] = []
        self._over: SpadeError | None = None
        self._threads: list[Thread] = []
        self.handles: list[Any] = []
        self._serving = 0
        self._streams = 0
        self._failed_starts = 0
        self._last_seen = 0.0

    # For those who ask --------------------------------------------------------------------

    def put(self, value: object) -> list[Any]:
        """Have a value kept by Ray; it is in a list so that Ray does not fetch it unasked."""
        return [self._ray.put(value)]

    @contextmanager
    def stream(self, spec: PipelineSpec) -> Iterator[Stream]:
        """Give a way to have tasks of one pipeline done; those not taken at the end are dropped."""
        with self._changed:
            self._streams += 1
            if not self._threads:
                self._last_seen = time.monotonic()
                self._threads = [Thread(target=self._keep, daemon=True) for _ in range(self.size)]
                for thread in self._threads:
                    thread.start()
        stream = Stream(self, spec.key, self.put(spec))
        try:
            yield stream
        finally:
            stream.drop()
            with self._changed:
                self._streams -= 1

    @property
    def ahead(self) -> int:
        """Tasks that each stream may have under way or waiting."""
        return max(_AHEAD, _AHEAD * self.size // max(self._streams, 1))

    def submit(self, key: str, spec: list[Any], call: Callable[[Any], object], what: str) -> Task:
        """Have a task done some time."""
        with self._changed:
            if self._over:
                raise self._over
            task = Task(next(self._numbers), key, spec, call, what)
            self._todo.append(task)
            self._changed.notify()
        return task

    def dismiss(self) -> None:
        """End the actors; whoever waits for an answer is told."""
        self._end(SpadeError("the Ray workers were dismissed"))
        for handle in [*self.handles]:
            self._ray.kill(handle)
        for thread in self._threads:
            thread.join()

    def _end(self, why: SpadeError) -> None:
        with self._changed:
            self._over = self._over or why
            todo, self._todo = self._todo, []
            self._changed.notify_all()
        for task in todo:
            task.answer.set_exception(self._over)

    # One thread an actor ------------------------------------------------------------------

    def _keep(self) -> None:
        """Keep one actor, or another in its place, until the workers are dismissed."""
        try:
            while not self._over:
                self._serve()
        except SpadeError as error:
            self._end(error)
        except Exception as error:
            self._end(SpadeError(f"Ray failed: {type(error).__name__}: {error}"))

    def _serve(self) -> None:
        """Start an actor and give it one task after another, until it ends."""
        ray = self._ray
        handle = self._actor.remote(self.setting)
        self.handles.append(handle)
        task: Task | None = None
        started = begun = False
        try:
            self._started(handle)
            started = True
            key = ""
            while task := self._next(key):
                begun = False
                self._get(handle.is_there.remote())  # it may have ended while there was no task
                begun = True
                key = task.key
                try:
                    task.answer.set_result(self._get(handle.do.remote(key, task.spec, task.call)))
                except ray.exceptions.RayTaskError as error:
                    task.answer.set_exception(as_spade_error(error.cause))
                except ray.exceptions.RayError:
                    raise
                except Exception as error:  # Ray cannot send the task
                    task.answer.set_exception(as_spade_error(error))
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self._lost(task, lines[0], started=started, begun=begun)
        finally:
            if started:
                with self._changed:
                    self._serving -= 1
            self.handles.remove(handle)
            ray.kill(handle)

    def _started(self, handle: Any) -> None:
        """Wait until an actor is ready; count it."""
        ref = handle.prepare.remote()
        while True:
            try:
                why = self._ray.get(ref, timeout=_LOOK)
                break
            except self._ray.exceptions.GetTimeoutError:
                if self._over:
                    raise
                self._check_patience()
        if why is not None:
            raise SpadeError(why)
        with self._changed:
            self._serving += 1
            self._failed_starts = 0

    def _check_patience(self) -> None:
        with self._changed:
            now = time.monotonic()
            if self._serving:
                self._last_seen = now
            elif now - self._last_seen > _PATIENCE:
                raise SpadeError(
                    "no Ray worker could start in five minutes: the cluster has no "
                    "room for one; add nodes, or lower `ray_workers`"
                )

    def _next(self, key: str) -> Task | None:
        """Wait for the earliest task, of the same pipeline as the last if there is one."""
        with self._changed:
            while not self._over:
                self._todo = [task for task in self._todo if not task.dropped]
                if self._todo:
                    same = (task for task in self._todo if task.key == key)
                    task = next(same, self._todo[0])
                    self._todo.remove(task)
                    return task
                self._changed.wait()
        return None

    def _get(self, ref: Any) -> Any:
        while True:
            try:
                return self._ray.get(ref, timeout=_LOOK)
            except self._ray.exceptions.GetTimeoutError:
                if self._over:
                    raise

    def _lost(self, task: Task | None, why: str, *, started: bool, begun: bool) -> None:
        """Take note that an actor ended, and that its task is to be done again."""
        with self._changed:
            if self._over:
                if task:
                    task.answer.set_exception(self._over)
                return
            if not started:
                self._failed_starts += 1
                if self._failed_starts >= ATTEMPTS * self.size:
                    raise SpadeError(f"Ray workers end as they start ({why}); see Ray's logs")
            if not self._serving - started:
                self._last_seen = time.monotonic()
            if task is None or task.answer.done():
                return
            task.attempts += begun
            if task.attempts < ATTEMPTS:
                insort(self._todo, task)
                self._changed.notify()
                return
        task.answer.set_exception(
            SpadeError(
                f"{task.what} ended {ATTEMPTS} Ray workers ({why}); lower `batch_size` if memory "
                "ran out"
            )
        )


class Stream:
    """Tasks of one pipeline whose answers are taken in order."""

    def __init__(self, workers: Workers, key: str, spec: list[Any]) -> None:
        self._workers = workers
        self._key = key
        self._spec = spec
        self.tasks: deque[Task] = deque()

    @property
    def has_room(self) -> bool:
        """Whether another task may be submitted before an answer is taken."""
        return len(self.tasks) < self._workers.ahead

    def submit(self, call: Callable[[Any], object], what: str) -> None:
        """Have another task done."""
        self.tasks.append(self._workers.submit(self._key, self._spec, call, what))

    def take(self) -> Any:
        """Wait for the first task's answer, and take it.

        Raises
        ------
        SpadeError
            If the task cannot be done.
        """
        return self.tasks.popleft().answer.result()

    def drop(self) -> None:
        """Have no more of the tasks done."""
        while self.tasks:
            self.tasks.pop().dropped = True

    def all(self, calls: Iterable[tuple[Callable[[Any], object], str]]) -> Iterator[Any]:
        """Yield the answers of calls, in their order."""
        for call, what in calls:
            while not self.has_room:
                yield self.take()
            self.submit(call, what)
        while self.tasks:
            yield self.take()


def as_spade_error(cause: BaseException) -> SpadeError:
    """Return in one line what was raised in a worker."""
    if isinstance(cause, SpadeError):
        return cause
    if is_shortage(cause):
        return SpadeError(
            "a Ray worker ran out of memory: lower `batch_size`, `resize` or `k`, or "
            "raise `max_memory`"
        )
    return SpadeError(f"a Ray worker failed: {type(cause).__name__}: {cause}")
