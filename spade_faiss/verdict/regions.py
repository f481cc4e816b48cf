"""The places that are wrong, and the good patch that each should have looked like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from ..types import Floats, Ids
from .judge import over

if TYPE_CHECKING:
    from ..images import Framing
    from ..index import Index

Box = tuple[float, float, float, float]


class Compared(Protocol):
    """An image that was compared with an index, such as `spade_faiss.Result`."""

    @property
    def map(self) -> Floats:
        """The anomaly map on the image's own grid, float32 [H, W]."""

    @property
    def distances(self) -> tuple[Floats, ...]:
        """Per level, each patch's distance to its nearest good patches, float32 [h, w]."""

    @property
    def matches(self) -> tuple[Ids, ...]:
        """Per level, each patch's nearest good patch, as a row of the level, int64 [h, w]."""

    @property
    def min_area(self) -> int | None:
        """Pixels that a region must have; None if each counts."""


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
    matches: tuple[Match, ...] = field(repr=False)


def find_regions(result: Compared, index: Index, threshold: float) -> list[Region]:
    """Return the regions of an image's map over a threshold, the highest peak first.

    Those with fewer pixels than count (`result.min_area`) are left out.
    """
    wrong = over(result.map, threshold).view(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(wrong, connectivity=8)
    regions = []
    for number in range(1, count):  # 0 is what lies under the threshold
        if boxes[number, cv2.CC_STAT_AREA] < (result.min_area or 1):
            continue
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


def shown_map(result: Compared, threshold: float | None) -> Floats:
    """Return an image's map for pictures: what is too small to count is not over a threshold.

    Parameters
    ----------
    result : Compared
    threshold : float or None
        None if there is none, and the map is as it is.

    Returns
    -------
    float32 [H, W]
    """
    least = result.min_area
    if threshold is None or least is None:
        return result.map
    wrong = over(result.map, threshold)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(wrong.view(np.uint8), connectivity=8)
    small = (boxes[:, cv2.CC_STAT_AREA] < least)[labels] & wrong
    below = np.nextafter(np.float32(threshold), np.float32(-np.inf))
    shown: Floats = np.where(small, below, result.map)
    return shown


def _matches(result: Compared, index: Index, peak: tuple[int, int]) -> tuple[Match, ...]:
    framing = index.manifest.framing.framing()
    size = result.map.shape[0], result.map.shape[1]
    x, y = framing.to_input(peak, size)
    matches = []
    for number, layout in enumerate(index.layouts):
        height, width = shape = layout.grid
        line, column = layout.nearest_looked_at(
            y * height // framing.size[0], x * width // framing.size[1]
        )
        image, down, right = layout.place(int(result.matches[number][line, column]))
        good = right, down
        record = index.manifest.images[image]
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
