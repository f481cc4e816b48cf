"""Try an index on images that are not in it, and choose its thresholds by the good ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from .errors import SpadeError
from .index import Manifest, index_lock
from .index.manifest import HeldOut, Scored
from .rates import Rate, chosen_rate, images_needed, observed_rate, percent
from .threshold import good_threshold
from .verdict.notes import BatchNotes

if TYPE_CHECKING:
    from .detector import Images, Result, Spade
    from .images import OnError


@dataclass(frozen=True)
class Judged:
    """A threshold, and how it does on images that are not in the index.

    Attributes
    ----------
    threshold : float
    false_alarms : Rate
        Good images that it calls wrong.
    found : Rate or None
        Defects that it calls wrong; None where there were none.
    """

    threshold: float
    false_alarms: Rate
    found: Rate | None


@dataclass(frozen=True)
class Report:
    """What a calibration says.

    Attributes
    ----------
    score : {"map", "descriptor"}
        The score that this is about; thresholds for both were stored.
    good, defects : int
        Images that were used.
    wished : float
        The wished rate of false alarms.
    needed : int
        Good images from which on that rate is held whatever the scores' distribution.
    present : Judged or None
        The threshold until now, which knew nothing of these images; None where there was none.
    chosen : Judged
        The new threshold. Its `false_alarms` are those to expect, not those counted among the
        images that it was chosen by: see `spade_faiss.rates.chosen_rate`.
    notes : tuple of str
        What should be known before these figures are relied on.
    """

    score: str
    good: int
    defects: int
    wished: float
    needed: int
    present: Judged | None
    chosen: Judged
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return the report as a table for a person."""
        def row(title: str, judged: Judged, most: str) -> str:
            alarms, found = judged.false_alarms, judged.found
            return (f"{title:8}{judged.threshold:<10.4g} {_counted(alarms, most):44} "
                    f"{_counted(found, '') if found else ''}").rstrip()

        lines = [f"{'':8}{'threshold':10} {'false alarms':44} "
                 f"{'defects found' if self.defects else ''}".rstrip()]
        if self.present:
            lines.append(row("before", self.present, ""))
        lines += [row("now", self.chosen, "expect at most "),
                  "in brackets: where the rate lies with 95 % confidence",
                  *(f"note: {note}" for note in self.notes)]
        return "\n".join(lines)


def calibrate(
    spade: Spade, images: Images, defects: Images | None = None, *,
    false_alarms: float | None = None, on_error: OnError | None = None,
) -> Report:
    """Do what `Spade.calibrate` says."""
    rate = round(1 - spade.quantile, 12) if false_alarms is None else false_alarms
    if not 0 < rate < 1:
        raise SpadeError(f"false_alarms = {rate} must lie between 0 and 1 (0.005 is one in 200)")
    quantile = spade.quantile if false_alarms is None else 1 - rate
    trial = _Trial(spade, on_error)
    good = trial.scored(images)
    bad = _Scores() if defects is None else trial.scored(defects, good)
    n = len(good.rows)
    if n < 2:
        raise SpadeError(
            f"{n} good image{'' if n == 1 else 's'} to calibrate with, not in the index: give two "
            f"or more ({images_needed(quantile)} hold {percent(rate)} whatever their scores)")
    right, wrong = good.record(), bad.record()
    notes = [*_notes(spade, right, quantile), *trial.noted.lines()]
    present = _judged(spade, spade.image_threshold, right, wrong)
    limits = [good_threshold(scores, quantile)
              for scores in (right.descriptor_scores, right.peaks)]
    assert limits[0] is not None and limits[1] is not None  # there are two images or more
    _store(spade, HeldOut(
        created=datetime.now(UTC).isoformat(timespec="seconds"), quantile=quantile,
        k=spade.k, kappa=spade.kappa, sigma=spade.sigma, search=spade.gallery_search,
        good=right, defects=wrong,
        descriptor_threshold=limits[0], pixel_threshold=limits[1],
    ))
    spade.quantile = quantile
    chosen = _judged(spade, spade.image_threshold, right, wrong)
    assert chosen is not None
    count = chosen.false_alarms.count
    return Report(
        spade.score, n, len(bad.rows), rate, images_needed(quantile), present,
        Judged(chosen.threshold, chosen_rate(count, n, quantile), chosen.found), tuple(notes))


