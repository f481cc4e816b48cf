"""What a report shows of one category besides its figures: curves, scores, the worst misses."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .._support.text import printable
from ..detector import Result
from ..errors import SpadeError
from ..metrics import roc_curve
from ..metrics.ranking import Curve
from ..report.charts import thinned
from ..report.colours import FULL, resized
from ..report.layers import encoded, layers_of
from ..report.pictures import fitted
from ..types import Mask
from .scores import Scorer

_MISSES = 4
_SIDE = 256
_BYTES = 40 << 10


@dataclass(frozen=True)
class _Kept:
    """A test image, small."""

    name: str
    wrong: bool
    pixels: tuple[int, int]
    scores: Mapping[str, float]
    image: npt.NDArray[np.uint8]
    map: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8] | None


class Evidence:
    """Gathers it from results as they come, in memory that does not grow with their number.

    The worst misses are the good images that score highest and the defects that score lowest,
    by each of the two scores.

    Parameters
    ----------
    original_size : bool
        Whether maps are scored on the images' own grids.
    max_fpr : float in (0, 1]
        The false-positive rate up to which PRO is integrated.

    Attributes
    ----------
    record : dict
        All of it as JSON values, once finished.
    """

    def __init__(self, original_size: bool = False, max_fpr: float = 0.3) -> None:
        self._original_size = original_size
        self._max_fpr = max_fpr
        # By score, and by whether the image is wrong: the larger the first, the worse.
        self._worst: dict[tuple[str, bool], list[tuple[float, int, _Kept]]] = {
            (score, wrong): [] for score in ("map", "descriptor") for wrong in (False, True)
        }
        self.record: dict[str, Any] = {}

    def add(self, result: Result, wrong: bool, mask: Mask | None) -> None:
        """Take the result of a test image, and what is known of it."""
        scores = {"map": float(result.input_map.max()), "descriptor": result.descriptor_score}
        kept: _Kept | None = None
        for score, value in scores.items():
            worst = self._worst[score, wrong]
            bad = -value if wrong else value
            if len(worst) == _MISSES and bad <= worst[0][0]:
                continue
            kept = kept or self._keep(result, wrong, mask, scores)
            heapq.heappush(worst, (bad, -result.position, kept))
            if len(worst) > _MISSES:
                heapq.heappop(worst)

    def finish(self, scorer: Scorer, number: int) -> Mapping[str, float]:
        """Make the record of the first point's scorer; return no metrics (see `evaluate_points`).

        Raises
        ------
        SpadeError
            If no curve is defined.
        """
        if number:
            return {}
        curves: dict[str, Any] = {}
        limit = None
        try:
            curves["image_rocauc_map_max"] = _points(roc_curve(scorer.peaks, scorer.labels))
            curves["image_rocauc"] = _points(roc_curve(scorer.descriptor_scores, scorer.labels))
            if pixels := scorer.pixels:
                curves["pixel_rocauc"] = _points(pixels.roc_curve())
                curves["pro"] = _points(pixels.pro_curve(), self._max_fpr)
                limit = pixels.compute().pixel_best_threshold
        except ValueError as error:
            raise SpadeError(f"no metric is defined: {error}") from None
        by_score = {"map": scorer.peaks, "descriptor": scorer.descriptor_scores}
        values = {score: np.array(scores) for score, scores in by_score.items()}
        labels, top = np.array(scorer.labels, bool), self._top()
        self.record = {
            "curves": curves,
            "scores": by_score,
            "labels": labels.astype(int).tolist(),
            "pixel_threshold": limit,
            "judged": scorer.judge
            and {
                "score": scorer.judge.score,
                "threshold": scorer.judge.threshold,
                "scores": scorer.judged,
            },
            "misses": {
                score: {
                    "defects" if wrong else "good": [
                        self._card(kept, _confused(kept, score, values[score], labels), limit, top)
                        for _, _, kept in sorted(self._worst[score, wrong], reverse=True)
                    ]
                    for wrong in (False, True)
                }
                for score in by_score
            },
        }
        return {}

    def _keep(
        self, result: Result, wrong: bool, mask: Mask | None, scores: Mapping[str, float]
    ) -> _Kept:
        """Return a small copy of what was scored."""
        image, values = (
            (result.image, result.map) if self._original_size else (result.input, result.input_map)
        )
        small = fitted(image, min(_SIDE, max(image.shape[:2])))
        size = small.shape[1], small.shape[0]
        low = resized(values, size)
        truth = (
            None
            if mask is None
            else np.asarray(
                cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), np.uint8
            )
        )
        pixels = result.map.shape[1], result.map.shape[0]
        return _Kept(result.name, wrong, pixels, scores, small, low, truth)

    def _top(self) -> float:
        """Return where colours end, of all images alike, if no mask tells of a threshold."""
        kept = [one for worst in self._worst.values() for _, _, one in worst]
        return FULL * float(np.median([one.map.max() for one in kept]))

    def _card(
        self, kept: _Kept, confused: float, limit: float | None, top: float
    ) -> dict[str, Any]:
        layers = layers_of(
            kept.image,
            kept.map,
            _SIDE,
            limit,
            top=top,
            truth=None if kept.mask is None else kept.mask > 0,
        )
        return {
            "name": printable(kept.name),
            "wrong": kept.wrong,
            "scores": dict(kept.scores),
            "confused": confused,
            "size": layers.size,
            "pixels": kept.pixels,
            "paths": dict(layers.paths),
            "pictures": encoded(layers.pictures, _BYTES),
        }


def _confused(
    kept: _Kept, score: str, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]
) -> float:
    """Return the share of the other kind's images that are on the wrong side of this one."""
    others = scores[labels != kept.wrong]
    own = kept.scores[score]
    return float((others >= own if kept.wrong else others <= own).mean())


def _points(curve: Curve, right: float = 1.0) -> tuple[list[float], list[float]]:
    return thinned(curve.fpr, curve.hit, right)
