"""Each image's defect and good pixels, found once, and ranked together."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from scipy import ndimage

from ..types import Doubles, Mask
from .arrays import as_mask, as_scores
from .ranking import WORKERS, Array, Ranking, rank

Region = tuple[Any, float]
"""A defect by itself: its mask [H, W], and the area in pixels at which its overlap saturates."""

BLOCK = 1 << 17  # the fewest good pixels worth a search of their own


@dataclass(frozen=True)
class Defects:
    """One image's defect pixels, and the rest counted.

    Attributes
    ----------
    scores : float [n]
    weights : float64 [n]
        What each adds to the sum of the regions' overlaps: 1 / the pixels of its region.
    regions : int
        The sum of the weights.
    good : int
        Pixels of no defect.
    saturated : float64 [n] or None
        As `weights`, where a region's overlap saturates (`saturated_weights`), if that is known.
    """

    scores: Array
    weights: Doubles
    regions: int
    good: int
    saturated: Doubles | None = None


@dataclass(frozen=True)
class Pixels:
    """All images' pixels, ranked; the weights [n] belong to the ranking's scores."""

    ranking: Ranking
    weights: Doubles
    saturated: Doubles | None
    regions: int
    images: int


@dataclass(frozen=True)
class Images:
    """All images' defects, and where their good pixels are.

    Attributes
    ----------
    defects : sequence of Defects
    good : callable
        Given an image's number, returns the scores of its good pixels, float [g].
    most : int, optional
        How many good pixels may be in memory at a time.
    """

    defects: Sequence[Defects]
    good: Callable[[int], Array]
    most: int | None = None

    def take(self, numbers: Sequence[int]) -> Images:
        """Return some of the images."""
        return Images(
            [self.defects[i] for i in numbers], lambda i: self.good(numbers[i]), self.most
        )

    def rank(self) -> Pixels:
        """Rank all images' defects among their good pixels.

        One block of good pixels a worker is in memory at a time: together a fifth of all, or
        `most` if that is less.

        Raises
        ------
        ValueError
            If there is no image, no defect pixel or no good pixel.
        """
        images, regions = len(self.defects), sum(found.regions for found in self.defects)
        good = sum(found.good for found in self.defects)
        if not images:
            raise ValueError("no images given")
        if not regions:
            raise ValueError(f"none of the {images} masks holds a defect pixel")
        if not good:
            raise ValueError(f"none of the {images} masks holds a good pixel")
        values = np.concatenate([found.scores for found in self.defects])
        order = np.argsort(values)
        values = values[order]
        weights = np.concatenate([found.weights for found in self.defects])[order]
        known = [found.saturated for found in self.defects if found.saturated is not None]
        whole = len(known) == sum(found.regions > 0 for found in self.defects)
        saturated = np.concatenate(known)[order] if whole else None
        del order
        ranking = rank(values, self._blocks(good, values.dtype), good)
        return Pixels(ranking, weights, saturated, regions, images)

    def _blocks(self, good: int, dtype: np.dtype[Any]) -> list[Callable[[], Array]]:
        """Return what gathers the good pixels, a group of images at a time."""
        counts = [found.good for found in self.defects]
        size = max(BLOCK, min(good // 5, self.most or good) // WORKERS)
        groups: list[list[int]] = [[]]
        held = 0
        for i, count in enumerate(counts):
            if groups[-1] and held + count > size:
                groups.append([])
                held = 0
            groups[-1].append(i)
            held += count

        def gather(group: list[int]) -> Array:
            block = np.empty(sum(counts[i] for i in group), dtype)
            end = 0
            for i in group:
                block[end : end + counts[i]] = self.good(i)
                end += counts[i]
            return block

        return [partial(gather, group) for group in groups]


class Spill:
    """Arrays kept in a file without a name, which is gone when the process is."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = os.fspath(folder)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._lock = Lock()  # of the place in the file, as not every system reads at another
        self._size = 0
        self._places: list[tuple[int, int, np.dtype[Any]]] = []

    def append(self, values: Array) -> None:
        """Keep an array; raise OSError, naming the folder, if the disk has no room."""
        data = np.ascontiguousarray(values).view(np.uint8).data
        try:
            with self._lock:
                self._file.seek(self._size)
                written = 0
                while written < len(data):  # the system may take less at a time
                    written += self._file.write(data[written:])
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._folder) from None
        self._places.append((self._size, len(data), values.dtype))
        self._size += len(data)

    def __getitem__(self, i: int) -> Array:
        start, size, dtype = self._places[i]
        with self._lock:
            self._file.seek(start)
            return np.frombuffer(self._file.read(size), dtype)


