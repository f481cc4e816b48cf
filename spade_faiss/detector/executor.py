"""Work in this process; `spade_faiss.distributed` has it done on a cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, tee
from typing import TypeVar

from .._support.stages import Stages
from ..images import Framing, OnError, Source, decode_images, load_images
from .extract import batch_of, images_at_once
from .pipeline import Batch, Done, LazyNetwork, Pipeline
from .settings import Settings

Made = TypeVar("Made")

_AHEAD = 2
"""Batches that a GPU has beside the one whose outcome is waited for."""


class ThisProcess:
    """An `Executor` that does one thing after another, where and when it is asked for."""

    at_once = 1

    def title(self, text: str) -> str:
        """Return what a progress bar is called."""
        return text

    def map_batches(
        self,
        pipeline: Pipeline,
        sources: Iterable[Source],
        framing: Framing,
        of: Callable[[Pipeline, Batch], Iterable[Made]],
        on_error: OnError | None,
    ) -> Iterator[Done[Made]]:
        """Call a function with each batch of images, and yield the outcomes in order.

        On a GPU, work on the next batch has begun before an outcome is yielded.
        """
        _ = pipeline.network  # which may not be the index's: say so before an image is read
        size, ahead = images_at_once(pipeline, framing), 0
        if pipeline.device.type == "cuda" and isinstance(sources, Sequence):
            ahead = _AHEAD  # a stream may be long in bringing the next images
        motion, at_least = pipeline.settings.motion, (1 + ahead) * size
        images = load_images(sources, framing, on_error, motion=motion, at_least=at_least)

        def begun() -> Iterator[Done[Made]]:
            while True:
                with pipeline.stages("features"):
                    loaded = list(islice(images, size))
                if not loaded:
                    return
                batch = batch_of(pipeline, loaded, framing)
                yield Done(of(pipeline, batch), loaded[-1].position + 1)

        yield from in_advance(begun(), ahead)

    def map(
        self, pipeline: Pipeline, calls: Iterable[tuple[Callable[[Pipeline], Made], str]]
    ) -> Iterator[Made]:
        """Yield in order what functions return."""
        for call, _ in calls:
            yield call(pipeline)

    def branches(
        self, sources: Iterable[Source], members: int, on_error: OnError | None
    ) -> list[tuple[Iterable[Source], OnError | None]]:
        """Return the same images for each member, each decoded once, in step with each other."""
        frames = tee(decode_images(sources, on_error), members)
        return [(own, None) for own in frames]

    def of_members(self, members: int) -> ThisProcess:
        """Return itself."""
        return self


def in_advance(values: Iterable[Made], count: int) -> Iterator[Made]:
    """Yield values in order, and ask for so many beyond the one that is yielded.

    Where asking fails, the values before are yielded first.
    """
    waiting: deque[Made] = deque()
    source = iter(values)
    failure: Exception | None = None
    while failure is None:
        try:
            waiting.append(next(source))
        except StopIteration:
            break
        except Exception as error:
            failure = error
        if len(waiting) > count and failure is None:
            yield waiting.popleft()
    yield from waiting
    if failure is not None:
        raise failure


def pipeline_of(settings: Settings) -> Pipeline:
    """Return the pipeline of some settings, of no index, which works in this process."""
    return Pipeline(settings, LazyNetwork.of(settings), ThisProcess(), Stages())
