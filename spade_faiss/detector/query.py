"""From features to results: nearest images, nearest patches, maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..images import Images, Loaded, OnError
from ..index import Index
from ..types import Floats, Ids
from ..verdict.notes import STILL, area_notes, image_notes, training_image_note
from .correspond import correspond, joined, nearest_units, stacked, units_compared
from .extract import map_batches, sources_of
from .gpu import GpuPass
from .maps import ImageFound, clip, maps_of, mean_of
from .pipeline import Batch, Pipeline
from .result import Result
from .under_way import Begun

Made = TypeVar("Made")


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
    images : folder, paths, arrays, or others; see `spade_faiss.images.Images`
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


@dataclass(frozen=True)
class _PartFound:
    """What is found of one part of an image: its nearest units, then each patch's matches."""

    score: float
    units: Ids
    distances: tuple[Floats, ...]
    matches: tuple[Ids, ...]


def compare(pipeline: Pipeline, batch: Batch) -> Iterator[Result]:
    """Return one Result an image of a batch, by the two stages of SPADE (sections 3.2 and 3.3).

    On a GPU the work has begun when this returns.
    """
    there = GpuPass.of(pipeline)
    if there is None:
        return by_stages(pipeline, batch)
    with pipeline.stages("begin"):
        framing = pipeline.framing
        images = [framing.cut(one.wide, 0, one.size) for one in batch.loaded]
        begun = there.begin(np.stack(images), [one.size for one in batch.loaded])
    return by_stages(pipeline, batch) if begun is None else _begun(pipeline, batch, there, begun)


def _begun(pipeline: Pipeline, batch: Batch, there: GpuPass, begun: Begun) -> Iterator[Result]:
    with pipeline.stages("wait"):
        found = there.found(begun)
    if found is None:
        yield from by_stages(pipeline, batch)
        return
    for loaded, one in zip(batch.loaded, found, strict=True):
        if pipeline.settings.least_area:
            with pipeline.stages("maps"):
                clip(pipeline.settings.least_area, one.on_input, one.placed)
        yield _result(pipeline, loaded, one)


def by_stages(pipeline: Pipeline, batch: Batch) -> Iterator[Result]:
    """Yield one Result an image of a batch, of the features that it has, stage by stage."""
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


def _joined(pipeline: Pipeline, loaded: Loaded, parts: Sequence[_PartFound]) -> Result:
    """Return the result of an image, out of what is found of its parts."""
    index = pipeline.index
    with pipeline.stages("maps"):
        distances = joined(index, stacked(one.distances for one in parts), 0)
        matches = joined(index, stacked(one.matches for one in parts), -1)
        on_input, placed = maps_of(pipeline, distances, loaded.size)
    images = _images_of([one.units for one in parts], index.parts)
    score = max(one.score for one in parts)
    return _result(
        pipeline, loaded, ImageFound(score, images, distances, matches, on_input, placed)
    )


def _result(pipeline: Pipeline, loaded: Loaded, found: ImageFound) -> Result:
    index, settings, framing = pipeline.index, pipeline.settings, pipeline.framing
    shown = framing.inner(framing.painted(loaded.wide, loaded.size))
    with pipeline.stages("maps"):
        mean = mean_of(pipeline, found.on_input)
    notes = image_notes(index.manifest, loaded.size)
    notes += area_notes(index.manifest, loaded.size, settings.least_area)
    if settings.motion and loaded.motion is None:
        notes = (*notes, STILL)
    if same := find_training_image(index, shown, found.images):
        notes = (*notes, training_image_note(same))
    return Result(
        loaded.position,
        loaded.name,
        loaded.image,
        shown,
        found.placed,
        found.on_input,
        found.score,
        mean,
        found.images,
        found.distances,
        found.matches,
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
    framing = index.manifest.framing.framing()
    looked = framing.looked_at
    # One row rules out nearly all: the one that is looked at most.
    row = len(image) // 2 if looked is None else int(looked.sum(1).argmax())
    if framing.roi is None:
        rows = np.asarray(index.crops)[among, row]
        among = among[(rows == image[row]).all((1, 2))]
    for i in among.tolist():
        some = slice(row, row + 1)
        if np.array_equal(index.shown(i, some), image[some]) and np.array_equal(
            index.shown(i), image
        ):
            path: str = index.manifest.images[i].path
            return path
    return None
