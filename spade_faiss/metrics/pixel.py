"""Metrics of anomaly maps: pixels and regions against ground-truth masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from ..types import Doubles
from .arrays import as_mask
from .collect import Images, Region, collect_twice, in_memory
from .pimo import BOUNDS, aupimo_of
from .ranking import Curve
from .stream import PixelMetrics, PixelScores, check_limit, scores_of


def pro(maps: Iterable[Any], masks: Iterable[Any], max_fpr: float = 0.3) -> float:
    """Return the per-region overlap, integrated up to a false-positive rate, exactly.

    A region is an 8-connected component of one image's mask. At a threshold, its overlap is
    the fraction of its pixels scoring at or above; the false-positive rate is that fraction
    of all good pixels. The mean overlap of the regions as a function of that rate, one point
    a distinct score joined by straight lines from (0, 0) on, is integrated up to `max_fpr` and
    divided by it (Bergmann et al., *The MVTec Anomaly Detection Dataset*, IJCV 2021).

    Maps in memory (lists, tuples, arrays, tensors) are gone through twice, and any other
    iterable once. `docs/metrics.md` has the cost, and what other programs compute.

    Parameters
    ----------
    maps : iterable of real [H, W], finite
        Anomaly scores, greater where a defect is likelier; sizes may differ between images.
        NumPy arrays or tensors on any device, brought to the host one at a time.
    masks : iterable of bool or integer [H, W]
        Not zero where the defect is, in the order of the maps.
    max_fpr : float in (0, 1]

    Returns
    -------
    float, 0 to 1

    Raises
    ------
    ValueError
        If a score is NaN or infinite, a map and its mask differ in shape or have not two
        axes, a mask is floating, maps and masks differ in number, there is no image, no
        defect pixel or no good pixel, or `max_fpr` is outside (0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((8, 8), bool)
    >>> mask[2:4, 2:6] = True
    >>> anomaly = np.where(mask, 2.0, 1.0)
    >>> pro([anomaly], [mask]), pixel_rocauc([anomaly], [mask])
    (1.0, 1.0)
    >>> anomaly[2:4, 4:6] = 0  # half of the region is missed
    >>> pro([anomaly], [mask], max_fpr=0.1)
    0.5...
    """
    check_limit(max_fpr)
    pixels = _collect(maps, masks).rank()
    return pixels.ranking.area(pixels.weights, max_fpr)


def spro(maps: Iterable[Any], regions: Iterable[Sequence[Region]], max_fpr: float = 0.3) -> float:
    """Return the saturated per-region overlap, integrated up to a false-positive rate, exactly.

    A region P saturates at an area s: its overlap at a threshold is min(|A ∩ P| / s, 1), where
    A scores at or above. Their mean is integrated as in `pro` (Bergmann et al., *Beyond Dents
    and Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization*, IJCV
    2022). Where the whole region must be found, s is its area. Regions are given one by one,
    and may overlap or lie apart; a pixel in none of them is good.

    Parameters
    ----------
    maps : iterable of real [H, W], finite
        As in `pro`, but kept until the end.
    regions : iterable of sequences of (mask, area)
        Of each image its defects, none if it is good. Masks are bool or integer [H, W], not zero
        where the defect is, somewhere at least. Areas are in pixels, more than 0; one larger than
        its region is that of the region.
    max_fpr : float in (0, 1]

    Returns
    -------
    float, 0 to 1

    Raises
    ------
    ValueError
        If a region has another shape than its map, no pixel, or no area; else as in `pro`.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((8, 8), bool)
    >>> mask[2:4, 2:6] = True
    >>> anomaly = np.where(mask, 2.0, 1.0)
    >>> anomaly[2:4, 4:6] = 0  # half of the region is missed
    >>> spro([anomaly], [[(mask, 8)]]), spro([anomaly], [[(mask, 4)]])
    (0.5..., 1.0)
    """
    metrics = PixelMetrics(max_fpr)
    for image, (scores, own) in enumerate(_paired(maps, regions, "regions")):
        union = np.zeros(np.shape(scores), bool)
        for number, (mask, _) in enumerate(own):
            region = as_mask(mask, f"image {image}, region {number}")
            if region.shape != union.shape:
                raise ValueError(
                    f"image {image}: the map {list(union.shape)} and region {number} "
                    f"{list(region.shape)} differ"
                )
            union |= region
        metrics.add(scores, union, regions=own)
    return metrics.spro()


def aupimo(
    maps: Iterable[Any], masks: Iterable[Any], bounds: tuple[float, float] = BOUNDS
) -> float:
    """Return the mean over the images with defects of `aupimo_per_image`, 0 to 1.

    Parameters and errors as there.
    """
    return float(np.nanmean(aupimo_per_image(maps, masks, bounds)))


def aupimo_per_image(
    maps: Iterable[Any], masks: Iterable[Any], bounds: tuple[float, float] = BOUNDS
) -> Doubles:
    """Return the area under each image's overlap at low false-positive rates, exactly.

    The false-positive rate F of a threshold is the fraction of a good image's pixels scoring at
    or above, averaged over the good images: those whose masks hold no defect. The overlap T of an
    image with a defect is that fraction of its defect's pixels. T is integrated over the
    logarithm of F between two bounds, and divided by its width: a mean of the recall where
    alarms on good parts are rare (Bertoldo et al., *AUPIMO: Redefining Anomaly Localization
    Benchmarks with High Speed and Low Tolerance*, BMVC 2024).

    T is flat between the scores of good pixels. Where a defect pixel is level with good ones, T
    climbs in a straight line over F, as ROC and PRO do. Below the least F that a threshold
    reaches, T is what is found without a false alarm. `docs/metrics.md` compares other programs.

    Good images of P pixels together show no rate below 1 / P: with fewer than 1 / `bounds[0]`
    the lower end rests on the one highest good score.

    Parameters
    ----------
    maps, masks : iterables
        As in `pro`.
    bounds : (float, float)
        The lower and the upper rate, 0 < lower < upper <= 1.

    Returns
    -------
    float64 [images], 0 to 1
        NaN for a good image.

    Raises
    ------
    ValueError
        If no mask or every mask holds a defect, or the bounds are no rates in order; else as in
        `pro`.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((400, 400), bool)
    >>> mask[2:4, 2:6] = True
    >>> anomaly = np.where(mask, 2.0, 1.0)
    >>> anomaly[2:4, 4:6] = 0  # half of the region is missed
    >>> good = np.linspace(0, 1.5, 160000).reshape(400, 400)
    >>> aupimo_per_image([anomaly, good], [mask, mask & False])
    array([0.5, nan])
    """
    return aupimo_of(_collect(maps, masks), bounds)


def pixel_rocauc(maps: Iterable[Any], masks: Iterable[Any]) -> float:
    """Return the area under the ROC curve of all pixels, exactly, ties counted half.

    Parameters and errors as in `pro`.
    """
    return _collect(maps, masks).rank().ranking.area()


def pixel_average_precision(maps: Iterable[Any], masks: Iterable[Any]) -> float:
    """Return the average precision of all pixels (`average_precision`).

    Parameters and errors as in `pro`.
    """
    return _collect(maps, masks).rank().ranking.average_precision()


def pixel_best_f1(maps: Iterable[Any], masks: Iterable[Any]) -> tuple[float, float]:
    """Return the greatest F1 of all pixels and its threshold (`best_f1`).

    Parameters and errors as in `pro`.
    """
    return _collect(maps, masks).rank().ranking.best_f1()


def pixel_metrics(maps: Iterable[Any], masks: Iterable[Any], max_fpr: float = 0.3) -> PixelScores:
    """Return PRO, ROCAUC, average precision and best F1 for the price of one.

    Parameters and errors as in `pro`.
    """
    check_limit(max_fpr)
    return scores_of(_collect(maps, masks).rank(), max_fpr)


def pro_curve(maps: Iterable[Any], masks: Iterable[Any]) -> Curve:
    """Return the PRO curve: `fpr`, `hit` (the mean overlap) and `thresholds`.

    Points inside a vertical or horizontal run are left out, which changes no line; up to two
    a distinct defect score remain. Parameters and errors as in `pro`.
    """
    pixels = _collect(maps, masks).rank()
    return pixels.ranking.curve(pixels.weights)


def pixel_roc_curve(maps: Iterable[Any], masks: Iterable[Any]) -> Curve:
    """Return the ROC curve of all pixels: `fpr`, `hit` (the true-positive rate), `thresholds`.

    Thinned as in `pro_curve`. Parameters and errors as in `pro`.
    """
    return _collect(maps, masks).rank().ranking.curve()


def _collect(maps: Iterable[Any], masks: Iterable[Any]) -> Images:
    if in_memory(maps) and in_memory(masks):
        return collect_twice(maps, masks)
    metrics = PixelMetrics()
    for scores, mask in _paired(maps, masks, "masks"):
        metrics.add(scores, mask)
    return metrics.images


def _paired(maps: Iterable[Any], others: Iterable[Any], called: str) -> Iterator[tuple[Any, Any]]:
    """Yield maps with what belongs to each; raise ValueError where one of both ends first."""
    missing = object()
    for number, (scores, other) in enumerate(zip_longest(maps, others, fillvalue=missing)):
        if scores is missing or other is missing:
            fewer = "maps" if scores is missing else called
            raise ValueError(f"image {number}: the {fewer} end before the others")
        yield scores, other
