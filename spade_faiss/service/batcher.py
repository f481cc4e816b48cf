"""One worker thread that does what arrives together in one go."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from queue import Empty, Queue
from threading import Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Gathers items of a kind into batches and hands these to a function, one after another.

    The item that has waited longest is in the next batch.

    Parameters
    ----------
    process : callable
        Given a list of items, returns an answer for each; always called in the same thread.
    size : int
        The most items of a batch.
    wait : float
        Seconds that the first item of a batch waits for others. Items that came while a
        batch was in work are taken at once, and nothing is waited for while others wait.
    kind : callable, optional
        Returns what the items of a batch have in common. By default all are of one kind.
    """

    def __init__(
        self,
        process: Callable[[list[Item]], Sequence[Answer]],
        size: int,
        wait: float,
        kind: Callable[[Item], Hashable] = lambda item: None,
    ) -> None:
        self._process = process
        self._size = size
        self._wait = wait
        self._kind = kind
        self._queue: Queue[tuple[Item, Future[Answer]] | None] = Queue()
        self._passed: deque[tuple[Item, Future[Answer]]] = deque()
        self._ending = False
        self._thread = Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many items are in no batch yet."""
        return self._queue.qsize() + len(self._passed)

    @property
    def alive(self) -> bool:
        """Whether items are still worked on."""
        return self._thread.is_alive()

    def submit(self, item: Item) -> Future[Answer]:
        """Queue an item; its answer, or what `process` raised for it, comes as a future."""
        future: Future[Answer] = Future()
        self._queue.put((item, future))
        return future

    def close(self) -> None:
        """Wait until everything that was submitted is done, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            batch = self._gather()
            if batch:
                self._answer(batch)
            elif self._ending:
                return
            del batch  # else what it is of would stay in memory until the next one comes

    def _gather(self) -> list[tuple[Item, Future[Answer]]]:
        """Return the next batch; none if all that will ever come is done."""
        batch: list[tuple[Item, Future[Answer]]] = []
        passed, self._passed = self._passed, deque()
        until = 0.0
        while len(batch) < self._size:
            if passed:
                job: tuple[Item, Future[Answer]] | None = passed.popleft()
            else:
                try:
                    job = self._next(batch, until)
                except Empty:
                    break
            if job is None:
                self._ending = True
                continue
            if batch and self._kind(job[0]) != self._kind(batch[0][0]):
                self._passed.append(job)
                continue
            until = until or time.monotonic() + self._wait
            if job[1].set_running_or_notify_cancel():
                batch.append(job)
        self._passed.extend(passed)
        return batch

    def _next(
        self, batch: list[tuple[Item, Future[Answer]]], until: float
    ) -> tuple[Item, Future[Answer]] | None:
        """Return what was submitted next, if it comes in time.

        Raises
        ------
        Empty
        """
        if self._ending or self._passed:
            return self._queue.get_nowait()
        return self._queue.get(timeout=max(0.0, until - time.monotonic()) if batch else None)

    def _answer(self, batch: list[tuple[Item, Future[Answer]]]) -> None:
        try:
            answers = self._process([item for item, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for job in batch:  # the others are not to suffer from one
                self._answer([job])
