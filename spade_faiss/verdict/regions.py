"""The places that are wrong, and the good patch that each should have looked like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from ..images import Framing
from ..index import Index
from ..types import Floats, Ids
from .judge import over

Box = tuple[float, float, float, float]


class Found(Protocol):
    """What was found of an image, such as a detector's `Result`.

    Attributes
    ----------
    map : float32 [H, W]
        Anomaly map on the image's own pixel grid.
    distances : sequence of float32 [h, w]
        Per level, each patch's distance to its nearest good patches.
    matches : sequence of int64 [h, w]
        Per level, each patch's nearest good patch, as a row of the index's level.
    """

    @property
    def map(self) -> Floats: ...  # noqa: D102
    @property
    def distances(self) -> Sequence[Floats]: ...  # noqa: D102
    @property
    def matches(self) -> Sequence[Ids]: ...  # noqa: D102


@dataclass(frozen=True)
class Match:
    """The good patch that one level found nearest to a region's peak.

    Attributes
    ----------
    level : int
        Pyramid level, 1 the finest.
    distance : float
        Euclidean distance between the features (mean over the kappa nearest).
    image : str
        Path of the training image.
    row : int
        Its place in the index.
    patch : (int, int)
        Column and row of the good patch in its level.
    box, query_box : (left, top, right, bottom)
        The good patch in pixels of the training image, and the query's in those of its own.
    """

    level: int
    distance: float
    image: str
    row: int
    patch: tuple[int, int]
    box: Box
    query_box: Box


@dataclass(frozen=True)
class Region:
    """A connected region (8 neighbours) over the pixel threshold, in the image's own pixels.

    Attributes
    ----------
    box : (left, top, right, bottom)
        Right and bottom are exclusive.
    area : int
        Pixels.
    peak : float
        The map's largest value within.
    peak_at : (x, y)
    matches : tuple of Match
        One a level, the level that contributes most to the peak first.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float
    peak_at: tuple[int, int]
    matches: tuple[Match, ...]


def find_regions(result: Found, index: Index, threshold: float) -> list[Region]:
    """Return the regions of a result's map over a threshold, the highest peak first."""
    wrong = over(result.map, threshold).view(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(wrong, connectivity=8)
    regions = []
    for number in range(1, count):  # 0 is what lies under the threshold
        left, top, width, height, area = boxes[number].tolist()
        box = np.s_[top : top + height, left : left + width]
        own = np.where(labels[box] == number, result.map[box], -np.inf)
        y, x = divmod(int(own.argmax()), width)
        peak_at = left + x, top + y
        regions.append(
            Region(
                (left, top, left + width, top + height),
                area,
                float(own[y, x]),
                peak_at,
                _matches(result, index, peak_at),
            )
        )
    return sorted(regions, key=lambda region: -region.peak)


def _matches(result: Found, index: Index, peak: tuple[int, int]) -> tuple[Match, ...]:
    framing = index.manifest.framing.framing()
    size = result.map.shape[0], result.map.shape[1]
    x, y = framing.to_input(peak, size)
    matches = []
    for number, level in enumerate(index.manifest.levels):
        column, line = x * level.width // framing.size[1], y * level.height // framing.size[0]
        image, patch = divmod(int(result.matches[number][line, column]), level.patches)
        good = patch % level.width, patch // level.width
        record = index.manifest.images[image]
        shape = level.height, level.width
        matches.append(
            Match(
                number + 1,
                float(result.distances[number][line, column]),
                record.path,
                image,
                good,
                _cell(good, shape, framing, (record.height, record.width)),
                _cell((column, line), shape, framing, size),
            )
        )
    return tuple(sorted(matches, key=lambda match: -match.distance))


def _cell(
    patch: tuple[int, int], shape: tuple[int, int], framing: Framing, original: tuple[int, int]
) -> Box:
    """Return a patch's cell of the level's grid in pixels of the original image."""
    high, wide = framing.size[0] / shape[0], framing.size[1] / shape[1]
    x, y = patch
    box = framing.to_original((x * wide, y * high, (x + 1) * wide, (y + 1) * high), original)
    left, top, right, bottom = (round(side, 1) for side in box)
    return left, top, right, bottom
