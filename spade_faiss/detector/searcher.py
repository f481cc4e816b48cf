"""What a detector by one index does with it, however the index was made."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from .._support.stages import Stages
from ..images import Images, OnError
from ..index import EnsembleManifest, Manifest
from ..types import Floats
from .detector import Detector
from .leave_one_out import calibration_of, score_images
from .maps import with_levels
from .pipeline import Executor, Pipeline
from .query import query
from .result import Result


class Searcher(Detector):
    """A detector by one index, once there is one: query it, by these settings or by others."""

    def __init__(self, pipeline: Pipeline) -> None:
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
