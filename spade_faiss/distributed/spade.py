"""Estimators whose networks, and whose searches, are on a cluster."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice, tee
from typing import Any

from tqdm import tqdm

from ..detector.ensemble import Ensemble, first_alone
from ..detector.spade import Batch, Floats, Ids, Images, Made, Result, Spade, sources_of
from ..features import Backbone
from ..images import Framing, OnError, Source
from ..index import Index
from .crew import Crew
from .stream import stream_of
from .worker import Answer, Recipe, answer, itself, left_out, map_alone, others, peaks, usual

_SETTINGS = [name for name in inspect.signature(Spade).parameters if name != "preset"]
_AT_ONCE = 4
"""Training images of a level that one task says what is usual for, or of which it finds peaks."""


class RaySpade(Spade):
    """An estimator that has actors do what it can share out; made by `on_ray`.

    A query is done by actors as a whole. Of `fit` and `add` they do features, searches and
    calibration; the files are written here.
    """

    _crew: Crew
    _line: str
    _beside: int

    @classmethod
    def on_crew(cls, spade: Spade, crew: Crew, line: str = "", beside: int = 0) -> RaySpade:
        """Return a copy of an estimator that works with a crew.

        `line` names it in progress bars. A worker keeps it and `beside` others at hand.
        """
        one = cls.__new__(cls)
        one.__dict__.update(spade.__dict__)
        one._crew, one._line, one._beside = crew, line, beside
        return one

    def map_batches(
        self,
        images: Images,
        of: Callable[[Spade, Batch], Iterable[Made]],
        on_error: OnError | None = None,
    ) -> Iterator[Made]:
        """Yield what a function yields for each batch of features, in order, from the actors.

        The function is called there: it must be one of a module that all nodes have.
        """
        index = self._fitted()
        self._check_kappa(index)
        sources = sources_of(images, on_error)
        total = len(sources) if isinstance(sources, Sequence) else None
        framing = index.manifest.framing.framing()
        with self._bar(None, "query", total) as bar:
            for found in self._answers(self._recipe(index), sources, framing, of, on_error):
                for stage, seconds in found.seconds.items():
                    self.stages.add(stage, seconds)
                yield from found.made
                bar.update(found.end - bar.n)

    def _batches(
        self,
        sources: Iterable[Source],
        framing: Framing,
        network: Backbone,
        on_error: OnError | None,
    ) -> Iterator[Batch]:
        recipe = Recipe(self._settings(), network.weights_sha256, beside=self._beside)
        for found in self._answers(recipe, sources, framing, itself, on_error):
            yield from found.made

    def _others(self, index: Index, images: Ids | None = None) -> tuple[list[Ids], Floats]:
        with self._crew.stream(self._recipe(index)) as stream:
            stream.submit(partial(others, images=images), "the training images' descriptors")
            found: tuple[list[Ids], Floats] = stream.take()
        # What comes out of Ray's object store is read-only.
        return found[0], found[1].copy()

    def _peaks(
        self, index: Index, images: Ids, others: Sequence[Ids], exact: bool
    ) -> Iterator[float]:
        for some in self._in_parts(
            index,
            images,
            "the maps",
            lambda part: partial(peaks, images=images[part], others=others[part], exact=exact),
        ):
            yield from some

    def _maps_left_out(self, index: Index, images: Ids, others: Sequence[Ids]) -> Iterator[Floats]:
        for some in self._in_parts(
            index,
            images,
            "the maps",
            lambda part: partial(left_out, images=images[part], others=others[part]),
        ):
            yield from some

    def _usual_at(
        self, index: Index, number: int, images: Ids, others: Sequence[Ids]
    ) -> Iterator[Floats]:
        for some in self._in_parts(
            index,
            images,
            "what is usual",
            lambda part: partial(usual, level=number, images=images[part], others=others[part]),
        ):
            yield from some

    def _in_parts(
        self,
        index: Index,
        images: Ids,
        what: str,
        call: Callable[[slice], Callable[[Spade], object]],
    ) -> Iterator[Any]:
        """Yield the answers for a few of the training images at a time."""
        parts = (slice(at, at + _AT_ONCE) for at in range(0, len(images), _AT_ONCE))
        with self._crew.stream(self._recipe(index)) as stream:
            yield from stream.all(
                (call(part), f"{what} of training images {part.start} to {part.stop - 1}")
                for part in parts
            )

    def _settings(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return settings | {"progress": False}

    def _recipe(self, index: Index) -> Recipe:
        draft = getattr(self, "index_", None) is not index
        return Recipe(
            self._settings(),
            index.manifest.backbone.weights_sha256,
            str(index.folder.absolute()),
            index.manifest,
            draft,
            self._beside,
        )

    def _answers(
        self,
        recipe: Recipe,
        sources: Iterable[Source],
        framing: Framing,
        of: Callable[[Spade, Batch], Iterable[Any]],
        on_error: OnError | None,
    ) -> Iterator[Answer]:
        """Yield for each batch of images that can be used what is wanted of it, in order."""

        def calls() -> Iterator[tuple[Callable[[Spade], Answer], str]]:
            while batch := list(islice(images, self.batch_size)):
                kept = self._crew.put([one.data for one in batch])
                yield (
                    partial(answer, images=kept, framing=framing, of=of),
                    f"{batch[0].name} and the {len(batch) - 1} images after it",
                )

        with (
            self._crew.stream(recipe) as stream,
            closing(stream_of(self._crew, sources, framing, on_error)) as images,
        ):
            yield from stream.all(calls())

    def _bar(self, over: Iterable[Any] | None, title: str, total: int | None = None) -> tqdm[Any]:
        return super()._bar(over, f"{self._line}: {title}" if self._line else title, total)


class RayEnsemble(Ensemble):
    """An ensemble whose members work with a crew; made by `on_ray`."""

    @classmethod
    def on_crew(cls, ensemble: Ensemble, crew: Crew, line: str = "") -> RayEnsemble:
        """Return a copy of an ensemble that works with a crew; `line` is as for `RaySpade`."""
        one = cls.__new__(cls)
        one.__dict__.update(ensemble.__dict__)
        one.members = tuple(
            RaySpade.on_crew(member, crew, line, len(ensemble.members))
            for member in ensemble.members
        )
        return one

    def query(self, images: Images, on_error: OnError | None = None) -> Iterator[Result]:
        """Yield what `Ensemble.query` yields; images are decoded where the members query them."""
        self._fitted()
        sources = sources_of(images, on_error)
        each: Iterable[Iterable[Source]] = [sources] * len(self.members)
        if not isinstance(sources, Sequence):
            each = tee(sources, len(self.members))
        streams = [
            member.query(own, on_error)
            if number == 0
            else member.with_options(progress=False).map_batches(
                own, map_alone, first_alone(on_error, number)
            )
            for number, (member, own) in enumerate(zip(self.members, each, strict=True))
        ]
        for results in zip(*streams, strict=True):
            yield self._joined(results, results[0].position)
