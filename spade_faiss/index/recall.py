"""What an approximate gallery misses, measured against the exact search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import SpadeError
from ..search.approximate import Gallery, nearest_in_gallery, nearest_outside
from ..types import Floats
from .store import Index

QUERIES, IMAGES = 1000, 20
"""Stored patches a level that are searched for, and the images that they come from, at most."""
_ROUNDING = 1e-5
"""Relative; what the exact search promises."""


@dataclass(frozen=True)
class Recall:
    """How near to the exact search's patches those of one level's gallery are.

    Attributes
    ----------
    level : int
        From 1, the finest.
    queries : int
    recall_at_1 : float in 0…1
        Share of queries for which a patch was found that is no farther than the nearest of all.
    mean_distance_ratio : float or None
        Mean of the Euclidean distances to the patches found, each divided by that to the
        nearest; 1 is exact. Queries that are 0 from the nearest do not count; None if all are.
    patches : int
        In the gallery.
    bytes : int
        Size of what is searched.
    """

    level: int
    queries: int
    recall_at_1: float
    mean_distance_ratio: float | None
    patches: int
    bytes: int


def measure_recall(
    index: Index, queries: int = QUERIES, search_params: str | None = None, engine: str = "auto"
) -> list[Recall]:
    """Search for stored patches in each level's gallery and in all patches, and compare.

    Each is searched for without the patches of its own image, so that it stands for one of a new
    good image. The patches are drawn at random, the same at every call, from images spread
    evenly over the index.

    Parameters
    ----------
    index : Index
        One that has galleries, of two images or more.
    queries : int
        Patches a level, about.
    search_params : str, optional
        How to search the galleries from now on, "nprobe=64", say.

    Raises
    ------
    SpadeError
        If the index has no galleries, or one image only, or no such search parameters.
    """
    _check(index)
    if search_params:
        index.set_search_params(search_params)
    n = len(index)
    images = np.unique(np.linspace(0, n - 1, min(n, IMAGES)).round().astype(int)).tolist()
    random = np.random.default_rng(0)
    results = []
    for number, (gallery, patches, layout) in enumerate(
        zip(index.galleries, index.levels, index.layouts, strict=True), 1
    ):
        rows = index.parts * layout.patches
        count = min(rows, -(-queries // len(images)))
        found, nearest = [], []
        for image in images:
            own = range(image * rows, (image + 1) * rows)
            sample = patches[random.choice(own, count, replace=False)]
            found.append(nearest_in_gallery(sample, gallery, 1, [own], engine)[0])
            nearest.append(nearest_outside(sample, patches, 1, [own], engine)[0])
        results.append(
            _compared(number, gallery, np.concatenate(found)[:, 0], np.concatenate(nearest)[:, 0])
        )
    return results


def _check(index: Index) -> None:
    if not index.galleries:
        raise SpadeError(
            f"{index.folder} is searched exactly, so it misses nothing: recall is of "
            "an index built with `factory` or `coreset`"
        )
    if len(index) < 2:
        raise SpadeError(
            "recall is measured by each image's patches among the others', which "
            "takes two images or more"
        )


def _compared(level: int, gallery: Gallery, found: Floats, nearest: Floats) -> Recall:
    """Compare squared distances to the patches found with those to the nearest, both [queries]."""
    some = nearest > 0
    ratio = np.sqrt(found[some].astype(np.float64) / nearest[some])
    return Recall(
        level=level,
        queries=len(found),
        recall_at_1=float(np.mean(found <= nearest * (1 + _ROUNDING))),
        mean_distance_ratio=float(ratio.mean()) if len(ratio) else None,
        patches=len(gallery.patches),
        bytes=gallery.bytes,
    )
