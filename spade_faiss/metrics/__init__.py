"""Exact metrics of anomaly detection, per image and per pixel.

PRO, sPRO, AUPIMO, ROCAUC, average precision and the best F1 depend on the scores only through
how many good ones lie above and level with each defect's. Those counts are made here once, in
integers, by looking the defect scores (few) up in the sorted good ones (many); no score is binned
and no threshold is sampled.
"""

from .image import average_precision, best_f1, image_rocauc, roc_curve
from .pixel import (
    aupimo,
    aupimo_per_image,
    pixel_average_precision,
    pixel_best_f1,
    pixel_metrics,
    pixel_roc_curve,
    pixel_rocauc,
    pro,
    pro_curve,
    spro,
)
from .ranking import Curve
from .stream import PixelMetrics, PixelScores

__all__ = [
    "Curve",
    "PixelMetrics",
    "PixelScores",
    "aupimo",
    "aupimo_per_image",
    "average_precision",
    "best_f1",
    "image_rocauc",
    "pixel_average_precision",
    "pixel_best_f1",
    "pixel_metrics",
    "pixel_roc_curve",
    "pixel_rocauc",
    "pro",
    "pro_curve",
    "roc_curve",
    "spro",
]