@dataclass
class _Scores:
    """Images by the digest of what the network saw: name, descriptor score and peak."""

    rows: dict[str, tuple[str, float, float]] = field(default_factory=dict)

    def record(self) -> Scored:
        names, scores, peaks = zip(*self.rows.values(), strict=True) if self.rows else ((),) * 3
        return Scored(names=names, digests=tuple(self.rows), descriptor_scores=scores, peaks=peaks)


@dataclass
class _Trial:
    spade: Spade
    on_error: OnError | None
    noted: BatchNotes = field(default_factory=BatchNotes)

    def scored(self, images: Images, good: _Scores | None = None) -> _Scores:
        """Score images, but none twice and none of the index; defects are not `good`, either."""
        scores = _Scores()
        for result in self.spade.query(images, self.on_error):
            digest = hashlib.sha256(np.ascontiguousarray(result.input).data).hexdigest()[:16]
            if (same := self._trained_on(result)) is not None:
                self._leave_out(result, f"is in the index, as {same}, and says nothing of new ones")
            elif digest in scores.rows:
                self._leave_out(result, f"shows what {scores.rows[digest][0]} shows; it counts "
                                        "once")
            elif good and digest in good.rows:
                self._leave_out(result, "is given as good and as a defect; it counts as neither")
                del good.rows[digest]
            else:
                self.noted.add(result.name, result.notes)
                scores.rows[digest] = result.name, result.descriptor_score, result.peak
        return scores

    def _trained_on(self, result: Result) -> str | None:
        """Return the path of the training image that gave the network the same pixels."""
        index = self.spade.index_
        for i in result.neighbours.tolist():
            if np.array_equal(index.crops[i], result.input):
                path: str = index.manifest.images[i].path
                return path
        return None

    def _leave_out(self, result: Result, why: str) -> None:
        if self.on_error is None:
            raise SpadeError(f"{result.name}: {why}")
        self.on_error(result.name, f"{why}; left out")


def _judged(spade: Spade, limit: float | None, good: Scored, bad: Scored) -> Judged | None:
    if limit is None:
        return None
    rates = []
    for scores in (good, bad):
        values = np.asarray(scores.scores(spade.score))
        over = int((values > limit).sum())
        rates.append(observed_rate(over, len(values)) if len(values) else None)
    assert rates[0] is not None
    return Judged(limit, rates[0], rates[1])


def _notes(spade: Spade, good: Scored, quantile: float) -> list[str]:
    n, needed, wish = len(good.names), images_needed(quantile), percent(1 - quantile)
    notes = []
    limit = spade.image_threshold
    over = 0 if limit is None else sum(
        value > limit for value in good.scores(spade.score))
    if 2 * over > n:
        notes.append(f"{over} of {n} images given as good are over the threshold until now: if "
                     "they are not good, or not taken as the index's were, leave them out")
    if spade.held_out:
        again = len(set(spade.held_out.good.digests) & set(good.digests))
        if again:
            notes.append(f"the threshold until now was chosen by {again} of these images, so its "
                         "false alarms look fewer than they are")
    if n < needed:
        notes.append(
            f"{n} good images cannot show that {wish} is held, {needed} can; the new threshold "
            f"holds it if good scores are log-normal, and whatever they are the rate to expect "
            f"is at most 1 in {n + 1}")
    return notes


def _store(spade: Spade, held_out: HeldOut) -> None:
    """Put a calibration into the manifest, if the index is still the one that it is of."""
    index = spade.index_
    try:
        with index_lock(index.folder):
            now = Manifest.read(index.folder)
            if now.generation != index.manifest.generation:
                raise SpadeError(f"{index.folder} was changed meanwhile; calibrate it again")
            manifest = now.extended(held_out=held_out)
            manifest.write(index.folder)
    except OSError as error:
        raise SpadeError(f"{index.folder} cannot be written: {error.strerror or error}; "
                         "what was there before is whole") from None
    index.manifest = manifest


def _counted(rate: Rate, most: str) -> str:
    interval = f"({percent(rate.low)} to {percent(rate.high)})"
    if most:
        return f"{most}{percent(rate.value)} {interval}"
    return f"{rate.count} of {rate.n}, {percent(rate.value)} {interval}"
