"""What is normal and near: the nearest good images, and each patch's nearest patches in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import SpadeError
from ..index import Index
from ..index.layout import Sample
from ..index.manifest import CONTRAST_BEFORE
from ..maps.contrast import contrast
from ..search import LevelSearch, nearest, nearest_in_gallery
from ..types import Floats, Ids
from .pipeline import Pipeline
from .settings import Settings

Found = tuple[tuple[Floats, ...], tuple[Ids, ...]]
"""Per level, each patch's distance to its nearest good patches and the nearest of them,
[patches]."""


def units_compared(index: Index, settings: Settings) -> int:
    """Return how many training images a query is compared with: K, if there are so many.

    Of images that are seen in tiles, it is how many tiles each tile is compared with.

    Raises
    ------
    SpadeError
        If these have fewer patches than kappa.
    """
    every = len(index) * index.parts if index.manifest.elsewhere else len(index)
    k = min(settings.k, every)
    among_images = settings.exact or not index.galleries
    if among_images and settings.kappa > k * min(one.patches for one in index.layouts):
        raise SpadeError(f"kappa = {settings.kappa} is more than the patches of {k} images")
    return k


def nearest_units(
    index: Index, descriptors: Floats, parts: Sequence[int], k: int, engine: str
) -> tuple[Floats, Ids]:
    """Return the nearest units of some parts of images: training images, or tiles of them.

    Parameters
    ----------
    index : Index
    descriptors : float32 [b, D]
    parts : sequence of int, b long
        Which part of its image each is.
    k : int
    engine : str

    Returns
    -------
    distances : float32 [b, k], squared Euclidean, ascending
    units : int64 [b, k]
        Part j of training image i is unit `i * index.parts + j`.
    """
    if index.parts == 1 or index.manifest.elsewhere:
        return nearest(descriptors, index.descriptors, k, engine)
    found = [
        nearest(
            descriptors[at : at + 1],
            np.ascontiguousarray(index.descriptors[part :: index.parts]),
            k,
            engine,
        )
        for at, part in enumerate(parts)
    ]
    places = np.concatenate([ids for _, ids in found])
    return np.concatenate([near for near, _ in found]), places * index.parts + np.array(parts)[
        :, None
    ]


def correspond(
    pipeline: Pipeline,
    levels: Sequence[Tensor],
    units: Ids,
    *,
    exact: bool,
    leave_out: Sequence[int] = (),
) -> list[Found]:
    """Find each patch's nearest good patches, level by level.

    Distances are Euclidean, not squared as in the paper's section 3.3: a square lets a few strong
    patches outweigh the rest of a region. On MVTec AD's hazelnuts PRO is 0.974 against 0.960.

    Parameters
    ----------
    pipeline : Pipeline
    levels : sequence of float32 tensors [B, patches, C]
    units : int64 [B, K]
        The training images, or tiles, that each is compared with, where no galleries are searched.
    exact : bool
        Whether to search among these even if the index has galleries.
    leave_out : sequence of int
        Training images whose patches are not to be found in galleries, and which do not count
        towards the distances that are normal around a match.

    Returns
    -------
    list of Found, B long
        Mean distances to the kappa nearest, and the nearest patch, as a row of the level.
    """
    index, settings = pipeline.index, pipeline.settings
    galleries = () if exact else index.galleries
    among = torch.from_numpy(units)
    if not galleries:
        index.read_ahead(units)
    distances: list[Floats] = []
    matches: list[Ids] = []
    searches = pipeline.level_searches(exact=exact)
    for number, (queries, search, layout) in enumerate(
        zip(levels, searches, index.layouts, strict=True)
    ):
        if galleries:
            rows = index.parts * layout.patches
            own = [range(i * rows, (i + 1) * rows) for i in leave_out]
            assert isinstance(search, LevelSearch)  # galleries are on one device
            flat = queries.flatten(0, 1).cpu().numpy()
            near, ids = nearest_in_gallery(
                flat, galleries[number], settings.kappa, own, settings.engine, search
            )
        else:
            found = search.search(queries, among, settings.kappa, settings.engine)
            near, ids = (values.cpu().numpy() for values in found)
        grid = (len(units), layout.patches)
        distances.append(np.sqrt(near).mean(axis=-1).reshape(grid))
        matches.append(ids[..., 0].reshape(grid))
    distances = contrasted(index, distances, matches, leave_out)
    return list(zip(zip(*distances, strict=True), zip(*matches, strict=True), strict=True))


def contrasted(
    index: Index, distances: list[Floats], matches: Sequence[Ids], leave_out: Sequence[int] = ()
) -> list[Floats]:
    """Return distances [..] a level less a share of what is normal, if the index knows what is.

    See `spade_faiss.maps.contrast`; `matches` are rows of the levels, and `leave_out` is as
    `correspond` takes it.
    """
    normal = index.normal_distances()
    if normal is None:
        return distances
    share, around, units = contrast_of(index)
    return [
        contrast(own, match, here, layout, share=share, around=around, unit=unit, without=leave_out)
        for own, match, here, layout, unit in zip(
            distances, matches, normal, index.layouts, units, strict=True
        )
    ]


def contrast_of(index: Index) -> tuple[float, int, tuple[float, ...]]:
    """Return the share, the patches around, and each level's unit of an index with contrast."""
    made = index.manifest.contrast
    share, around = (made.share, made.around) if made else CONTRAST_BEFORE
    return share, around, tuple(made.units) if made else (1.0,) * len(index.levels)


def joined(
    index: Index, levels: Iterable[npt.NDArray[Sample]], missing: float
) -> tuple[npt.NDArray[Sample], ...]:
    """Return what each level's grid has [h, w], out of what all of an image's parts have.

    Parameters
    ----------
    index : Index
    levels : iterable of arrays [parts, patches]
    missing : float
        What patches get that are not looked at.
    """
    return tuple(
        layout.join(own, missing) for layout, own in zip(index.layouts, levels, strict=True)
    )


def stacked(parts: Iterable[Sequence[npt.NDArray[Sample]]]) -> list[npt.NDArray[Sample]]:
    """Return each level's values [parts, patches], out of those of all levels of each part."""
    return [np.stack(own) for own in zip(*parts, strict=True)]
