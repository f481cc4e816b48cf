"""What every detector does: from images to verdicts."""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

import numpy as np

from .._support.stages import Stages
from ..features import Backbone
from ..images import Images, OnError
from ..images.roi import Roi
from ..index import Index
from ..types import Floats, Mask
from .calibrating import Calibrating
from .estimate import Estimate, estimate
from .extract import sources_of
from .pipeline import Executor
from .prediction import Prediction
from .result import Result

if TYPE_CHECKING:
    from .spade import Spade


class Detector(Calibrating):
    """One index to detect by, or several of an ensemble: fit, query, judge."""

    is_ensemble = False
    _temporary: TemporaryDirectory[str] | None = None
    """What an index that nobody named a folder for lasts as long as."""

    # What each kind of detector does in its own way ------------------------------------------

    @abstractmethod
    def fit(
        self,
        images: Images,
        index: str | os.PathLike[str] | None = None,
        *,
        calibrate: bool = True,
        on_error: OnError | None = None,
    ) -> Self:
        """Index good images."""

    @abstractmethod
    def add(self, images: Images, on_error: OnError | None = None) -> int:
        """Add good images and calibrate anew; return how many were added."""

    @abstractmethod
    def remove(self, names: Iterable[str], on_error: OnError | None = None) -> int:
        """Remove training images by path and calibrate anew; return how many were removed."""

    @abstractmethod
    def look_at(self, region: str | os.PathLike[str] | Mask | Roi | None) -> bool:
        """Look at another region of the index's images, and calibrate anew."""

    @abstractmethod
    def _compared(self, images: Images, on_error: OnError | None) -> Iterator[Result]:
        """Yield one Result an image, in order, as they come, not judged yet."""

    @abstractmethod
    def on(self, executor: Executor) -> Self:
        """Return a copy whose work is done elsewhere; see `spade_faiss.distributed`."""

    @abstractmethod
    def unfitted(self) -> Self:
        """Return a detector of the same settings and networks, to be fitted on its own."""

    @abstractmethod
    def with_options(self, **settings: object) -> Self:
        """Return a detector with other settings, its index shared."""

    @property
    @abstractmethod
    def members(self) -> tuple[Spade, ...]:
        """Itself, or an ensemble's detectors."""

    @property
    @abstractmethod
    def stages(self) -> Stages:
        """Seconds spent on features, index, calibration, stage_one, stage_two and maps.

        On a GPU the stages are done together: what the host takes to `begin`, and its `wait`.
        """

    @abstractmethod
    def _named(self) -> str:
        """Say what its networks are, and what other than default its parameters are."""

    # The same for all ------------------------------------------------------------------------

    def __repr__(self) -> str:
        if not self._is_fitted():
            return f"<{type(self).__name__} {self._named()}: not fitted>"
        where = "a temporary index" if self._temporary else self.folder
        limit = self.image_threshold
        said = "no threshold" if limit is None else f"threshold {limit:.4g}"
        images = f"{len(self.index_)} good images in {where}"
        return f"<{type(self).__name__} {self._named()}: {images}, {said}>"

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __deepcopy__(self, memo: object) -> Self:
        """Return a copy that shares the index and the network, neither of which it changes."""
        return copy.copy(self)

    def __sklearn_clone__(self) -> Self:
        """Return what `sklearn.base.clone` does: its like, not fitted, with the same network."""
        other = self.unfitted()
        other._own, other._temporary = {}, None
        return other

    @property
    def index_(self) -> Index:
        """The index, of an ensemble its first member's, once fitted."""
        return self.pipeline.index

    @property
    def network(self) -> Backbone:
        """The network, of an ensemble its first member's; loaded if it is not yet."""
        return self.pipeline.lazy_network()

    def estimate(self, images: Images, *, calibrate: bool = True) -> Estimate | None:
        """Return what `fit` will make of some images, and about how long it takes.

        Parameters
        ----------
        images : folder, paths, arrays, or others; see `spade_faiss.images.Images`
        calibrate : bool
            Whether it is to find the thresholds.

        Returns
        -------
        Estimate or None
            None of an iterator, which is gone through but once.

        Raises
        ------
        SpadeError
            If none of the images can be used, or the settings do not suit them.
        """
        sources = sources_of(images, lambda *_: None)
        if not isinstance(sources, Sequence):
            return None
        return estimate([one.pipeline for one in self.members], sources, calibrate=calibrate)

    def predict(self, images: Images) -> Prediction:
        """Score images and map where they are wrong.

        Parameters
        ----------
        images : folder, paths, arrays, or others; see `spade_faiss.images.Images`
            Arrays are RGB. OpenCV's order is BGR: turn it round, `image[..., ::-1]`.

        Raises
        ------
        SpadeError
            If an image cannot be used.
        """
        return Prediction(tuple(self.query(images)), self.notes)

    def query(self, images: Images, on_error: OnError | None = None) -> Iterator[Result]:
        """Yield one Result an image, in order, as they come.

        An iterator of images is gone through once, a few ahead of the results.

        Parameters
        ----------
        images : folder, paths, arrays, or others; see `spade_faiss.images.Images`
        on_error : callable, optional
            Called with (name, why) for an image that cannot be used, which is then left out.

        Raises
        ------
        SpadeError
            If an image cannot be used (without `on_error`).
        """
        index, compared = self.index_, self._compared(images, on_error)
        return (self._judged(one, index) for one in compared)

    def _judged(self, result: Result, index: Index) -> Result:
        """Return a result with what it is judged by now."""
        return replace(result, limits=self.limits, index=index)

    def score_samples(self, images: Images) -> Floats:
        """Return how normal each image is, as scikit-learn's outlier detectors do, float32 [n].

        It is the score's opposite: the lower, the more anomalous. No map is kept.
        """
        return np.array([-one.score() for one in self.query(images)], np.float32)

    def score_of(self, result: Result) -> float:
        """Return an image's score, as the setting `score` chooses it."""
        return result.score(self.settings.score)
