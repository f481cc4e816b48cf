"""From features to results: nearest images, nearest patches, maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import SpadeError
from ..images import Loaded, OnError
from ..index import Index
from ..index.layout import Layout, Sample
from ..index.manifest import CONTRAST_BEFORE
from ..maps import anomaly_map, area_peak, power_mean
from ..maps.contrast import contrast
from ..search import LevelSearch, nearest, nearest_in_gallery
from ..types import Floats, Ids
from ..verdict.notes import STILL, area_notes, image_notes, training_image_note
from .extract import Images, map_batches, sources_of
from .pipeline import Batch, Pipeline
from .result import Result
from .settings import Settings

Made = TypeVar("Made")
Found = tuple[tuple[Floats, ...], tuple[Ids, ...]]
"""Per level, each patch's distance to its nearest good patches and the nearest of them,
[patches]."""


def query(pipeline: Pipeline, images: Images, on_error: OnError | None = None) -> Iterator[Result]:
    """Yield one Result an image, in order; see `query_by`."""
    return query_by(pipeline, images, compare, on_error)


def query_by(
    pipeline: Pipeline,
    images: Images,
    of: Callable[[Pipeline, Batch], Iterable[Made]],
    on_error: OnError | None = None,
) -> Iterator[Made]:
    """Yield what a function yields of the features of images, in order.

    Parameters
    ----------
    pipeline : Pipeline
    images : folder, paths, or RGB uint8 arrays [H, W, 3]
    of : callable
        Given a pipeline and a Batch, of a module of its own; `compare` for one.
    on_error : callable, optional
        As `map_batches` takes it.

    Raises
    ------
    SpadeError
        If an image cannot be used (without `on_error`), or kappa is too large.
    """
    units_compared(pipeline.index, pipeline.settings)
    sources = sources_of(images, on_error)
    yield from map_batches(pipeline, sources, pipeline.framing, of, on_error, "query")


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


@dataclass(frozen=True)
class _PartFound:
    """What is found of one part of an image: its nearest units, then each patch's matches."""

    score: float
    units: Ids
    distances: tuple[Floats, ...]
    matches: tuple[Ids, ...]


def compare(pipeline: Pipeline, batch: Batch) -> Iterator[Result]:
    """Yield one Result an image of a batch, by the two stages of SPADE (sections 3.2 and 3.3)."""
    index, settings, stages = pipeline.index, pipeline.settings, pipeline.stages
    k = units_compared(index, settings)
    done: list[_PartFound] = []
    for parts in batch.parts:
        with stages("stage_one"):
            numbers = [part for _, part in parts.units]
            near, units = nearest_units(index, parts.descriptors, numbers, k, settings.engine)
        with stages("stage_two"):
            found = correspond(pipeline, parts.levels, units, exact=settings.exact)
        for at, (i, _) in enumerate(parts.units):
            done.append(_PartFound(float(near[at].mean()), units[at], *found[at]))
            if len(done) == index.parts:
                yield _joined(pipeline, batch.loaded[i], done)
                done = []


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


def _joined(pipeline: Pipeline, loaded: Loaded, parts: Sequence[_PartFound]) -> Result:
    """Return the result of an image, out of what is found of its parts."""
    index, settings, framing = pipeline.index, pipeline.settings, pipeline.framing
    shown = framing.inner(framing.painted(loaded.wide, loaded.size))
    with pipeline.stages("maps"):
        distances = joined(index, stacked(one.distances for one in parts), 0)
        matches = joined(index, stacked(one.matches for one in parts), -1)
        on_input, placed = maps_of(pipeline, distances, loaded.size)
        mean = mean_of(pipeline, on_input)
    images = _images_of([one.units for one in parts], index.parts)
    notes = image_notes(index.manifest, loaded.size)
    notes += area_notes(index.manifest, loaded.size, settings.least_area)
    if settings.motion and loaded.motion is None:
        notes = (*notes, STILL)
    if same := find_training_image(index, shown, images):
        notes = (*notes, training_image_note(same))
    return Result(
        loaded.position,
        loaded.name,
        loaded.image,
        shown,
        placed,
        on_input,
        max(one.score for one in parts),
        mean,
        images,
        distances,
        matches,
        notes,
        same,
        settings.least_area,
    )


def _images_of(units: Sequence[Ids], parts: int) -> Ids:
    """Return the images of the units that an image's parts were compared with, nearest first.

    Of parts, those come first of which most are near: the n-th nearest counts an n-th.
    """
    if parts == 1:
        return units[0]
    ranks = np.concatenate([np.arange(1, len(own) + 1) for own in units])
    images, at = np.unique(np.concatenate(units) // parts, return_inverse=True)
    found: Ids = images[np.argsort(-np.bincount(at, 1 / ranks), kind="stable")]
    return found


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


def find_training_image(index: Index, image: npt.NDArray[np.uint8], among: Ids) -> str | None:
    """Return the path of the training image that gave the network the very pixels of an image.

    Parameters
    ----------
    index : Index
    image : uint8 [h, w, 3]
        What the network is shown of it.
    among : int64 [K]
        The training images to look at: the nearest, of which such a one is.

    Returns
    -------
    str or None
        None if no training image did.
    """
    looked = index.manifest.framing.framing().looked_at
    # One row rules out nearly all: the one that is looked at most.
    row = len(image) // 2 if looked is None else int(looked.sum(1).argmax())
    rows = slice(row, row + 1)
    for i in among.tolist():
        same = np.array_equal(index.shown(i, rows), image[rows])
        if same and np.array_equal(index.shown(i), image):
            path: str = index.manifest.images[i].path
            return path
    return None


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
    normal, made = index.normal_distances(), index.manifest.contrast
    if normal is None:
        return distances
    share, around = (made.share, made.around) if made else CONTRAST_BEFORE
    units = made.units if made else (1.0,) * len(distances)
    return [
        contrast(own, match, here, layout, share=share, around=around, unit=unit, without=leave_out)
        for own, match, here, layout, unit in zip(
            distances, matches, normal, index.layouts, units, strict=True
        )
    ]


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


def whole_maps(pipeline: Pipeline, batch: Batch) -> Iterator[Result]:
    """Yield one Result an image as an ensemble takes it: its power mean is clipped, its maps not.

    It is of the members' joined map that areas count.
    """
    area = pipeline.settings.least_area
    for one in compare(pipeline.by(min_area=None), batch):
        yield replace(one, mean_score=clipped_mean(pipeline, one.input_map, one.map, area))


def clipped_mean(
    pipeline: Pipeline, on_input: Floats, placed: Floats, min_area: int | None
) -> float:
    """Return the power mean of a map that is whole, as if it were clipped; see `clip`."""
    if min_area is not None:
        on_input = np.minimum(on_input, np.float32(area_peak(placed, min_area)))
    return mean_of(pipeline, on_input)


def average_only(pipeline: Pipeline, batch: Batch) -> Iterator[Result]:
    """Yield of each image no more than an ensemble takes from a member that is not the first."""
    for one in whole_maps(pipeline, batch):
        none = one.image[:0]
        yield replace(
            one, image=none, input=none, map=one.map[:0], distances=(), matches=(), notes=()
        )
