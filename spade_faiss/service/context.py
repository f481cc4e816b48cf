"""What requests share: room, threads and counters; and those for one index, the index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from math import nan
from operator import attrgetter
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from ..detector.result import Result
from .background import Background
from .batcher import Batcher
from .drifting import Drifting
from .feedback import Feedback
from .history import History
from .limits import Admission, Limits
from .live import Awaited, LiveIndex, Served
from .metrics import IndexMetrics, Metrics
from .pictures import Pixels
from .relearning import Relearning

_THREADS = 4
"""For decoding and for pictures; the worker that queries has a thread of its own."""

Made = TypeVar("Made")


class State:
    """What the service is about to do."""

    def __init__(self) -> None:
        self.draining = False
        self.requests = 0
        """Requests whose answers are not out yet."""


class Resources:
    """What all requests share, whichever index they are for.

    Parameters
    ----------
    limits : Limits
    state : State
        Says when to drain.
    history : History or None
        Where results are kept, if they are.
    several : bool
        Whether the service has several indices.

    Attributes
    ----------
    admission : Admission
        Counts the images in work.
    metrics : Metrics
    """

    def __init__(
        self, limits: Limits, state: State, history: History | None, *, several: bool = False
    ) -> None:
        self.limits = limits
        self.history = history
        self.state = state
        self.admission = Admission(limits)
        self.metrics = Metrics(
            lambda: self.batcher.waiting, lambda: self.admission.images, several=several
        )
        self.batcher: Batcher[_Query, Result] = Batcher(
            _query_together, limits.batch, limits.wait, attrgetter("served")
        )
        self._threads = ThreadPoolExecutor(_THREADS, "pictures")

    @property
    def working(self) -> bool:
        """Whether images are still queried."""
        return self.batcher.alive

    async def run(self, function: Callable[..., Made], *arguments: object) -> Made:
        """Call a function in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def close(self) -> None:
        """End all threads, once everything that was begun is done."""
        self.batcher.close()
        self._threads.shutdown()


class Context:
    """What all requests for one index share.

    Parameters
    ----------
    live : LiveIndex
        Is watched from now on, and closed with this.
    resources : Resources
    name : str, optional
        Of the index, if the service has several.
    editable : bool
        Whether clients may change the index: give it another region, or add images.

    Attributes
    ----------
    kept_as : str
        What the history knows the index by: its name, or that of its folder.
    relearning : Relearning
        Gives it another region.
    feedback : Feedback
        Adds images to it.
    metrics : IndexMetrics
    drifting : Drifting
        Is given all images that were queried.
    history, limits, state, admission
        Of the resources.
    """

    def __init__(
        self,
        live: LiveIndex,
        resources: Resources,
        name: str | None = None,
        *,
        editable: bool = False,
    ) -> None:
        self.live = live
        self.resources = resources
        self.name = name
        self.kept_as = name or live.folder.resolve().name or "index"
        self.history = resources.history
        self.limits = resources.limits
        self.state = resources.state
        self.admission = resources.admission
        self._background = Background(live, editable=editable)
        self.relearning = Relearning(live, self._background)
        self.feedback = Feedback(live, self._background, self.history, self.kept_as)
        self.metrics = IndexMetrics(resources.metrics, name)
        self.metrics.watch(self._outdated_seconds)
        live.on_reload = self.metrics.count_reload
        self.drifting = Drifting(self.metrics.tell_drift)
        self.metrics.tell_drift(nan, nan)

    @property
    def changing(self) -> bool:
        """Whether the index is being changed."""
        return self.relearning.job.working or self.feedback.job.working

    async def run(self, function: Callable[..., Made], *arguments: object) -> Made:
        """Call a function in a thread."""
        return await self.resources.run(function, *arguments)

    async def take(self) -> tuple[Served, Awaited | None]:
        """Return what is in service; see `LiveIndex.take`."""
        return await self.run(self.live.take)

    async def query(self, served: Served, images: Sequence[Pixels]) -> list[Result]:
        """Query images, together with those of other requests."""
        submit = self.resources.batcher.submit
        waiting = (submit(_Query(served, image, self.metrics)) for image in images)
        return await asyncio.gather(*map(asyncio.wrap_future, waiting))

    async def close(self) -> None:
        """End what is done about the index."""
        await asyncio.to_thread(self._background.close)
        await asyncio.to_thread(self.live.close)

    def _outdated_seconds(self) -> float:
        _, awaited = self.live.take()
        return (datetime.now(UTC) - awaited.since).total_seconds() if awaited else 0.0


async def context_of(request: Request) -> Context:
    """Return what requests for the index share; the dependency of its places put it there."""
    context: Context = request.state.context
    return context


async def resources_of(request: Request) -> Resources:
    """Return what all requests share; `create_app` put it there."""
    resources: Resources = request.app.state.resources
    return resources


Shared = Annotated[Context, Depends(context_of)]
"""As an endpoint asks for it."""
Common = Annotated[Resources, Depends(resources_of)]
"""As an endpoint asks for it that is of no index."""


@dataclass(frozen=True, eq=False)
class _Query:
    """An image that is to be compared with an index."""

    served: Served
    image: Pixels
    metrics: IndexMetrics


def _query_together(queries: Sequence[_Query]) -> list[Result]:
    """Query images, in their order, all for one index."""
    first = queries[0]
    first.metrics.count_batch(len(queries))
    return list(first.served.detector.query([query.image for query in queries]))
