"""Work on a cluster: batches of images, and searches of a calibration, go to actors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice, tee
from typing import TypeVar

from ..detector.extract import images_at_once
from ..detector.pipeline import Batch, Done, Pipeline
from ..images import Framing, OnError, Source
from ..verdict.copies import to_pairs
from .stream import stream_of
from .worker import Answer, PipelineSpec, answer
from .workers import Workers

Made = TypeVar("Made")

_AT_ONCE = 4
"""Training images of a level that one task is to do."""


class RayExecutor:
    """An `Executor` that has actors do the work; the files are written by this process.

    Parameters
    ----------
    workers : Workers
        Any number of executors may share them.
    label : str
        What progress bars begin with, where several are at work.
    beside : int
        Pipelines that a worker keeps at hand beside each one of this executor.
    """

    at_once = _AT_ONCE

    def __init__(self, workers: Workers, label: str = "", beside: int = 0) -> None:
        self.workers = workers
        self._label = label
        self._beside = beside

    def title(self, text: str) -> str:
        """Return what a progress bar is called."""
        return f"{self._label}: {text}" if self._label else text

    def map_batches(
        self,
        pipeline: Pipeline,
        sources: Iterable[Source],
        framing: Framing,
        of: Callable[[Pipeline, Batch], Iterable[Made]],
        on_error: OnError | None,
    ) -> Iterator[Done[Made]]:
        """Call a function with each batch of images, and yield the outcomes in order.

        The function is called by a worker: it must be one of a module that all nodes have.
        """

        def calls() -> Iterator[tuple[Callable[[Pipeline], Answer[Made]], str]]:
            while batch := list(islice(images, images_at_once(pipeline, framing))):
                kept = self.workers.put([one.data for one in batch])
                yield (
                    partial(answer, images=kept, framing=framing, of=of),
                    f"{batch[0].name} and the {len(batch) - 1} images after it",
                )

        with (
            self.workers.stream(self.spec_of(pipeline)) as stream,
            closing(
                stream_of(self.workers, sources, framing, on_error, motion=pipeline.settings.motion)
            ) as images,
        ):
            for found in stream.all(calls()):
                for stage, seconds in found.seconds.items():
                    pipeline.stages.add(stage, seconds)
                yield Done(found.made, found.end)

    def map(
        self, pipeline: Pipeline, calls: Iterable[tuple[Callable[[Pipeline], Made], str]]
    ) -> Iterator[Made]:
        """Yield in order what functions return; the workers call them."""
        with self.workers.stream(self.spec_of(pipeline)) as stream:
            yield from stream.all(calls)

    def branches(
        self, sources: Iterable[Source], members: int, on_error: OnError | None
    ) -> list[tuple[Iterable[Source], OnError | None]]:
        """Return the same images for each member; each is decoded where a member queries it."""
        each: Sequence[Iterable[Source]] = [sources] * members
        if not isinstance(sources, Sequence):
            each = tee(sources, members)
        return [(own, _ignore if i and on_error else on_error) for i, own in enumerate(each)]

    def of_members(self, members: int) -> RayExecutor:
        """Return one whose workers keep all members' pipelines at hand."""
        return RayExecutor(self.workers, self._label, members)

    def spec_of(self, pipeline: Pipeline) -> PipelineSpec:
        """Return what a worker makes the same pipeline of."""
        settings = replace(pipeline.settings, progress=False)
        index = pipeline.opened
        if index is None:
            sha256 = pipeline.network.weights_sha256
            return PipelineSpec(settings, sha256, beside=self._beside)
        return PipelineSpec(
            settings,
            index.manifest.backbone.weights_sha256,
            str(index.folder.absolute()),
            index.manifest,
            pipeline.draft,
            None if index.copies is None else to_pairs(index.copies),
            self._beside,
        )


def _ignore(name: str, why: str) -> None:
    """Say nothing of an image that the first member reports."""
