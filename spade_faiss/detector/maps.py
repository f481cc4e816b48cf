"""From distances to maps: of an index's framing, clipped at what an area reaches, and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..index.layout import Layout
from ..maps import anomaly_map, area_peak, power_mean
from ..types import Floats, Ids
from .pipeline import Pipeline
from .result import Result


@dataclass(frozen=True)
class ImageFound:
    """What is found of one image.

    Attributes
    ----------
    score : float
        The mean squared distance to the K nearest descriptors; the largest of the image's parts.
    images : int64 [K]
        The training images that these are of.
    distances : tuple of float32 [h, w]
    matches : tuple of int64 [h, w]
        As a `Result` has them.
    on_input : float32 [h, w]
    placed : float32 [H, W]
        The map on the network's input, and on the image's own grid.
    """

    score: float
    images: Ids
    distances: tuple[Floats, ...]
    matches: tuple[Ids, ...]
    on_input: Floats
    placed: Floats


def maps_of(
    pipeline: Pipeline,
    distances: Sequence[Floats],
    original: tuple[int, int],
    layouts: Sequence[Layout] | None = None,
) -> tuple[Floats, Floats]:
    """Return an anomaly map on the network's input, and on an image of a height and width.

    Both are clipped at what an area of the image of `min_area` pixels reaches. `layouts` are of
    the levels, if these are not all.
    """
    framing, settings = pipeline.framing, pipeline.settings
    looked_at = [
        one.looked_at for one in layouts or pipeline.index.layouts if one.looked_at is not None
    ]
    on_input = anomaly_map(distances, framing.size, settings.sigma, looked_at or None)
    if framing.looked_at is not None:
        on_input[~framing.looked_at] = 0
    placed = framing.place(on_input, original)
    if settings.least_area:
        clip(settings.least_area, on_input, placed)
    return on_input, placed


def clip(min_area: int, on_input: Floats, placed: Floats) -> None:
    """Clip a map, on both grids, in place, at what an area of the image of so many pixels reaches.

    Values between those of the input's pixels are on the image's grid, so that none of these is
    over the largest of those.
    """
    peak = np.float32(area_peak(placed, min_area))
    np.minimum(placed, peak, out=placed)
    np.minimum(on_input, peak, out=on_input)


def with_levels(pipeline: Pipeline, result: Result, levels: Sequence[int] | None) -> Result:
    """Return a result with maps by a pipeline's sigma, and of some levels alone, 1 the finest."""
    numbers = levels or range(1, len(result.distances) + 1)
    chosen = [result.distances[level - 1] for level in numbers]
    layouts = [pipeline.index.layouts[level - 1] for level in numbers]
    original = result.map.shape[0], result.map.shape[1]
    with pipeline.stages("maps"):
        on_input, placed = maps_of(pipeline, chosen, original, layouts)
    return replace(
        result,
        map=placed,
        input_map=on_input,
        mean_score=mean_of(pipeline, on_input),
        min_area=pipeline.settings.least_area,
    )


def mean_of(pipeline: Pipeline, on_input: Floats) -> float:
    """Return the power mean of a map on the input: over what is looked at, or by tiles' squares."""
    framing = pipeline.framing
    side = framing.tiles.side if framing.tiles else None
    return power_mean(on_input, looked_at=framing.looked_at, window=side)


def clipped_mean(
    pipeline: Pipeline, on_input: Floats, placed: Floats, min_area: int | None
) -> float:
    """Return the power mean of a map that is whole, as if it were clipped; see `clip`."""
    if min_area is not None:
        on_input = np.minimum(on_input, np.float32(area_peak(placed, min_area)))
    return mean_of(pipeline, on_input)
