"""What an index's own threshold makes of test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..datasets.category import GOOD
from ..detector import Result
from ..verdict.judge import over
from ..verdict.rates import CONFIDENCE, Rate, observed_rate
from .truth import GroundTruth


@dataclass(frozen=True)
class Confusion:
    """What a threshold makes of test images that it knows nothing of.

    Attributes
    ----------
    score : {"map", "descriptor", "mean"}
        The score that decides; a map's is its largest value on the image's own grid.
    threshold : float
        A score above it is called a defect.
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


def confusion_at(
    threshold: float, scores: npt.ArrayLike, kinds: Sequence[str], score: str = "map"
) -> Confusion | None:
    """Count what a threshold calls a defect, and what is one.

    Parameters
    ----------
    threshold : float
    scores : real [n]
    kinds : sequence of str [n]
        What each image is: `good`, or a kind of defect.
    score : {"map", "descriptor", "mean"}
        What the scores are.

    Returns
    -------
    Confusion or None
        None where there is no good image or no defect.
    """
    called = over(np.asarray(scores, np.float64), threshold)
    of = np.array(kinds, object)
    wrong = of != GOOD
    if not 0 < wrong.sum() < len(wrong):
        return None

    def rate(which: npt.NDArray[np.bool_]) -> Rate:
        return observed_rate(int((called & which).sum()), int(which.sum()))

    each = {kind: rate(of == kind) for kind in sorted(set(of[wrong].tolist()))}
    return Confusion(score, threshold, rate(wrong), rate(~wrong), each)


class ConfusionCounter:
    """Takes the results of test images, in any order, and calls each by a threshold.

    Parameters
    ----------
    threshold : float or None
        None where there is none, and nothing to count.
    score : {"map", "descriptor", "mean"}
        The score that decides.

    Attributes
    ----------
    scores : list of float
        Of the images so far.
    """

    def __init__(self, threshold: float | None, score: str = "map") -> None:
        self.threshold = threshold
        self.score = score
        self.scores: list[float] = []
        self._kinds: list[str] = []

    def add(self, result: Result, truth: GroundTruth) -> None:
        """Take the result of a test image."""
        self.scores.append(result.score(self.score))
        self._kinds.append(truth.kind)

    def compute(self) -> Confusion | None:
        """Return the counts so far; None without a threshold, a good image or a defect."""
        if self.threshold is None:
            return None
        return confusion_at(self.threshold, self.scores, self._kinds, self.score)


def _found(rate: Rate) -> dict[str, Any]:
    return {
        "found": rate.count,
        "missed": rate.n - rate.count,
        "found_rate": rate.value,
        "found_interval": [rate.low, rate.high],
    }


def _rate_found(record: Mapping[str, Any]) -> Rate:
    return observed_rate(record["found"], record["found"] + record["missed"])
