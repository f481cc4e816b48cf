"""Which threshold counts: a function of what an index keeps and of the settings.

A threshold is what was set on a detector; else what a person keeps in the index; else what was
drawn, by `calibrate` from further good images or else from the index's own. A drawn one counts
only for scores by the same settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from ..index import EnsembleManifest, Manifest
from ..index.scores import ByHand, Calibration, CalibrationSet
from ..verdict.calibration import (
    NO_SHIFTS,
    redraw_calibration,
    redraw_calibration_set,
    redraw_thresholds,
    scored_weights,
)
from ..verdict.notes import DEFAULT_K, index_notes, threshold_notes
from .average import shifts_of
from .settings import Scoring

Record = TypeVar("Record", Manifest, EnsembleManifest)
Own = Mapping[tuple[str, str], float | None]
"""What was set on a detector, by kind of score and name; a threshold of None is the drawn one."""


@dataclass(frozen=True, eq=False)
class Thresholds:
    """The drawn thresholds of an index, by a detector's settings.

    Attributes
    ----------
    record : Manifest or EnsembleManifest
        With what is kept: calibrations, and what was set by hand.
    scored_anew : Calibration or None
        Of the index's own images, instead of the record's, by settings that this was not made of.
    images : Manifest
        With the training images; the record itself, or that of an ensemble's first member.
    scoring : Scoring
    quantile : float or None
    shifts : mapping of str to float
        What an ensemble took off scores, by kind.
    """

    record: Manifest | EnsembleManifest
    scored_anew: Calibration | None
    images: Manifest
    scoring: Scoring
    quantile: float | None
    shifts: Mapping[str, float] = field(default_factory=dict)

    def same(self, other: Thresholds) -> bool:
        """Say whether others are of the same things."""
        return (
            self.record is other.record
            and self.scored_anew is other.scored_anew
            and self.images is other.images
            and (self.scoring, self.quantile, self.shifts)
            == (other.scoring, other.quantile, other.shifts)
        )

    @cached_property
    def calibration_set(self) -> CalibrationSet | None:
        """Return what `calibrate` found, drawn for the quantile; None if not by these settings."""
        held = self.record.calibration_set
        if held is None or not self.scoring.is_of(held, held.search, len(self.images.images)):
            return None
        return redraw_calibration_set(held, self.quantile, self.shifts)

    @cached_property
    def calibration(self) -> Calibration | None:
        """Return the scores of the index's own images; None if not by these settings."""
        made = self.scored_anew
        if made is None:
            made, gallery = self.record.calibration, self.images.gallery
            search = gallery.search_params if gallery else None
            if made is None or not self.scoring.is_of(made, search, len(self.images.images) - 1):
                return None
        drawn = redraw_calibration(self.images, made, self.quantile, self.shifts)
        return drawn.model_copy(update={"k": self.scoring.k})

    def drawn(self, score: str) -> CalibrationSet | Calibration | None:
        """Return what the threshold of a kind of score is drawn from, if from anything."""
        return _first_with(score, self.calibration_set, self.calibration)

    def notes(self, score: str) -> list[str]:
        """Return what should be known of the drawn threshold of a kind of score."""
        if drawn := self.drawn(score):
            return drawn_notes(drawn, self.images, score, self.shifts.get(score, 0.0))
        if self.calibration_set or self.calibration:
            return [_unscored(score)]
        if self.record.calibration is None and self.record.calibration_set is None:
            return []
        return ["no threshold, so no verdicts: the good images were scored by other settings"]

    def calibration_notes(self, score: str) -> list[str]:
        """Return what should be known of what `calibrate` found, where it does not count."""
        if self.record.calibration_set is None or not self.drawn(score):
            return []
        if held := self.calibration_set:
            return (
                [
                    f"the calibration has no scores for `score='{score}'`, so the threshold is "
                    "drawn from the index's own images: calibrate again"
                ]
                if held.lacks(score)
                else []
            )
        return [
            "the calibration is of other settings, so thresholds are drawn from the index's own "
            "images"
        ]


