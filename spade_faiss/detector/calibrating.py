"""What a detector's thresholds come from: its own good images, others, or a person."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy.typing as npt

from ..errors import SpadeError
from ..images import Images, OnError
from ..index import EnsembleManifest, Manifest, rewrite_manifest
from ..index.scores import ByHand, CalibrationSet
from ..verdict.drift import Drift, detect_drift
from .calibrate import Report, calibrate, keep_threshold
from .judging import Judging
from .result import Result


class Calibrating(Judging):
    """The part of a detector that finds thresholds, keeps them, and sees images drift off."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where it is kept, once fitted."""

    @abstractmethod
    def query(self, images: Images, on_error: OnError | None = None) -> Iterator[Result]:
        """Yield one Result an image, in order, as they come."""

    @abstractmethod
    def draw_thresholds(self) -> None:
        """Score the index's own images by these settings, and draw the thresholds from that."""

    @abstractmethod
    def _keep_manifest(self, manifest: Manifest | EnsembleManifest) -> None:
        """Take note of what the folder says now."""

    @abstractmethod
    def _use_quantile(self, quantile: float | None) -> None:
        """Draw thresholds for another share of good images."""

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
