"""SPADE whose network, and whose queries, are on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from ..detector import Batch, Images, Result, Spade, sources_of
from ..features import Backbone
from ..images import Framing, OnError, Source, report_problem
from .crew import Crew
from .worker import Recipe


class RaySpade(Spade):
    """An estimator that has actors do what it can share out; made by `on_ray`.

    `query` is done by actors as a whole. `fit`, `add` and `extract` get their features from
    actors, and do the rest (thresholds, searches) here.
    """

    _count: int
    _share: dict[str, float]
    _crews: dict[str, Crew]

    @classmethod
    def of(cls, spade: Spade, count: int, share: dict[str, float]) -> RaySpade:
        """Return a copy of an estimator, to work with so many actors."""
        one = cls.__new__(cls)
        one.__dict__.update(spade.__dict__)
        one._count, one._share, one._crews = count, share, {}
        return one

    def dismiss(self) -> None:
        """End the actors."""
        while self._crews:
            self._crews.popitem()[1].dismiss()

    def query(self, images: Images, on_error: OnError | None = None) -> Iterator[Result]:
        """Yield one Result an image, in order, as they come from the actors."""
        index = self._fitted()
        self._check_kappa(index)
        sources = sources_of(images, on_error)
        manifest = index.manifest
        recipe = self._recipe(
            str(index.folder.absolute()), manifest.generation, manifest.backbone.weights_sha256,
            k=self.k, kappa=self.kappa, engine=self.engine, exact=self.exact,
            search_params=self._own_search_params(),
            backbone=self.backbone if isinstance(self.backbone, Backbone) else None,
        )
        total = len(sources) if isinstance(sources, Sequence) else None
        with self._bar(None, "query", total) as bar:
            for end, results in self._answers(
                recipe, sources, manifest.framing.framing(), on_error
            ):
                yield from cast("list[Result]", results or [])
                bar.update(end - bar.n)

    def _batches(
        self, sources: Iterable[Source], framing: Framing, network: Backbone,
        on_error: OnError | None,
    ) -> Iterator[Batch]:
        recipe = self._recipe(None, "", network.weights_sha256, backbone=self.backbone,
                              mirror=self.mirror)
        for _, batch in self._answers(recipe, sources, framing, on_error):
            if batch is not None:
                yield cast(Batch, batch)

    def _own_search_params(self) -> str | None:
        gallery = self.index_.manifest.gallery
        made_with = gallery.search_params if gallery else None
        return None if self.search_params == made_with else self.search_params

    def _recipe(
        self, index: str | None, generation: str, weights_sha256: str, **options: Any
    ) -> Recipe:
        options |= {"weights": self.weights, "device": self.device, "batch_size": self.batch_size}
        return Recipe(index, generation, options, self.sigma, weights_sha256, str(Path.cwd()),
                      torch.get_num_threads())

    def _answers(
        self, recipe: Recipe, sources: Iterable[Source], framing: Framing,
        on_error: OnError | None,
    ) -> Iterator[tuple[int, Batch | list[Result] | None]]:
        crew = self._crews.get(repr(recipe))
        if crew is None:
            self.dismiss()
            crew = self._crews[repr(recipe)] = Crew(recipe, self._count, self._share)
        for end, answer in crew.answers(sources, self.batch_size, framing):
            for name, why in answer.problems:
                report_problem(on_error, name, why)
            yield end, answer.made
