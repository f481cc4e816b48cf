"""What all requests of a service share: the index, room, threads, and counters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Annotated, TypeVar

from fastapi import Depends, FastAPI, Request

from ..detector.result import Result
from .batcher import Batcher
from .limits import Admission, Limits
from .live import Awaited, LiveIndex, Served
from .metrics import Metrics
from .pictures import Pixels
from .relearning import Relearning

_THREADS = 4
"""For decoding and for pictures; the worker that queries has a thread of its own."""

Made = TypeVar("Made")
_Item = tuple[Served, Pixels]


class State:
    """What the service is about to do."""

    def __init__(self) -> None:
        self.draining = False
        self.requests = 0
        """Requests whose answers are not out yet."""


class Context:
    """What all requests share.

    Parameters
    ----------
    live : LiveIndex
        Is closed when the application shuts down.
    limits : Limits
    state : State
        Says when to drain.
    editable : bool
        Whether clients may give the index another region.

    Attributes
    ----------
    relearning : Relearning
        Does that.
    admission : Admission
        Counts the images in work.
    metrics : Metrics
    """

    def __init__(
        self, live: LiveIndex, limits: Limits, state: State, *, editable: bool = False
    ) -> None:
        self.live = live
        self.limits = limits
        self.state = state
        self.relearning = Relearning(live, editable=editable)
        self.admission = Admission(limits)
        self.metrics = Metrics(
            lambda: self._batcher.waiting, lambda: self.admission.images, self._outdated_seconds
        )
        self._batcher: Batcher[_Item, Result] = Batcher(
            _query_together, limits.batch, limits.wait, self.metrics.batches.observe
        )
        self._threads = ThreadPoolExecutor(_THREADS, "pictures")
        live.on_reload = self._count_reload

    @property
    def working(self) -> bool:
        """Whether images are still queried."""
        return self._batcher.alive

    async def run(self, function: Callable[..., Made], *arguments: object) -> Made:
        """Call a function in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def take(self) -> tuple[Served, Awaited | None]:
        """Return what is in service; see `LiveIndex.take`."""
        return await self.run(self.live.take)

    async def query(self, served: Served, images: Sequence[Pixels]) -> list[Result]:
        """Query images, together with those of other requests."""
        waiting = (self._batcher.submit((served, image)) for image in images)
        return await asyncio.gather(*map(asyncio.wrap_future, waiting))

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Look after the index while an application runs, and end all threads after it."""
        self.live.watch()
        yield
        self._batcher.close()
        self._threads.shutdown()
        await asyncio.to_thread(self.relearning.close)
        self.live.close()

    def _outdated_seconds(self) -> float:
        _, awaited = self.live.take()
        return (datetime.now(UTC) - awaited.since).total_seconds() if awaited else 0.0

    def _count_reload(self, outcome: str) -> None:
        self.metrics.reloads.labels(outcome).inc()


async def context_of(request: Request) -> Context:
    """Return what requests share; `create_app` put it there."""
    context: Context = request.app.state.context
    return context


Shared = Annotated[Context, Depends(context_of)]
"""As an endpoint asks for it."""


def _query_together(items: Sequence[_Item]) -> list[Result]:
    """Query images, in their order; those that follow each other for one index together."""
    return [
        result
        for served, group in groupby(items, key=itemgetter(0))
        for result in served.detector.query([image for _, image in group])
    ]
