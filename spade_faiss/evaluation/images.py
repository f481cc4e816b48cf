"""Figures of whole images: how well scores rank them, and what an index's threshold makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..datasets.category import GOOD
from ..detector import Detector
from ..metrics import average_precision, best_f1
from ..verdict.judge import over
from ..verdict.rates import CONFIDENCE, Rate, observed_rate


@dataclass(frozen=True)
class Judge:
    """How an index calls its test images.

    Attributes
    ----------
    kinds : sequence of str
        What each test image is: `good`, or a kind of defect.
    score : {"map", "descriptor"}
        The score that decides; a map's is its largest value on the image's own grid.
    threshold : float
        A score above it is called a defect.
    """

    kinds: Sequence[str]
    score: str
    threshold: float


@dataclass(frozen=True)
class Confusion:
    """What a threshold makes of test images that it knows nothing of.

    Attributes
    ----------
    score, threshold
        As of the `Judge`.
    found : Rate
        Defects that are called defects; the others are missed.
    false_alarms : Rate
        Good images that are called defects; the others pass.
    kinds : mapping of str to Rate
        The defects found of each kind.
    """

    score: str
    threshold: float
    found: Rate
    false_alarms: Rate
    kinds: Mapping[str, Rate]

    def record(self) -> dict[str, Any]:
        """Return what `results.json` holds of it: `threshold`, `confusion` and `kinds`.

        Rates lie in 0…1, and so do their intervals, which are Clopper and Pearson's (see
        `spade_faiss.verdict.rates.observed_rate`).
        """
        found, alarms = self.found, self.false_alarms
        return {
            "threshold": self.threshold,
            "confusion": {
                "score": self.score,
                **_found(found),
                "false_alarms": alarms.count,
                "passed": alarms.n - alarms.count,
                "false_alarm_rate": alarms.value,
                "false_alarm_interval": [alarms.low, alarms.high],
                "confidence": CONFIDENCE,
            },
            "kinds": {kind: _found(rate) for kind, rate in self.kinds.items()},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Confusion:
        """Undo `record`."""
        counts = record["confusion"]
        alarms = counts["false_alarms"]
        return cls(
            counts["score"],
            record["threshold"],
            _rate_found(counts),
            observed_rate(alarms, alarms + counts["passed"]),
            {kind: _rate_found(own) for kind, own in record["kinds"].items()},
        )


RECORDED = ("threshold", "confusion", "kinds")
"""What `Confusion.record` holds."""


def judge_of(spade: Detector, kinds: Sequence[str]) -> Judge | None:
    """Return how a fitted detector calls test images; None if it has no threshold."""
    limit = spade.image_threshold
    return None if limit is None else Judge(kinds, spade.score, limit)


def confusion_of(judge: Judge, positions: Sequence[int], scores: npt.ArrayLike) -> Confusion | None:
    """Count what is called a defect, and what is.

    Parameters
    ----------
    judge : Judge
    positions : sequence of int [n]
        The images' places among the test images.
    scores : real [n]
        By the judge's kind of score.

    Returns
    -------
    Confusion or None
        None where there is no good image or no defect.
    """
    kinds = np.array([judge.kinds[at] for at in positions], object)
    called = over(np.asarray(scores, np.float64), judge.threshold)
    wrong = kinds != GOOD
    if not 0 < wrong.sum() < len(wrong):
        return None

    def rate(of: npt.NDArray[np.bool_]) -> Rate:
        return observed_rate(int((called & of).sum()), int(of.sum()))

    named = sorted(set(kinds[wrong].tolist()))
    return Confusion(
        judge.score,
        judge.threshold,
        rate(wrong),
        rate(~wrong),
        {kind: rate(kinds == kind) for kind in named},
    )


def ranked(
    descriptor_scores: npt.ArrayLike, peaks: npt.ArrayLike, labels: npt.ArrayLike
) -> dict[str, Any]:
    """Return the average precision and the greatest F1 of test images, by each of two scores.

    By the names that `Scores` has for them; parameters and errors as `image_rocauc` has them.
    """
    return {
        "image_ap": average_precision(descriptor_scores, labels),
        "image_ap_map_max": average_precision(peaks, labels),
        "image_f1": best_f1(descriptor_scores, labels)[0],
        "image_f1_map_max": best_f1(peaks, labels)[0],
    }


def _found(rate: Rate) -> dict[str, Any]:
    return {
        "found": rate.count,
        "missed": rate.n - rate.count,
        "found_rate": rate.value,
        "found_interval": [rate.low, rate.high],
    }


def _rate_found(record: Mapping[str, Any]) -> Rate:
    return observed_rate(record["found"], record["found"] + record["missed"])
