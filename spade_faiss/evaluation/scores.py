"""The figures of one category, as `results.json` holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy.typing as npt

from ..metrics import average_precision, best_f1
from .confusion import RECORDED, Confusion

METRICS = (
    "image_rocauc",
    "image_rocauc_map_max",
    "image_ap",
    "image_ap_map_max",
    "image_f1",
    "image_f1_map_max",
    "pixel_rocauc",
    "pro",
)
"""In 0…1."""


@dataclass(frozen=True)
class Scores:
    """How well the defects of one category were found; metrics lie in 0…1.

    Attributes
    ----------
    image_rocauc : float
        By the mean squared distance to the K nearest descriptors (SPADE, section 3.2).
    image_rocauc_map_max : float
        By the anomaly map's largest value.
    pixel_rocauc, pro : float or None
        Of the maps; PRO to a false-positive rate of 0.3. None where there are no masks.
    n_train, n_test : int
        Images.
    seconds : float
        From the first training image to the last metric.
    stages : dict of str to float
        Seconds of these for features (decoding included), index, calibration, stage_one,
        stage_two, maps and metrics.
    extra : dict of str to float
        Further metrics, by name.
    image_ap, image_ap_map_max, image_f1, image_f1_map_max : float or None
        Average precision and the greatest F1 of the same two scores; None where not computed.
    confusion : Confusion or None
        What the index's own threshold makes of the images; None where none was drawn.
    """

    image_rocauc: float
    image_rocauc_map_max: float
    pixel_rocauc: float | None
    pro: float | None
    n_train: int
    n_test: int
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)
    image_ap: float | None = None
    image_ap_map_max: float | None = None
    image_f1: float | None = None
    image_f1_map_max: float | None = None
    confusion: Confusion | None = None

    def record(self) -> dict[str, Any]:
        """Return what `results.json` holds of it: nothing of what is None."""
        values: dict[str, Any] = asdict(replace(self, confusion=None))
        extra: dict[str, float] = values.pop("extra")
        metrics = {name: values.pop(name) for name in METRICS}
        del values["confusion"]
        known = {name: value for name, value in metrics.items() if value is not None}
        judged = self.confusion.record() if self.confusion else {}
        return {**known, **extra, **judged, **values}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Scores:
        """Undo `record`."""
        record = {"pixel_rocauc": None, "pro": None, **record}
        judged = Confusion.from_record(record) if "confusion" in record else None
        own = {one.name for one in fields(cls)} & record.keys() - {"confusion"}
        extra = record.keys() - own - {*RECORDED}
        return cls(
            **{name: record[name] for name in own},
            confusion=judged,
            extra={name: record[name] for name in record if name in extra},
        )


def ranking_metrics(
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
