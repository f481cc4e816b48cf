"""Settings of a sweep, and the results of an image at each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import tee

from ..detector import Detector, Result
from ..detector.maps import with_levels
from ..detector.pipeline import Batch, Pipeline
from ..detector.query import by_stages, compare, query_by
from ..images import Images, OnError


@dataclass(frozen=True)
class Point:
    """The settings by which features are turned into scores.

    Attributes
    ----------
    k, kappa : int
    sigma : float
    levels : tuple of int or None
        Levels that a map averages, 1 the finest; None for all.
    """

    k: int
    kappa: int
    sigma: float
    levels: tuple[int, ...] | None = None


def point_of(detector: Detector) -> Point:
    """Return the settings that a detector has."""
    return Point(detector.settings.k, detector.settings.kappa, detector.settings.sigma)


def results_at(
    detector: Detector,
    images: Images,
    points: Sequence[Point],
    on_error: OnError | None = None,
) -> Iterator[Sequence[Result]]:
    """Yield each image's results, one for each point.

    Features are extracted once. Points that share `k` and `kappa` share the search, too.

    Parameters
    ----------
    detector : Detector
        Fitted. The results of an ensemble are had at its own settings alone.
    images : folder, paths, arrays, or others; see `spade_faiss.images.Images`
    points : sequence of Point
    on_error : callable, optional
        Called with (name, why) for an image that cannot be used; it is left out.
    """
    if list(points) == [point_of(detector)]:
        return ([result] for result in detector.query(images, on_error))
    assert not detector.is_ensemble
    at_points = partial(_at_points, points=tuple(points))
    return query_by(detector.pipeline, images, at_points, on_error)


def _at_points(pipeline: Pipeline, batch: Batch, points: Sequence[Point]) -> Iterator[list[Result]]:
    """Yield the results of each image of a batch, one for each point."""
    searches = list(dict.fromkeys((point.k, point.kappa) for point in points))
    of = compare if len(searches) == 1 else by_stages  # the features are the same for all
    compared = [
        of(pipeline.by(k=k, kappa=kappa), replace(batch, parts=parts))
        for (k, kappa), parts in zip(searches, tee(batch.parts, len(searches)), strict=True)
    ]
    for results in zip(*compared, strict=True):
        found = dict(zip(searches, results, strict=True))
        yield [_mapped(pipeline, found[point.k, point.kappa], point) for point in points]


def _mapped(pipeline: Pipeline, result: Result, point: Point) -> Result:
    """Return a result with the maps that a point's smoothing and levels give."""
    if (point.sigma, point.levels) == (pipeline.settings.sigma, None):
        return result
    return with_levels(pipeline.by(sigma=point.sigma), result, point.levels)
