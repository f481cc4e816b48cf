"""What every detector does: from images to verdicts."""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from .._support.stages import Stages
from ..errors import SpadeError
from ..features import Backbone
from ..images import Images, OnError
from ..images.roi import Roi
from ..index import EnsembleManifest, Index, Manifest, rewrite_manifest
from ..index.scores import ByHand, CalibrationSet
from ..types import Floats, Mask
from ..verdict.drift import Drift, detect_drift
from .calibrate import Report, calibrate, keep_threshold
from .estimate import Estimate, estimate
from .extract import sources_of
from .judging import Judging
from .pipeline import Executor
from .prediction import Prediction
from .result import Result

if TYPE_CHECKING:
    from .spade import Spade


class Detector(Judging):
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
    def draw_thresholds(self) -> None:
        """Score the index's own images by these settings, and draw the thresholds from that."""

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
    def folder(self) -> Path:
        """Where it is kept, once fitted."""

    @property
    @abstractmethod
    def stages(self) -> Stages:
        """Seconds spent on features, index, calibration, stage_one, stage_two and maps."""

    @abstractmethod
    def _keep_manifest(self, manifest: Manifest | EnsembleManifest) -> None:
        """Take note of what the folder says now."""

    @abstractmethod
    def _use_quantile(self, quantile: float | None) -> None:
        """Draw thresholds for another share of good images."""

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

    def calibrate(
        self,
        images: Images,
        defects: Images | None = None,
        *,
        false_alarms: float | None = None,
        on_error: OnError | None = None,
    ) -> Report:
        """Try the index on good images that are not in it, and choose its thresholds by them.

        The thresholds, for every kind of score, and the images' scores are kept in the index,
        and count wherever it is searched with the same `k`, `kappa` and so on.

        Parameters
        ----------
        images : folder, paths, arrays, or others; see `spade_faiss.images.Images`
            Good ones, taken as those to come will be, each for itself: the frames of a video
            resemble each other and stand for fewer.
        defects : the same, optional
            Known defects. How many are found is reported; no threshold is chosen by them.
        false_alarms : float in (0, 1), optional
            The share of good images that may be called wrong. By default 1 - `quantile`.
        on_error : callable, optional
            Called with (name, why) for an image that is left out: one that cannot be used, that
            is in the index, or that was given twice.

        Raises
        ------
        SpadeError
            If an image is to be left out (without `on_error`), if fewer than two good ones
            remain, or if the index was changed meanwhile.

        Examples
        --------
        >>> from spade_faiss import Spade
        >>> from spade_faiss.datasets.demo import render
        >>> good = [render(0, "brick", "train", i).image for i in range(5)]
        >>> spade = Spade("efficientnet_lite0").fit(good)
        >>> more = [render(0, "brick", "good", i).image for i in range(5)]
        >>> report = spade.calibrate(more, false_alarms=0.2)
        >>> report.needed, report.chosen.threshold == spade.image_threshold
        (4, True)
        """
        return calibrate(self, images, defects, false_alarms=false_alarms, on_error=on_error)

    def keep_threshold(
        self,
        images: Images | None = None,
        defects: Images | None = None,
        on_error: OnError | None = None,
    ) -> Report:
        """Keep in the index the threshold and the mark of review that count here now.

        They hold for every query of the index by this kind of score, until others are kept or
        `calibrate` chooses anew. After `image_threshold = None`, the drawn one counts again.

        Parameters
        ----------
        images, defects : folder, paths, arrays, or others, optional
            Good ones and defects that are not in the index. What the threshold says of them is
            reported and kept.
        on_error : callable, optional
            Called with (name, why) for an image that is left out.

        Raises
        ------
        SpadeError
            If an image is to be left out (without `on_error`), or the index was changed
            meanwhile.
        """
        return keep_threshold(self, images, defects, on_error=on_error)

    def adopt_calibration(self, found: CalibrationSet, quantile: float | None) -> None:
        """Keep what a calibration found in the folder, and judge by it; `calibrate` does so.

        Thresholds that were set by hand no longer count. Marks of review do.

        Parameters
        ----------
        found : CalibrationSet
        quantile : float or None
            The share of good images that was asked for.

        Raises
        ------
        SpadeError
            If the folder was changed meanwhile.
        """
        reviews = tuple(
            one.model_copy(update={"threshold": None, "good": None, "defects": None})
            for one in self.manifest.by_hand
            if one.review is not None
        )
        changes = {"by_hand": reviews} if self.manifest.by_hand else {}
        self._store(calibration_set=found, **changes)
        self._forget(name="threshold")
        self._use_quantile(quantile)

    def adopt_by_hand(self, kept: ByHand) -> None:
        """Keep in the folder what was set by hand for one kind of score; if nothing was, that.

        `keep_threshold` does so. Raises what `adopt_calibration` raises.
        """
        others = tuple(one for one in self.manifest.by_hand if one.score != kept.score)
        nothing = kept.threshold is None and kept.review is None
        self._store(by_hand=others if nothing else (*others, kept))
        self._forget(kept.score)

    def drift(self, scores: npt.ArrayLike, descriptor_scores: npt.ArrayLike) -> Drift:
        """Compare images that were queried with the good ones of the calibration.

        Parameters
        ----------
        scores, descriptor_scores : float [m]
            By `score_of(result)` and `result.descriptor_score`, of m independent images.

        Raises
        ------
        SpadeError
            If the index was never calibrated, or with other settings, or by a version that had no
            such score. Its own images will not do
            instead: each scored against the others, of 16 they are so much alike that 3 to 10 %
            of unchanged batches would be warned of.
        """
        held = self.calibration_set
        if held is None:
            raise SpadeError(
                f"{self.folder} has no calibration to compare with, or one of other "
                "settings: make one with `calibrate(images)`"
            )
        score, limit = self.settings.score, self.image_threshold
        if held.lacks(score):
            raise SpadeError(
                f"the calibration of {self.folder} has no scores for `score='{score}'`: make it "
                "anew with `calibrate(images)`"
            )
        assert limit is not None
        good = held.scores(score)
        return detect_drift(scores, good, limit, descriptor_scores, held.good.descriptor_scores)

    def draw_missing_thresholds(self) -> None:
        """Call `draw_thresholds` where the index was calibrated, but by other settings.

        So it does where no scores of the kind that images are judged by were kept. Where a person
        set the thresholds, none is missing.
        """
        if self.manifest.calibration is not None and any(
            self.set_by_hand("threshold", score) is None and self.drawn_from(score) is None
            for score in self._used()
        ):
            self.draw_thresholds()

    def _store(self, **changes: object) -> None:
        """Change what the folder's manifest says."""
        self._keep_manifest(rewrite_manifest(self.folder, self.manifest, **changes))
