"""Pixel metrics of maps that come one at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..types import Doubles
from .arrays import as_mask
from .collect import (
    Defects,
    Images,
    Pixels,
    Region,
    Spill,
    check_image,
    find_defects,
    saturated_weights,
)
from .pimo import BOUNDS, aupimo_of
from .ranking import Array, Curve

_SPILLED = 1 << 25  # the most that are read back from disk at a time, by all workers together


@dataclass(frozen=True)
class PixelScores:
    """What `PixelMetrics.compute` returns.

    Attributes
    ----------
    pro, pixel_rocauc, pixel_average_precision, pixel_best_f1 : float, 0 to 1
    pixel_best_threshold : float
        The lowest score at which the F1 is reached.
    images, regions, defect_pixels, good_pixels : int
        How many of each were counted.
    """

    pro: float
    pixel_rocauc: float
    pixel_average_precision: float
    pixel_best_f1: float
    pixel_best_threshold: float
    images: int
    regions: int
    defect_pixels: int
    good_pixels: int


class PixelMetrics:
    """PRO and the other pixel metrics of maps that come one at a time, exactly.

    Nothing is binned: every score is kept, at 4 bytes a good and 12 bytes a defect pixel (8 and
    16 where the maps are float64). `docs/metrics.md` has what `compute` and the curves take more.
    For maps that are in memory already, `pixel_metrics` needs far less.

    Parameters
    ----------
    max_fpr : float in (0, 1]
        The false-positive rate up to which PRO and sPRO are integrated.
    spill : path, optional
        A folder in which the good pixels are kept, in a nameless file that goes with this
        object, instead of in memory. `compute` then holds 64 MiB of them a core; the figures
        are the same.

    Raises
    ------
    ValueError
        If `max_fpr` is outside (0, 1].
    """

    def __init__(self, max_fpr: float = 0.3, spill: str | os.PathLike[str] | None = None) -> None:
        self.max_fpr = check_limit(max_fpr)
        self._defects: list[Defects] = []
        self._good: list[Array] | Spill = [] if spill is None else Spill(spill)
        self._ranked: Pixels | None = None

    def add(
        self,
        map: Any,
        mask: Any,
        name: str | None = None,
        regions: Sequence[Region] = (),
        looked_at: Any = None,
    ) -> None:
        """Count one image.

        Parameters
        ----------
        map : real [H, W], finite
            Anomaly scores, greater where a defect is likelier. A NumPy array or a tensor on
            any device; the pixels are copied, to the host.
        mask : bool or integer [H, W]
            Not zero where the defect is.
        name : str, optional
            What an error calls the image, beside its number.
        regions : sequence of (mask, area), optional
            For sPRO: each defect by itself, as in `spro`; `mask` is their union.
        looked_at : bool or integer [H, W], optional
            Not zero where pixels count; the others are neither good nor a defect's, and a
            defect is what counts of it. By default all count.

        Raises
        ------
        ValueError
            If a score is NaN or infinite, the shapes differ or have not two axes, a mask is
            floating, or the regions do not make up the mask. The image is then not counted.
        """
        title = f"image {len(self._defects)}" + (f" ({name})" if name else "")
        scores, defect = check_image(map, mask, title)
        good = ~defect
        if looked_at is not None:
            counts = as_mask(looked_at, f"{title}, what is looked at")
            if counts.shape != scores.shape:
                raise ValueError(
                    f"{title}: the map {list(scores.shape)} and what is looked at "
                    f"{list(counts.shape)} differ"
                )
            defect, good = defect & counts, good & counts
            own = [(as_mask(one, f"{title}, a region") & counts, area) for one, area in regions]
            regions = [(one, area) for one, area in own if one.any()]
        saturated = saturated_weights(scores, defect, regions, title) if regions else None
        self._ranked = None
        found = find_defects(scores, defect, saturated, good)
        self._good.append(scores[good])
        self._defects.append(found)

    def compute(self) -> PixelScores:
        """Return the metrics of the images so far; more may be added after.

        Raises
        ------
        ValueError
            If there is no image, no defect pixel or no good pixel.
        """
        return scores_of(self._rank(), self.max_fpr)

    def spro(self, images: Sequence[int] | None = None) -> float:
        """Return sPRO (`spro`) of the images so far, or of some.

        Parameters
        ----------
        images : sequence of int, optional
            Their numbers, in the order in which they were added, from 0; by default all.

        Raises
        ------
        ValueError
            If an image with a defect was added without regions, or as in `compute`.
        """
        pixels = self._rank() if images is None else self.images.take(images).rank()
        return saturated_area(pixels, self.max_fpr)

    def aupimo(self, bounds: tuple[float, float] = BOUNDS) -> Doubles:
        """Return each image's AUPIMO so far (`aupimo_per_image`), float64 [images].

        Raises
        ------
        ValueError
            As `aupimo_per_image`.
        """
        return aupimo_of(self.images, bounds)

    def roc_curve(self) -> Curve:
        """Return the ROC curve of the images so far (`pixel_roc_curve`)."""
        return self._rank().ranking.curve()

    def pro_curve(self) -> Curve:
        """Return the PRO curve of the images so far (`pro_curve`)."""
        pixels = self._rank()
        return pixels.ranking.curve(pixels.weights)

    @property
    def images(self) -> Images:
        """All images so far."""
        most = _SPILLED if isinstance(self._good, Spill) else None
        return Images(list(self._defects), self._good.__getitem__, most)

    def _rank(self) -> Pixels:
        if self._ranked is None:  # metrics and curves are asked for one after the other
            self._ranked = self.images.rank()
        return self._ranked


def scores_of(pixels: Pixels, max_fpr: float) -> PixelScores:
    """Return all metrics of ranked pixels."""
    ranking = pixels.ranking
    f1, threshold = ranking.best_f1()
    return PixelScores(
        pro=ranking.area(pixels.weights, max_fpr),
        pixel_rocauc=ranking.area(),
        pixel_average_precision=ranking.average_precision(),
        pixel_best_f1=f1,
        pixel_best_threshold=threshold,
        images=pixels.images,
        regions=pixels.regions,
        defect_pixels=len(pixels.weights),
        good_pixels=ranking.good,
    )


def saturated_area(pixels: Pixels, max_fpr: float) -> float:
    """Return sPRO, or raise ValueError if regions are not known of every defect."""
    if pixels.saturated is None:
        raise ValueError("an image with a defect was given without its regions: no sPRO is defined")
    return pixels.ranking.area(pixels.saturated, max_fpr)


def check_limit(max_fpr: float) -> float:
    """Return a false-positive rate, or raise ValueError if it is outside (0, 1]."""
    if not 0 < max_fpr <= 1:
        raise ValueError(f"max_fpr {max_fpr} must lie in (0, 1]")
    return max_fpr
