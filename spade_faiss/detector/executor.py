"""Work in this process; `spade_faiss.distributed` has it done on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, tee
from typing import TypeVar

from .._support.stages import Stages
from ..images import Framing, OnError, Source, decode_images, load_images
from .extract import batch_of, images_at_once
from .pipeline import Batch, Done, LazyNetwork, Pipeline
from .settings import Settings

Made = TypeVar("Made")


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
        """Call a function with each batch of images, and yield the outcomes in order."""
        _ = pipeline.network  # which may not be the index's: say so before an image is read
        images = load_images(sources, framing, on_error, motion=pipeline.settings.motion)
        while True:
            with pipeline.stages("features"):
                loaded = list(islice(images, images_at_once(pipeline, framing)))
            if not loaded:
                return
            batch = batch_of(pipeline, loaded, framing)
            yield Done(of(pipeline, batch), loaded[-1].position + 1)

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


def pipeline_of(settings: Settings) -> Pipeline:
    """Return the pipeline of some settings, of no index, which works in this process."""
    return Pipeline(settings, LazyNetwork.of(settings), ThisProcess(), Stages())
