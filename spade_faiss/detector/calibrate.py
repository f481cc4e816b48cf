"""Try an index on images that are not in it, and choose its thresholds by the good ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import numpy as np

from ..errors import SpadeError
from ..images import Images, OnError
from ..index.scores import ByHand, CalibrationSet, Counted, Scored
from ..types import SCORES, Score
from ..verdict.calibration import draw_thresholds, named_scores, scores_by_kind
from ..verdict.judge import over
from ..verdict.notes import STILL, BatchNotes, threshold_notes
from ..verdict.rates import Rate, expected_rate, images_needed, observed_rate, percent
from ..verdict.threshold import aimed_quantile
from .result import Result
from .thresholds import said_of

if TYPE_CHECKING:
    from .calibrating import Calibrating


@dataclass(frozen=True)
class Judged:
    """A threshold, and how it does on images that are not in the index.

    Attributes
    ----------
    threshold : float
    false_alarms, found : Rate or None
        Good images and defects that it calls wrong; None where there were none.
    """

    threshold: float
    false_alarms: Rate | None
    found: Rate | None


@dataclass(frozen=True)
class Report:
    """What a calibration says.

    Attributes
    ----------
    score : {"map", "descriptor", "mean"}
        The score that this is about; if images chose it, thresholds for every kind were stored.
    good, defects : int
        Images that were used.
    wished : float or None
        The wished rate of false alarms; None where the images did not choose the threshold.
    needed : int or None
        Good images from which on that rate is held whatever the scores' distribution.
    present : Judged or None
        The threshold until now, which knew nothing of these images; None where there was none.
    chosen : Judged or None
        The threshold now; None where there is none. If the images chose it, its `false_alarms` are
        those to expect, not those counted among these images: see
        `spade_faiss.verdict.rates.expected_rate`.
    review : float or None
        The score from which on images are to be reviewed.
    notes : tuple of str
        What should be known before these figures are relied on.
    """

    score: str
    good: int
    defects: int
    wished: float | None
    needed: int | None
    present: Judged | None
    chosen: Judged | None
    review: float | None
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return the report as a table for a person."""

        def row(title: str, judged: Judged, most: str) -> str:
            alarms, found = judged.false_alarms, judged.found
            return (
                f"{title:8}{judged.threshold:<10.4g} "
                f"{_counted(alarms, most) if alarms else '':44} "
                f"{_counted(found, '') if found else ''}"
            ).rstrip()

        lines = [
            f"{'':8}{'threshold':10} {'false alarms' if self.good else '':44} "
            f"{'defects found' if self.defects else ''}".rstrip()
        ]
        if self.present:
            lines.append(row("before", self.present, ""))
        if self.chosen:
            lines.append(row("now", self.chosen, "expect at most " if self.wished else ""))
        if self.review is not None:
            lines.append(f"review  from {self.review:.4g} to the threshold")
        if self.good or self.defects:
            lines.append("in brackets: where the rate lies with 95 % confidence")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def calibrate(
    detector: Calibrating,
    images: Images,
    defects: Images | None = None,
    *,
    false_alarms: float | None = None,
    on_error: OnError | None = None,
) -> Report:
    """Do what `Calibrating.calibrate` says."""
    if false_alarms is not None and not 0 < false_alarms < 1:
        raise SpadeError(
            f"false_alarms = {false_alarms} must lie between 0 and 1 (0.005 is one in 200)"
        )
    settings = detector.settings
    asked = settings.quantile if false_alarms is None else 1 - false_alarms
    scorer = _Scorer(detector, on_error)
    good = scorer.scored(images)
    bad = _Scores() if defects is None else scorer.scored(defects, good)
    n = len(good.rows)
    quantile = aimed_quantile(n) if asked is None else asked
    rate = round(1 - quantile, 12)
    if n < 2:
        raise SpadeError(
            f"{n} good image{'' if n == 1 else 's'} to calibrate with, not in the index: give two "
            f"or more ({images_needed(quantile)} can show {percent(rate)} of false alarms)"
        )
    right, wrong = good.record(), bad.record()
    notes = [*_notes(detector, right, quantile), *scorer.noted.lines()]
    present = _judged(detector.image_threshold, settings.score, right, wrong)
    notes += [
        f"the {said_of(one)} that was set by hand no longer counts"
        for one in detector.manifest.by_hand
        if one.threshold is not None
    ]
    detector.adopt_calibration(_calibration_set(detector, right, wrong, quantile), asked)
    chosen = _judged(detector.image_threshold, settings.score, right, wrong)
    assert chosen is not None and chosen.false_alarms is not None
    count = chosen.false_alarms.count
    return Report(
        settings.score,
        n,
        len(bad.rows),
        rate,
        images_needed(quantile),
        present,
        Judged(chosen.threshold, expected_rate(count, n, quantile), chosen.found),
        detector.review,
        tuple(notes),
    )


def _calibration_set(
    detector: Calibrating, good: Scored, defects: Scored, quantile: float
) -> CalibrationSet:
    """Return thresholds by good images, and all that they are of."""
    settings, scoring = detector.settings, detector.pipeline.scoring
    drawn = draw_thresholds(scores_by_kind(good), quantile, None, detector.shifts)
    if None in drawn.values():
        raise SpadeError(
            "the good images to calibrate with are all alike, and say nothing of how "
            "good ones differ: give others"
        )
    return CalibrationSet(
        created=_now(),
        **drawn,
        k=settings.k,
        kappa=settings.kappa,
        sigma=settings.sigma,
        search=scoring.search,
        min_area=scoring.min_area,
        good=good,
        defects=defects,
    )


