"""What a query's page shows of each image: a card, of which only the worst images' are kept."""

from __future__ import annotations

import heapq
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from ..detector.result import Result
from ..images.coverage import looked_at_on
from ..index import Index
from ..pictures.colours import Picture
from ..pictures.drawing import SHOWN_REGIONS, View, closer_looks
from ..verdict import Finding, Region, shown_map
from .layers import encoded, layers_of

MOST_CARDS = 2000
"""Images that a report shows, the worst; more would be no use to a person, nor to a browser."""
_BUDGET = 48 << 20
_LEAST, _MOST = 12 << 10, 192 << 10
_FEW = 200
_SIDE, _SIDE_OF_FEW = 320, 512

Card = Mapping[str, Any]


class Cards:
    """Keeps the cards of the images that score highest; from any thread.

    They wait in a file without a name, so that memory does not grow with their number.

    Parameters
    ----------
    folder : Path
        Where that file is made.
    most : int
        Cards to keep.
    """

    def __init__(self, folder: Path, most: int = MOST_CARDS) -> None:
        self._most = most
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._lock = Lock()
        self._numbers = count()
        # Score, number, and where the card is. Of equal scores the later image, whose number is
        # less, goes first.
        self._kept: list[tuple[float, int, int, int]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, score: float, make: Callable[[], Card]) -> None:
        """Keep the card that a function makes, unless enough images are worse."""
        with self._lock:
            number = -next(self._numbers)
            if len(self._kept) == self._most and self._kept[0] >= (score, number):
                return
        data = json.dumps(make()).encode()
        with self._lock:
            self._file.seek(0, 2)
            entry = (score, number, self._file.tell(), len(data))
            self._file.write(data)
            if len(self._kept) < self._most:
                heapq.heappush(self._kept, entry)
            else:
                heapq.heappushpop(self._kept, entry)

    @property
    def lowest(self) -> float:
        """The score from which on cards are kept."""
        return self._kept[0][0] if len(self._kept) == self._most else -math.inf

    def worst_first(self) -> Iterator[dict[str, Any]]:
        """Yield the cards; of equal scores the earlier image's first."""
        for _, _, start, length in sorted(self._kept, key=lambda one: (-one[0], -one[1])):
            self._file.seek(start)
            yield json.loads(self._file.read(length))


def room_for(cards: int) -> tuple[int, int]:
    """Return how many pixels a side pictures may have, and bytes those of a card, of so many cards.

    A card takes 12 to 192 KiB, and all together 48 MiB where each can be had in that, which base64
    makes 64 MiB.
    """
    size = min(max(_BUDGET // cards, _LEAST), _MOST)
    return (_SIDE_OF_FEW if cards <= _FEW else _SIDE), size


def card_of(
    result: Result,
    finding: Finding,
    index: Index,
    room: tuple[int, int],
    short: Callable[[str], str],
    closeup: str | None = None,
) -> Card:
    """Return an image's card, as JSON values.

    Parameters
    ----------
    result : Result
    finding : Finding
    index : Index
        That the image was compared with.
    room : (int, int)
        Pixels a side, and bytes; see `room_for`.
    short : callable
        Given a training image's path, returns its name.
    closeup : str, optional
        What its pictures at their own resolution are called.
    """
    size = result.map.shape[0], result.map.shape[1]
    looked_at = looked_at_on(index.manifest.framing.framing(), size)
    limit = finding.pixel_threshold
    values = shown_map(result, limit)
    layers = layers_of(result.image, values, room[0], limit, looked_at=looked_at)
    pictures: dict[str, Picture] = dict(layers.pictures)
    shown = []
    for i, region in enumerate(finding.regions[:SHOWN_REGIONS]):
        here, good = closer_looks(result, index, region)
        pictures |= {f"here{i}": here.picture, f"good{i}": good.picture}
        shown.append(_region(region, (size[1], size[0]), here, good, short))
    return {
        "name": result.name,
        "score": finding.score,
        "peak": result.peak,
        "verdict": finding.verdict,
        "size": layers.size,
        "pixels": [size[1], size[0]],
        "side": max(layers.pictures["photo"].shape[:2]),
        "closeup": closeup,
        "regions": shown,
        "more": len(finding.regions) - len(shown),
        "paths": layers.paths,
        "pictures": encoded(pictures, room[1]),
    }


def _region(
    region: Region, size: tuple[int, int], here: View, good: View, short: Callable[[str], str]
) -> dict[str, Any]:
    """Return what a card says of a region of an image of a width and height."""
    return {
        "box": _percent(region.box, size),
        "peak": region.peak,
        "area": region.area,
        "image": short(region.matches[0].image),
        "here": _percent(here.box, here.picture.shape[:2]),
        "good": _percent(good.box, good.picture.shape[:2]),
        "matches": [
            {"level": match.level, "distance": match.distance, "image": short(match.image)}
            for match in region.matches
        ],
    }


def _percent(box: Sequence[float], size: Sequence[int]) -> list[float]:
    """Return a box (left, top, right, bottom) as left, top, width and height in percent."""
    left, top, right, bottom = (100 * side / size[i % 2] for i, side in enumerate(box))
    return [round(value, 2) for value in (left, top, right - left, bottom - top)]