def in_memory(images: Iterable[Any]) -> bool:
    """Return whether images can be gone through twice."""
    return isinstance(images, list | tuple) or hasattr(images, "__array__")


def collect_twice(maps: Any, masks: Any) -> Images:
    """Find the defects first, so that the good pixels need only be held a few maps at a time.

    Raises
    ------
    ValueError
        If an image cannot be used (`check_image`), or maps and masks differ in number.
    """
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps but {len(masks)} masks")

    def find(i: int) -> Defects:
        return find_defects(*check_image(maps[i], masks[i], f"image {i}"))

    def good(i: int) -> Array:
        scores: Array = as_scores(maps[i], "map")[~as_mask(masks[i], "mask")]
        return scores

    with ThreadPoolExecutor(WORKERS) as pool:
        return Images(list(pool.map(find, range(len(maps)))), good)


def find_defects(
    scores: Array, defect: Mask, saturated: Doubles | None = None, good: Mask | None = None
) -> Defects:
    """Find the regions of one image's mask, its 8-connected components.

    The rest of the pixels are good, or those that are given.
    """
    rows = np.flatnonzero(defect.any(1))
    others = defect.size - np.count_nonzero(defect) if good is None else np.count_nonzero(good)
    if not len(rows):
        return Defects(np.zeros(0, scores.dtype), np.zeros(0), 0, int(others))
    columns = np.flatnonzero(defect.any(0))
    # Labelling costs more than all the rest of a pass: only the defects' box is labelled.
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, regions = ndimage.label(defect[box], np.ones((3, 3)))
    labels = labels[defect[box]]
    weights = (1 / np.maximum(np.bincount(labels), 1))[labels]
    return Defects(scores[defect], weights, regions, int(others), saturated)


def saturated_weights(
    scores: Array, defect: Mask, regions: Sequence[Region], title: str
) -> Doubles:
    """Return what each defect pixel adds to the sum of the regions' saturated overlaps.

    Of a region that saturates at s pixels the s highest scores add 1 / s each, and the others
    nothing; where s is no whole number, the next one adds the rest. A pixel of several regions
    adds to each.

    Parameters
    ----------
    scores : float [H, W]
    defect : bool [H, W]
    regions : sequence of (mask, area)
        Masks bool or integer [H, W], that are not empty and whose union is `defect`; areas in
        pixels, more than 0. An area larger than its region is that of the region.
    title : str
        What an error calls the image.

    Returns
    -------
    float64 [n]
        In the order of `scores[defect]`.

    Raises
    ------
    ValueError
        If a mask or an area is not as above.
    """
    weights = np.zeros(scores.shape)
    union = np.zeros(scores.shape, bool)
    for number, (mask, area) in enumerate(regions):
        region = as_mask(mask, f"{title}, region {number}")
        if region.shape != scores.shape:
            raise ValueError(
                f"{title}: the map {list(scores.shape)} and region {number} "
                f"{list(region.shape)} differ"
            )
        if not region.any():
            raise ValueError(f"{title}: region {number} holds no pixel")
        if not 0 < area < math.inf:
            raise ValueError(
                f"{title}: region {number} saturates at {area} pixels; it must be more than 0"
            )
        own = scores[region]
        steps = np.minimum(np.arange(len(own) + 1) / min(area, len(own)), 1)
        shares = np.empty(len(own))
        shares[np.argsort(own)[::-1]] = np.diff(steps)
        weights[region] += shares
        union |= region
    if not np.array_equal(union, defect):
        raise ValueError(f"{title}: the mask is not the union of the {len(regions)} regions")
    return weights[defect]


def check_image(map: Any, mask: Any, title: str) -> tuple[Array, Mask]:
    """Return an image's scores and where its defects are, both [H, W].

    Raises
    ------
    ValueError
        If they cannot be used, naming `title`.
    """
    scores = as_scores(map, f"{title}, map")
    defect = as_mask(mask, f"{title}, mask")
    if scores.ndim != 2:
        raise ValueError(f"{title}: the map {list(scores.shape)} must be [H, W]")
    if scores.shape != defect.shape:
        raise ValueError(
            f"{title}: the map {list(scores.shape)} and the mask {list(defect.shape)} differ"
        )
    finite = np.isfinite(scores)
    if not finite.all():
        bad = scores.size - int(np.count_nonzero(finite))
        y, x = np.unravel_index(int(np.argmin(finite)), scores.shape)
        raise ValueError(
            f"{title}: {bad} scores are not finite, the first {scores[y, x]} at row {y}, column {x}"
        )
    return scores, defect
