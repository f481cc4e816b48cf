"""The figures of one category, as `results.json` holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy.typing as npt

from ..metrics import average_precision, best_f1, image_rocauc
from .confusion import RECORDED, Confusion

METRICS = (
    "image_rocauc",
    "image_rocauc_map_max",
    "image_rocauc_map_mean",
    "image_ap",
    "image_ap_map_max",
    "image_ap_map_mean",
    "image_f1",
    "image_f1_map_max",
    "image_f1_map_mean",
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
    image_rocauc_map_mean : float or None
        By the anomaly map's power mean; None if an older version left none.
    pixel_rocauc, pro : float or None
        Of the maps; PRO to a false-positive rate of 0.3. None where there are no masks.
    n_train, n_test : int
        Images.
    seconds : float
        From the first training image to the last metric.
    stages : dict of str to float
        Seconds of these for features (decoding included), index, calibration, stage_one,
        stage_two, maps and metrics; on a GPU, of the two stages and the maps together, for begin
        (the host's) and wait (the GPU's).
    extra : dict of str to float
        Further metrics, by name.
    image_ap, image_ap_map_max, image_ap_map_mean : float or None
        Average precision of the same three scores; None where not computed.
    image_f1, image_f1_map_max, image_f1_map_mean : float or None
        The greatest F1 of these, likewise.
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
    image_rocauc_map_mean: float | None = None
    image_ap_map_mean: float | None = None
    image_f1_map_mean: float | None = None
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
    descriptor_scores: npt.ArrayLike,
    peaks: npt.ArrayLike,
    means: npt.ArrayLike,
    labels: npt.ArrayLike,
) -> dict[str, Any]:
    """Return the average precision and the greatest F1 of test images, by each of three scores.

    And the ROCAUC by the maps' power means. By the names that `Scores` has for them; parameters
    and errors as `image_rocauc` has them.
    """
    by_name = {"": descriptor_scores, "_map_max": peaks, "_map_mean": means}
    return {
        "image_rocauc_map_mean": image_rocauc(means, labels),
        **{f"image_ap{name}": average_precision(own, labels) for name, own in by_name.items()},
        **{f"image_f1{name}": best_f1(own, labels)[0] for name, own in by_name.items()},
    }