def keep_threshold(
    detector: Calibrating,
    images: Images | None = None,
    defects: Images | None = None,
    *,
    on_error: OnError | None = None,
) -> Report:
    """Do what `Calibrating.keep_threshold` says."""
    scorer = _Scorer(detector, on_error)
    good = _Scores() if images is None else scorer.scored(images)
    bad = _Scores() if defects is None else scorer.scored(defects, good)
    right, wrong = good.record(), bad.record()
    score, scoring = detector.settings.score, detector.pipeline.scoring
    threshold = detector.set_by_hand("threshold", score)
    review = detector.set_by_hand("review", score)
    before = detector.threshold_for(score, kept_alone=True)
    now = _judged(detector.image_threshold, score, right, wrong)
    present = _judged(before, score, right, wrong) if now and now.threshold != before else None
    flattered = _chosen_by(detector, right) if present else []
    kept = ByHand(
        score=cast(Score, score),
        threshold=threshold,
        review=review,
        created=_now(),
        generation=detector.manifest.generation,
        k=scoring.k,
        kappa=scoring.kappa,
        sigma=scoring.sigma,
        search=scoring.search,
        min_area=scoring.min_area,
        good=_counts(now.false_alarms if now else None),
        defects=_counts(now.found if now else None),
    )
    detector.adopt_by_hand(kept)
    notes = (*flattered, *scorer.noted.lines(), *detector.by_hand_notes())
    return Report(score, len(good.rows), len(bad.rows), None, None, present, now, review, notes)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _counts(rate: Rate | None) -> Counted | None:
    return None if rate is None else Counted(over=rate.count, n=rate.n)


@dataclass
class _Scores:
    """Images by the digest of what the network saw: name, and scores by kind."""

    rows: dict[str, tuple[str, dict[str, float]]] = field(default_factory=dict)

    def record(self) -> Scored:
        names, scores = zip(*self.rows.values(), strict=True) if self.rows else ((), ())
        by_kind = {kind: [own[kind] for own in scores] for kind in SCORES}
        return Scored(names=names, digests=tuple(self.rows), **named_scores(by_kind))


@dataclass
class _Scorer:
    detector: Calibrating
    on_error: OnError | None
    noted: BatchNotes = field(default_factory=BatchNotes)

    def scored(self, images: Images, good: _Scores | None = None) -> _Scores:
        """Score images, but none twice and none of the index; defects are not `good`, either."""
        scores = _Scores()
        for result in self.detector.query(images, self.on_error):
            digest = hashlib.sha256(np.ascontiguousarray(result.input).data).hexdigest()[:16]
            if same := result.training_image:
                self._leave_out(result, f"is in the index, as {same}, and says nothing of new ones")
            elif digest in scores.rows:
                self._leave_out(
                    result, f"shows what {scores.rows[digest][0]} shows; it counts once"
                )
            elif good and digest in good.rows:
                self._leave_out(result, "is given as good and as a defect; it counts as neither")
                del good.rows[digest]
            elif STILL in result.notes:
                raise SpadeError(
                    f"{result.name}: images show no motion, so that a threshold by them would be "
                    "too low for videos; the index has one that is drawn from its own frames"
                )
            else:
                self.noted.add(result.name, result.notes)
                scores.rows[digest] = result.name, {kind: result.score(kind) for kind in SCORES}
        return scores

    def _leave_out(self, result: Result, why: str) -> None:
        if self.on_error is None:
            raise SpadeError(f"{result.name}: {why}")
        self.on_error(result.name, f"{why}; left out")


def _judged(limit: float | None, score: str, good: Scored, bad: Scored) -> Judged | None:
    """Return what a threshold says of images."""
    if limit is None:
        return None
    rates = []
    for scored in (good, bad):
        wrong = over(scored.scores(score), limit)
        rates.append(observed_rate(int(wrong.sum()), len(wrong)) if len(wrong) else None)
    return Judged(limit, rates[0], rates[1])


def _notes(detector: Calibrating, good: Scored, quantile: float) -> list[str]:
    n, score = len(good.names), detector.settings.score
    shift = detector.shifts.get(score, 0.0)
    notes = []
    wrong = int(over(good.scores(score), detector.image_threshold).sum())
    if 2 * wrong > n:
        notes.append(
            f"{wrong} of {n} images given as good are over the threshold until now: if "
            "they are not good, or not taken as the index's were, leave them out"
        )
    notes += [] if detector.by_hand else _chosen_by(detector, good)
    notes += threshold_notes(good.names, good.scores(score), quantile, None, shift)
    return notes


def _chosen_by(detector: Calibrating, good: Scored) -> list[str]:
    """Note that the threshold that counted was chosen by some of these images."""
    held = detector.calibration_set
    score = detector.settings.score
    kept = detector.set_by_hand("threshold", score, kept_alone=True)
    if held is None or kept is not None:
        return []
    again = len(set(held.good.digests) & set(good.digests))
    return (
        [
            f"the threshold until now was chosen by {again} of these images, so its false alarms "
            "look fewer than they are"
        ]
        if again
        else []
    )


def _counted(rate: Rate, most: str) -> str:
    interval = f"({percent(rate.low)} to {percent(rate.high)})"
    if most:
        return f"{most}{percent(rate.value)} {interval}"
    return f"{rate.count} of {rate.n}, {percent(rate.value)} {interval}"
