"""The test images that a detector was most wrong about, small enough for a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.text import printable
from ..detector import Result
from ..pictures.colours import FULL, resized
from ..pictures.drawing import fitted, in_size
from ..report.layers import encoded, layers_of
from ..types import SCORES, Mask
from .truth import GroundTruth

_MISSES = 4
_SIDE = 256
_BYTES = 40 << 10


@dataclass(frozen=True)
class _Kept:
    """A test image, small."""

    name: str
    anomalous: bool
    pixels: tuple[int, int]
    scores: Mapping[str, float]
    image: npt.NDArray[np.uint8]
    map: npt.NDArray[np.float32]
    mask: Mask | None
    looked_at: Mask | None
    place: tuple[str, int] | None


class WorstMisses:
    """Takes results as they come, and keeps the few that are most wrong.

    These are the good images that score highest and the defects that score lowest, by each of
    the three scores. Of a clip's frames, which resemble each other, the worst alone is kept.

    Parameters
    ----------
    original_size : bool
        Whether maps are scored on the images' own grids.
    """

    def __init__(self, *, original_size: bool = False) -> None:
        self._original_size = original_size
        # By score, and by whether the image has a defect; then by clip, or by the image itself. The
        # larger the first, the worse.
        self._worst: dict[tuple[str, bool], dict[str | int, tuple[float, int, _Kept]]] = {
            (score, anomalous): {} for score in SCORES for anomalous in (False, True)
        }

    def add(self, result: Result, truth: GroundTruth) -> None:
        """Take the result of a test image."""
        scores = {
            "map": float(result.input_map.max()),
            "descriptor": result.descriptor_score,
            "mean": result.mean_score,
        }
        group = truth.place[0] if truth.place else result.position
        kept: _Kept | None = None
        for score, value in scores.items():
            worst = self._worst[score, truth.anomalous]
            bad = -value if truth.anomalous else value
            if group in worst:
                least: str | int | None = group
            elif len(worst) == _MISSES:
                least = min(worst, key=lambda one: worst[one][:2])
            else:
                least = None
            if least is not None:
                if bad <= worst[least][0]:
                    continue
                del worst[least]
            kept = kept or self._keep(result, truth, scores)
            worst[group] = bad, -result.position, kept

    def cards(
        self,
        scores: Mapping[str, Sequence[float]],
        labels: Sequence[bool],
        pixel_threshold: float | None,
    ) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Return what a report shows of the images, by score and by `defects` or `good`.

        Parameters
        ----------
        scores : mapping of str to float [n]
            All images' scores, by the name of the score: "map", say.
        labels : bool [n]
            Whether each image has a defect.
        pixel_threshold : float or None
            The map's value above which a pixel is shown as a defect.
        """
        defects, top = np.array(labels, bool), self._top()
        return {
            score: {
                "defects" if anomalous else "good": [
                    _card(
                        kept,
                        _confused(kept, score, np.array(scores[score]), defects),
                        pixel_threshold,
                        top,
                    )
                    for _, _, kept in sorted(self._worst[score, anomalous].values(), reverse=True)
                ]
                for anomalous in (False, True)
            }
            for score in scores
        }

    def _keep(self, result: Result, truth: GroundTruth, scores: Mapping[str, float]) -> _Kept:
        """Return a small copy of what was scored."""
        image, values = (
            (result.image, result.map) if self._original_size else (result.input, result.input_map)
        )
        small = fitted(image, min(_SIDE, max(image.shape[:2])))
        size = small.shape[1], small.shape[0]
        return _Kept(
            name=result.name,
            anomalous=truth.anomalous,
            pixels=(result.map.shape[1], result.map.shape[0]),
            scores=scores,
            image=small,
            map=resized(values, size),
            mask=None if truth.mask is None else in_size(truth.mask, small),
            looked_at=None if truth.looked_at is None else in_size(truth.looked_at, small),
            place=truth.place,
        )

    def _top(self) -> float:
        """Return where colours end, of all images alike, if no mask tells of a threshold."""
        kept = [one for worst in self._worst.values() for _, _, one in worst.values()]
        return FULL * float(np.median([one.map.max() for one in kept]))


def _card(kept: _Kept, confused: float, limit: float | None, top: float) -> dict[str, Any]:
    """Return what a report shows of an image, as JSON values."""
    layers = layers_of(
        kept.image, kept.map, _SIDE, limit, top=top, looked_at=kept.looked_at, truth=kept.mask
    )
    return {
        "name": printable(kept.name),
        "wrong": kept.anomalous,
        "place": kept.place and (printable(kept.place[0]), kept.place[1]),
        "scores": dict(kept.scores),
        "confused": confused,
        "size": layers.size,
        "pixels": kept.pixels,
        "side": max(layers.pictures["photo"].shape[:2]),
        "paths": dict(layers.paths),
        "pictures": encoded(layers.pictures, _BYTES),
    }


def _confused(
    kept: _Kept, score: str, scores: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]
) -> float:
    """Return the share of the other kind's images that are on the wrong side of this one."""
    others = scores[labels != kept.anomalous]
    own = kept.scores[score]
    return float((others >= own if kept.anomalous else others <= own).mean())
