"""What a detector by one index does with it, however the index was made."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, Self

from .._support.stages import Stages
from ..images import Images, OnError
from ..index import EnsembleManifest, Index, Manifest
from ..types import Floats
from .detector import Detector
from .executor import pipeline_of
from .leave_one_out import calibration_of, score_images
from .maps import with_levels
from .moved import absolute, still_there
from .parameters import check_backbone, settings_of
from .pipeline import Executor, Pipeline
from .query import query
from .result import Result


class Searcher(Detector):
    """A detector by one index, once there is one: query it, by these settings or by others."""

    def __init__(self, given: dict[str, Any], pipeline: Pipeline) -> None:
        """Take parameters by their names, and a pipeline by the settings that they stand for."""
        self._given = given
        self._pipeline = pipeline

    def _compared(self, images: Images, on_error: OnError | None) -> Iterator[Result]:
        return query(self.pipeline, images, on_error)

    def recompute_maps(self, result: Result, levels: Sequence[int] | None = None) -> Result:
        """Return a result with its maps made anew: by this sigma, and of some levels alone.

        Parameters
        ----------
        result : Result
        levels : sequence of int, optional
            Levels to average, 1 the finest; by default all.
        """
        return self._judged(with_levels(self.pipeline, result, levels), self.index_)

    def leave_one_out(self) -> Iterator[tuple[float, Floats]]:
        """Yield each training image's descriptor score, and its map on the network's input.

        Both are as if the image were not in the index, which must hold two or more.
        """
        return score_images(self.pipeline)

    def draw_thresholds(self) -> None:
        """Score the index's own images by these settings, and draw the thresholds from that.

        The index keeps the scores of the settings that it was made with.
        """
        with self.stages("calibration"):
            self._scored_anew = calibration_of(self.pipeline, exact=self.settings.exact)

    def on(self, executor: Executor) -> Self:
        """Return a copy whose work is done elsewhere; see `spade_faiss.distributed`."""
        return self.with_pipeline(replace(self.pipeline, executor=executor))

    def with_pipeline(self, pipeline: Pipeline) -> Self:
        """Return a copy that works by another pipeline, of the same index or not."""
        other = copy.copy(self)
        same = pipeline.opened is self.pipeline.opened
        if not same or (pipeline.opened and pipeline.scoring != self.pipeline.scoring):
            other._scored_anew = None
        other._pipeline = pipeline
        return other

    def unfitted(self) -> Self:
        """Return a detector of the same settings and network, to be fitted on its own."""
        return self.with_pipeline(replace(self.pipeline.on(None), stages=Stages()))

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001 - scikit-learn's
        """Return every parameter by its name, as it was given; `Spade(**params)` is its like.

        Parameters
        ----------
        deep : bool
            As scikit-learn has it. No parameter has parameters of its own.
        """
        first, now = settings_of(self._given).as_dict(), self.settings.as_dict()
        return {
            name: given if name == "preset" or now[name] == first[name] else now[name]
            for name, given in self._given.items()
        }

    def set_params(self, **params: Any) -> Self:
        """Set parameters by their names, as `with_options` does; return this detector itself."""
        other = self.with_options(**params)
        self._pipeline, self._given = other._pipeline, other._given
        self._scored_anew = other._scored_anew
        return self

    def with_options(self, **settings: Any) -> Self:
        """Return this detector with other parameters.

        The index is shared where these are of its search: another `k`, `kappa`, `sigma`, `score`
        and so on. What decides how an index is made, such as `crop`, needs another one: the
        detector that is returned is to be fitted anew. Thresholds are those that fit the settings;
        where there are none, `draw_thresholds` finds them.

        Raises
        ------
        SpadeError
            As for a new one; or if the index was opened with other `search_params`.
        TypeError
            If there is no such parameter.
        """
        for name in settings.keys() - self._given.keys():
            like = get_close_matches(name, self._given, 1)
            meant = f"; is it {like[0]!r}?" if like else ""
            raise TypeError(f"there is no parameter {name!r}{meant}")
        check_backbone(settings)
        given = self.get_params() | settings
        wanted, now = settings_of(given), self.settings
        changed = {
            name: value for name, value in wanted.as_dict().items() if value != getattr(now, name)
        }
        pipeline = self.pipeline.by(**changed)
        if pipeline.opened and wanted.needs_another_index(now):
            pipeline = pipeline.on(None)
        other = self.with_pipeline(pipeline)
        other._given = given
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Return what makes the same detector in another process, which opens the index anew."""
        index = self.pipeline.opened
        return {
            "given": absolute(self.get_params()),
            "folder": None if index is None else index.folder.absolute(),
            "generation": None if index is None else index.manifest.generation,
            "temporary": self._temporary is not None,
            "own": dict(self._own),
            "scored_anew": self._scored_anew,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be the detector that was sent, by the index as it is now."""
        settings = settings_of(state["given"])
        pipeline = pipeline_of(settings)
        if state["folder"] is not None:
            with still_there(state["folder"], temporary=state["temporary"]):
                index = Index.open(state["folder"])
            if settings.search_params:
                index.set_search_params(settings.search_params)
            pipeline = pipeline.on(index)
            if index.manifest.generation == state["generation"]:
                self._scored_anew = state["scored_anew"]
        Searcher.__init__(self, state["given"], pipeline)
        self._own = state["own"]

    def _named(self) -> str:
        given, first = self.get_params(), signature(type(self)).parameters
        given["region"] = self.settings.region  # as an array it would be long
        del given["backbone"]
        own = [
            f"{name}={given[name]!r}"
            for name, parameter in first.items()
            if name in given and given[name] != parameter.default
        ]
        network = self.settings.backbone
        return ", ".join([network if isinstance(network, str) else network.name, *own])

    # What a detector is asked for ------------------------------------------------------------

    @property
    def pipeline(self) -> Pipeline:
        """The stages' common ground."""
        return self._pipeline

    @property
    def stages(self) -> Stages:
        """Seconds spent so far on each stage."""
        return self.pipeline.stages

    @property
    def folder(self) -> Path:
        """Where the index is."""
        return self.index_.folder

    @property
    def manifest(self) -> Manifest:
        """What the index's folder says."""
        return self.index_.manifest

    def _keep_manifest(self, manifest: Manifest | EnsembleManifest) -> None:
        assert isinstance(manifest, Manifest)
        self.index_.manifest = manifest

    def _use_quantile(self, quantile: float | None) -> None:
        self._pipeline = self.pipeline.by(quantile=quantile)
