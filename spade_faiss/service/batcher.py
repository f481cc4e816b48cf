"""One worker thread that does what arrives together in one go."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, Queue
from threading import Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Gathers items into batches and hands these to a function, one after another.

    Parameters
    ----------
    process : callable
        Given a list of items, returns an answer for each; always called in the same thread.
    size : int
        The most items of a batch.
    wait : float
        Seconds that the first item of a batch waits for others. Items that came while a
        batch was in work are taken at once.
    on_batch : callable, optional
        Is told the number of items of each batch.
    """

    def __init__(
        self,
        process: Callable[[list[Item]], Sequence[Answer]],
        size: int,
        wait: float,
        on_batch: Callable[[int], object] = lambda size: None,
    ) -> None:
        self._process = process
        self._size = size
        self._wait = wait
        self._on_batch = on_batch
        self._queue: Queue[tuple[Item, Future[Answer]] | None] = Queue()
        self._thread = Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many items are in no batch yet."""
        return self._queue.qsize()

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
        more = True
        while more:
            batch, more = self._gather()
            if batch:
                self._on_batch(len(batch))
                self._answer(batch)

    def _gather(self) -> tuple[list[tuple[Item, Future[Answer]]], bool]:
        """Return the next batch, and whether more is to come."""
        batch: list[tuple[Item, Future[Answer]]] = []
        until = 0.0
        while len(batch) < self._size:
            try:
                job = self._queue.get(timeout=max(0.0, until - time.monotonic()) if batch else None)
            except Empty:
                break
            if job is None:
                return batch, False
            until = until or time.monotonic() + self._wait
            if job[1].set_running_or_notify_cancel():
                batch.append(job)
        return batch, True

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