def drawn_notes(
    drawn: Calibration | CalibrationSet, images: Manifest, score: str, shift: float
) -> list[str]:
    """Return what should be known of a threshold that was drawn.

    Parameters
    ----------
    drawn : Calibration or CalibrationSet
    images : Manifest
        With the training images.
    score : str
        The kind of score that the threshold is of.
    shift : float
        What an ensemble took off such scores; else 0.
    """
    scores = drawn.scores(score)
    if isinstance(drawn, CalibrationSet):
        return threshold_notes(drawn.good.names, scores, drawn.quantile, None, shift)
    names = [images.images[i].path for i in drawn.scored]
    weights = scored_weights(images, drawn) if drawn.peaks else None
    return threshold_notes(names, scores, drawn.quantile, weights, shift)


def _first_with(
    score: str, *made: CalibrationSet | Calibration | None
) -> CalibrationSet | Calibration | None:
    """Return the first calibration that has scores of a kind."""
    return next((one for one in made if one and not one.lacks(score)), None)


def _unscored(score: str) -> str:
    return (
        f"no threshold, so no verdicts: the good images have no scores for `score='{score}'`, and "
        "have to be scored anew: call draw_thresholds"
    )


def kept_by_hand(record: Manifest | EnsembleManifest, score: str) -> ByHand | None:
    """Return what a person keeps in an index for a kind of score."""
    return next((one for one in record.by_hand if one.score == score), None)


def by_hand_notes(thresholds: Thresholds, score: str, own: Own) -> Iterator[str]:
    """Yield what should be known of thresholds that were set by hand.

    Parameters
    ----------
    thresholds : Thresholds
    score : str
        The kind that is used.
    own : mapping
        What was set on the detector, which goes before what is kept.
    """
    record, n = thresholds.record, len(thresholds.images.images)
    for kept in record.by_hand:
        if kept.score not in ("map", score):
            continue
        if (kept.score, "threshold") in own:
            if kept.threshold is not None and own[kept.score, "threshold"] is None:
                yield f"the {said_of(kept)} that was set by hand is not used here"
            continue
        yield from kept_notes([kept], record.generation)
        if not thresholds.scoring.is_of(kept, kept.search, n):
            area = f", min_area = {kept.min_area}" if kept.min_area else ""
            yield (
                f"the {said_of(kept)} was set by hand for scores by other settings "
                f"(K = {kept.k}, kappa = {kept.kappa}{area})"
            )


def kept_notes(kept: Iterable[ByHand], generation: str) -> list[str]:
    """Return a line for each threshold that was set by hand before an index changed.

    Parameters
    ----------
    kept : iterable of ByHand
    generation : str
        The state that the index is in now.
    """
    return [
        f"the {said_of(one)} was set by hand before images were added or removed, and stays: see "
        "that it still fits (`keep_threshold(images)`), or return to the drawn one "
        "(`image_threshold=None` and `keep_threshold()`)"
        for one in kept
        if one.generation != generation
    ]


def record_notes(record: Manifest | EnsembleManifest, images: Manifest) -> list[str]:
    """Return what should be known of an index or ensemble as it lies in its folder.

    Parameters
    ----------
    record : Manifest or EnsembleManifest
    images : Manifest
        With the training images: the record itself, or the manifest of an ensemble's first member.
    """
    last, score = record.calibration_set or record.calibration, images.score or "map"
    by_hand = {one.score for one in record.by_hand if one.threshold is not None}
    used = [one for one in (score, "map") if one not in by_hand]  # as `Judging.notes` has it
    notes = [*index_notes(images, last.k if last else DEFAULT_K)]
    if last and used:
        drawn = _first_with(used[0], record.calibration_set, record.calibration)
        shift = _shifts(record).get(used[0], 0.0)
        notes += drawn_notes(drawn, images, used[0], shift) if drawn else [_unscored(used[0])]
    return [
        *notes,
        *kept_notes(record.by_hand, record.generation),
    ]


def redrawn(record: Record, images: Manifest) -> Record:
    """Return a record, as `record_notes` takes it, with thresholds by today's rule."""
    return redraw_thresholds(record, images, _shifts(record))


def _shifts(record: Manifest | EnsembleManifest) -> Mapping[str, float]:
    if isinstance(record, Manifest):
        return NO_SHIFTS
    return shifts_of([member.statistics for member in record.members])


def said_of(kept: ByHand) -> str:
    """Return what was set by hand, in words."""
    what = "mark of review" if kept.threshold is None else "threshold"
    value = kept.review if kept.threshold is None else kept.threshold
    return f"{what} {value:.4g}"
