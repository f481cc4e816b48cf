"""What a detector's scores are judged by: thresholds that were drawn, kept, or set by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from ..index import EnsembleManifest, Manifest
from ..index.scores import Calibration, CalibrationSet
from ..types import SCORES, THRESHOLDS
from ..verdict.calibration import NO_SHIFTS
from ..verdict.judge import check_limits
from ..verdict.limits import Limits
from ..verdict.notes import index_notes
from .pipeline import Pipeline
from .settings import Settings
from .thresholds import Own, Thresholds, by_hand_notes, kept_by_hand


class Judging(ABC):
    """The part of a detector that turns a score into a verdict.

    A threshold is what was set on the object; else what is kept in its index (`keep_threshold`);
    else what was drawn, from the index's own images or by `calibrate`. So is the mark of review,
    but none is drawn. Both belong to one kind of score, and setting one sets it for that which is
    used now.
    """

    _least = 0.0
    """No score is below it."""
    _own: Own = MappingProxyType({})
    _scored_anew: Calibration | None = None
    """Of the index's own images, by settings that its calibration was not made with."""
    _kept: Thresholds | None = None

    @property
    @abstractmethod
    def pipeline(self) -> Pipeline:
        """The stages' common ground, of an ensemble its first member's."""

    @property
    @abstractmethod
    def manifest(self) -> Manifest | EnsembleManifest:
        """What its folder says."""

    @property
    def settings(self) -> Settings:
        """The settings, of an ensemble its first member's."""
        return self.pipeline.settings

    @property
    def k(self) -> int:
        """Training images that an image is compared with."""
        return self.settings.k

    @property
    def kappa(self) -> int:
        """Good patches that a patch is compared with."""
        return self.settings.kappa

    @property
    def sigma(self) -> float:
        """Smoothing of the maps in pixels of the network's input."""
        return self.settings.sigma

    @property
    def score(self) -> str:
        """What an image's score is: "map", "descriptor" or "mean"."""
        return self.settings.score

    @property
    def min_area(self) -> int | None:
        """Pixels of an image that an area must have to count; None where each counts."""
        return self.settings.least_area

    @property
    def quantile(self) -> float | None:
        """The share of good images that was asked for; see `quantile_`."""
        return self.settings.quantile

    @property
    def image_threshold(self) -> float | None:
        """The score above which an image is called wrong; None where it is unknown.

        It may be set; None returns to the one that was drawn.
        """
        return self.threshold_for(self.settings.score)

    @image_threshold.setter
    def image_threshold(self, value: float | None) -> None:
        check_limits(value, None, least=self._least)
        self._set("threshold", value)

    @property
    def pixel_threshold(self) -> float | None:
        """The map's value above which a pixel is called wrong; None where it is unknown."""
        return self.threshold_for("map")

    @property
    def review(self) -> float | None:
        """The score from which on an image is called REVIEW, up to the threshold; or None.

        It may be set; it must be below the threshold.
        """
        return self.set_by_hand("review", self.settings.score)

    @review.setter
    def review(self, value: float | None) -> None:
        check_limits(self.image_threshold, value, least=self._least)
        self._set("review", value)

    @property
    def by_hand(self) -> bool:
        """Whether a person set the image threshold, on this object or in the index."""
        return self.set_by_hand("threshold", self.settings.score) is not None

    @property
    def shifts(self) -> Mapping[str, float]:
        """What was taken off scores, by kind."""
        return NO_SHIFTS

    @property
    def calibration_set(self) -> CalibrationSet | None:
        """What `calibrate` found, for this `quantile`; None if never, or with other settings."""
        return self._thresholds().calibration_set if self._is_fitted() else None

    @property
    def calibration(self) -> Calibration | None:
        """The scores of the index's own images, and the thresholds drawn from them.

        None if they were scored by other settings: see `draw_thresholds`.
        """
        return self._thresholds().calibration if self._is_fitted() else None

    @property
    def quantile_(self) -> float | None:
        """The share of good images that the drawn thresholds are to let pass, once drawn."""
        found = self.calibration_set or self.calibration
        return found.quantile if found else self.settings.quantile

    @property
    def limits(self) -> Limits:
        """What images are judged by now."""
        return Limits(self.score, self.image_threshold, self.review, self.pixel_threshold)

    def verdict_of(self, score: float) -> str:
        """Return "NG", "REVIEW" or "OK" for an image's score; "" where no threshold is known."""
        return self.limits.verdict_of(score)

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known before the verdicts are relied on, each in one line."""
        thresholds = self._thresholds()
        lines = [*index_notes(thresholds.images, self.settings.k)]
        drawn = [one for one in self._used() if self.set_by_hand("threshold", one) is None]
        if drawn:
            lines += [*thresholds.calibration_notes(drawn[0]), *thresholds.notes(drawn[0])]
        return (*lines, *self.by_hand_notes())

    def by_hand_notes(self) -> Iterator[str]:
        """Yield what should be known of thresholds that were set by hand."""
        yield from by_hand_notes(self._thresholds(), self.settings.score, self._own)
        threshold, mark = self.image_threshold, self.review
        if mark is not None and (threshold is None or mark >= threshold):
            why = (
                "there is no threshold"
                if threshold is None
                else f"it is not below the threshold, {threshold:.4g}"
            )
            yield f"the mark of review, {mark:.4g}, does nothing: {why}"

    def threshold_for(self, score: str, *, kept_alone: bool = False) -> float | None:
        """Return the threshold of a kind of score; `kept_alone` leaves out what was set here."""
        value = self.set_by_hand("threshold", score, kept_alone=kept_alone)
        found = self.drawn_from(score)
        if value is None and found is not None:
            value = getattr(found, THRESHOLDS[score])
        return value

    def drawn_from(self, score: str) -> CalibrationSet | Calibration | None:
        """Return the good images' scores that the threshold of a kind is drawn from, if any are.

        They are of what `calibrate` found, or else of the index's own images.
        """
        return self._thresholds().drawn(score) if self._is_fitted() else None

    def set_by_hand(self, name: str, score: str, *, kept_alone: bool = False) -> float | None:
        """Return a "threshold" or mark of "review" that a person set, here or in the index."""
        if (score, name) in self._own and not kept_alone:
            return self._own[score, name]
        kept = kept_by_hand(self.manifest, score) if self._is_fitted() else None
        value: float | None = getattr(kept, name) if kept else None
        return value

    def _used(self) -> tuple[str, str]:
        """Return the kinds of score whose thresholds are used: the images', and the maps'."""
        return self.settings.score, "map"

    def _set(self, name: str, value: float | None) -> None:
        self._own = {**self._own, (self.settings.score, name): value}  # copies share the old one

    def _use_drawn(self) -> None:
        """Judge by drawn thresholds, whatever is kept in the index."""
        self._own = {**self._own, **{(score, "threshold"): None for score in SCORES}}

    def _forget(self, *scores: str, name: str | None = None) -> None:
        """Forget what was set here for kinds of score, or of all kinds what has a name."""
        self._own = {
            key: value
            for key, value in self._own.items()
            if key[0] not in scores and key[1] != name
        }

    def _is_fitted(self) -> bool:
        return self.pipeline.opened is not None

    def _thresholds(self) -> Thresholds:
        """Return the drawn thresholds; kept, as each image is judged by them."""
        images = self.pipeline.index.manifest
        now = Thresholds(
            self.manifest,
            self._scored_anew,
            images,
            self.pipeline.scoring,
            self.settings.quantile,
            self.shifts,
        )
        if self._kept is None or not now.same(self._kept):
            self._kept = now
        return self._kept
