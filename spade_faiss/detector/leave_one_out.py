"""Good images scored against the others, as if they were not in the index themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..index.scores import Calibration
from ..maps import contrast
from ..types import Doubles, Floats, Ids
from ..verdict.calibration import calibration_sample, draw_thresholds, named_scores
from ..verdict.copies import copy_weights
from .correspond import contrasted, correspond, joined, stacked
from .known_scores import KnownScores
from .maps import maps_of, mean_of
from .neighbours import copies_in, other_units
from .pipeline import Pipeline

Made = TypeVar("Made")

TRIED, PATCHES = 48, 256
"""Tiles, and patches of each, by which `suits_elsewhere` judges."""
NEARER = 0.95
"""How near matches of any place must be, as a share of the distance at the same place."""

# Done where the executor has them done ------------------------------------------------------


def nearest_others(pipeline: Pipeline, images: Ids) -> tuple[list[Ids], Floats]:
    """Return some training images' K nearest others, and the scores that this gives them.

    See `neighbours.other_units`.
    """
    index = pipeline.index
    return other_units(index, pipeline.settings.k, images, elsewhere=index.manifest.elsewhere)


def map_scores(
    pipeline: Pipeline, images: Ids, others: Sequence[Ids], *, exact: bool
) -> list[tuple[float, float]]:
    """Return the peak and the power mean of some training images' maps.

    Each is against its own others alone.
    """
    found = distances_to_others(pipeline, images, others, exact=exact)
    return [_map_score(pipeline, i, own) for i, own in zip(images.tolist(), found, strict=True)]


def _map_score(
    pipeline: Pipeline, image: int, distances: tuple[Floats, ...]
) -> tuple[float, float]:
    record = pipeline.index.manifest.images[image]
    on_input, placed = maps_of(pipeline, distances, (record.height, record.width))
    return float(placed.max()), mean_of(pipeline, on_input)


def input_maps(pipeline: Pipeline, images: Ids, others: Sequence[Ids]) -> list[Floats]:
    """Return some training images' maps on the network's input, against their own others alone."""
    records = pipeline.index.manifest.images
    found = distances_to_others(pipeline, images, others, exact=pipeline.settings.exact)
    return [
        maps_of(pipeline, own, (records[i].height, records[i].width))[0]
        for i, own in zip(images.tolist(), found, strict=True)
    ]


@dataclass(frozen=True)
class AmongOthers:
    """A training image's patches of a level among those of its others.

    Attributes
    ----------
    normal : float32 [parts * patches, 3]
        The distances that are normal for them; see `spade_faiss.maps.contrast`.
    distances : float32 [parts * patches]
        To their matches: the mean over the kappa nearest.
    matches : int64 [parts * patches]
        The nearest, as rows of the level.
    """

    normal: Floats
    distances: Floats
    matches: Ids


def among_others(
    pipeline: Pipeline, images: Ids, others: Sequence[Ids], *, level: int
) -> list[AmongOthers]:
    """Return what one search for some training images' patches of a level finds."""
    index, settings = pipeline.index, pipeline.settings
    search, patches = pipeline.level_searches(exact=True)[level], index.layouts[level].patches
    found = []
    for some, own in _alike(pipeline, images, others, alone=False):
        k = min(max(contrast.NEAREST, settings.kappa), own.shape[1] * patches)
        if k == 0:  # a single image: nothing is known
            none = np.zeros(index.parts * patches, np.float32)
            found.append(AmongOthers(np.zeros((len(none), 3), np.float32), none, none.astype(int)))
            continue
        near, ids = search.search(
            _rows_of(pipeline, level, some), torch.from_numpy(own), k, settings.engine
        )
        grid = (len(some), index.parts * patches, k)
        for distances, matches in zip(
            near.sqrt().cpu().numpy().reshape(grid), ids.cpu().numpy().reshape(grid), strict=True
        ):
            few = min(k, contrast.NEAREST)
            pictures = matches[:, :few] // (patches * index.parts)
            found.append(
                AmongOthers(
                    contrast.normal_distances(distances[:, :few], pictures, copies_in(index)),
                    distances[:, : settings.kappa].mean(axis=-1),
                    matches[:, 0],
                )
            )
    return found


def distances_to_others(
    pipeline: Pipeline, images: Ids, others: Sequence[Ids], *, exact: bool
) -> list[tuple[Floats, ...]]:
    """Return training images' distances, level by level, each to its own nearest others.

    Parameters
    ----------
    pipeline : Pipeline
    images : int64 [m]
    others : sequence of int64 [parts, K], m long
        Units that each part of an image is compared with.
    exact : bool

    Returns
    -------
    list of tuples of float32 [h, w], m long
    """
    index, parts = pipeline.index, pipeline.index.parts
    galleries = bool(index.galleries) and not exact
    alone = galleries or index.normal_distances() is not None
    distances = []
    for some, own in _alike(pipeline, images, others, alone=alone):
        without = [some[0], *copies_in(index)[some[0]].tolist()] if alone else []
        levels = [_rows_of(pipeline, level, some) for level in range(len(index.layouts))]
        most = own.shape[1] * min(layout.patches for layout in index.layouts)
        here = pipeline
        if pipeline.settings.kappa > most > 0 and not galleries:
            here = pipeline.by(kappa=most)  # a query has more images to find patches in
        found = correspond(here, levels, own, exact=exact, leave_out=without)
        for at in range(0, len(found), parts):
            of_parts = stacked(values for values, _ in found[at : at + parts])
            distances.append(joined(index, of_parts, 0))
    return distances


def _alike(
    pipeline: Pipeline, images: Ids, others: Sequence[Ids], *, alone: bool
) -> Iterator[tuple[list[int], Ids]]:
    """Yield images that are searched for at once, and what all of their parts are compared with.

    Those are neighbours in the list that have as many others; or each is `alone`.
    """
    most, at = 1 if alone else _at_once(pipeline), 0
    while at < len(images):
        end = at + 1
        while end < min(at + most, len(images)) and others[end].shape == others[at].shape:
            end += 1
        yield images[at:end].tolist(), np.concatenate(others[at:end])
        at = end


def _at_once(pipeline: Pipeline) -> int:
    """Return how many images are searched for at once, as many as are queried at once."""
    return max(1, pipeline.settings.batch_size // pipeline.index.parts)


def _rows_of(pipeline: Pipeline, level: int, images: Sequence[int]) -> Tensor:
    """Return the patches of images, [images * parts, patches, C], where they are searched for."""
    index = pipeline.index
    rows = np.stack([index.rows(level, i, i + 1) for i in images])
    shape = (len(images) * index.parts, index.layouts[level].patches, -1)
    return torch.from_numpy(rows).to(pipeline.device).float().reshape(shape)


# Handed to the executor ---------------------------------------------------------------------


def score_images(pipeline: Pipeline) -> Iterator[tuple[float, Floats]]:
    """Yield each training image's descriptor score, and its map on the network's input.

    Both are as if the image were not in the index, which must hold two or more.
    """
    images = np.arange(len(pipeline.index))
    others, scores = _others(pipeline, images)
    maps = _in_parts(pipeline, images, others, input_maps, "the maps")
    for score, values in zip(scores, pipeline.bar(maps, "leave one out", len(images)), strict=True):
        yield float(score), values


class LeftOut:
    """How far all training images' patches are from their matches among the others.

    One search finds what is normal for them, and what they score. It is kept in files without
    names beside the index's own, which go with this object.

    Parameters
    ----------
    pipeline : Pipeline
        Of an index that is searched exactly.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        index = pipeline.index
        rows, place = sum(map(len, index.levels)), index.folder / index.manifest.generation
        with TemporaryFile(dir=place) as file:  # which the mapping keeps
            self._distances: Floats = np.memmap(file, np.float32, shape=(rows,))
        with TemporaryFile(dir=place) as file:
            self._matches: Ids = np.memmap(file, np.int64, shape=(rows,))

    def search(self) -> Iterator[Floats]:
        """Search, and yield the normal distances, [parts * patches, 3], level by level."""
        pipeline, at = self._pipeline, 0
        images = np.arange(len(pipeline.index))
        others, _ = _others(pipeline, images)
        for level in range(len(pipeline.index.levels)):
            call = partial(among_others, level=level)
            found = _in_parts(pipeline, images, others, call, "the normal distances")
            for one in pipeline.bar(found, f"contrast, level {level + 1}", len(images)):
                end = at + len(one.distances)
                self._distances[at:end], self._matches[at:end] = one.distances, one.matches
                at = end
                yield one.normal

    def scores(self, images: Ids) -> Iterator[tuple[float, float]]:
        """Yield the peak and the power mean of some training images' maps, once all is known."""
        index = self._pipeline.index
        for i in images.tolist():
            start, distances, matches = 0, [], []
            for layout, level in zip(index.layouts, index.levels, strict=True):
                rows = index.parts * layout.patches
                own = slice(start + i * rows, start + (i + 1) * rows)
                distances.append(np.array(self._distances[own]).reshape(index.parts, -1))
                matches.append(np.array(self._matches[own]).reshape(index.parts, -1))
                start += len(level)
            without = [i, *copies_in(index)[i].tolist()]
            less = contrasted(index, distances, matches, without)
            yield _map_score(self._pipeline, i, joined(index, less, 0))


def suits_elsewhere(pipeline: Pipeline) -> bool:
    """Say whether tiles are to be compared with tiles of any place, by what good images say.

    That is so where patches of good tiles are nearer to their matches there than to those in
    tiles of their own place: parts lie in no order. Else the same place is the better witness of
    what belongs there, and fewer images suffice.
    """
    index = pipeline.index
    if index.parts == 1 or len(index) < 2:
        return False
    units = np.unique(np.linspace(0, len(index) * index.parts - 1, TRIED).round().astype(np.int64))
    images, places = np.unique(units // index.parts), []
    for elsewhere in (False, True):
        others, _ = other_units(index, pipeline.settings.k, images, elsewhere=elsewhere)
        of_image = dict(zip(images.tolist(), others, strict=True))
        distances = []
        for unit in units.tolist():
            image, part = divmod(unit, index.parts)
            own = of_image[image][part]
            for search, layout, rows in zip(
                pipeline.level_searches(exact=True), index.layouts, index.levels, strict=True
            ):
                patches = rows[unit * layout.patches : (unit + 1) * layout.patches]
                some = patches[:: -(-len(patches) // PATCHES)].astype(np.float32)
                near, _ = search.search(
                    torch.from_numpy(some)[None],
                    torch.from_numpy(own)[None],
                    1,
                    pipeline.settings.engine,
                )
                distances.append(float(near.sqrt().mean()))
        places.append(np.array(distances))
    here, anywhere = places
    return float(np.median(anywhere / np.maximum(here, 1e-12))) < NEARER


def calibration_of(
    pipeline: Pipeline,
    known: KnownScores | None = None,
    left_out: LeftOut | None = None,
    *,
    exact: bool = False,
    means: bool = True,
) -> Calibration:
    """Score training images against the others, and draw thresholds from the scores.

    Parameters
    ----------
    pipeline : Pipeline
    known : KnownScores, optional
        Of the index before a change: an image whose K nearest are the same keeps its scores.
    left_out : LeftOut, optional
        What was found already.
    exact : bool
        Whether to search exactly even if the index has galleries.
    means : bool
        Whether to keep the maps' power means, and to draw a threshold of these, too.
    """
    index, settings = pipeline.index, pipeline.settings
    names = [image.path for image in index.manifest.images]
    chosen = calibration_sample(names, settings.calibrated)
    others, scores = _others(pipeline, chosen)
    maps: Doubles = np.zeros((len(chosen), 2))
    enough = len(names) > 1
    todo = list(range(len(chosen) if enough else 0))
    if known and enough:
        todo = known.reuse(scores, maps, settings.k, chosen, others)
    call = partial(map_scores, exact=exact)
    found = (
        left_out.scores(chosen[todo])
        if left_out
        else _in_parts(pipeline, chosen[todo], [others[at] for at in todo], call, "the maps")
    )
    for at, found_of_map in zip(todo, pipeline.bar(found, "calibration", len(todo)), strict=True):
        maps[at] = found_of_map
    by_kind: dict[str, npt.ArrayLike] = {"descriptor": scores, "map": maps[:, 0]}
    if means:
        by_kind["mean"] = maps[:, 1]
    weights = copy_weights(copies_in(index))[chosen]
    return Calibration(
        k=settings.k,
        kappa=settings.kappa,
        sigma=settings.sigma,
        **named_scores(by_kind if enough else dict.fromkeys(by_kind, ())),
        **draw_thresholds(by_kind, settings.quantile, weights),
        sample=tuple(chosen.tolist()) if len(chosen) < len(names) else None,
        min_area=settings.least_area,
    )


def _others(pipeline: Pipeline, images: Ids) -> tuple[list[Ids], Floats]:
    copies_in(pipeline.index)  # looked for once, and not by each process that is given work
    call = partial(nearest_others, images=images)
    ((others, scores),) = pipeline.executor.map(
        pipeline, [(call, "the training images' descriptors")]
    )
    return others, scores.copy()  # an answer from elsewhere may be read-only


def _in_parts(
    pipeline: Pipeline,
    images: Ids,
    others: Sequence[Ids],
    call: Callable[..., Sequence[Made]],
    what: str,
) -> Iterator[Made]:
    """Yield what a function returns of training images, which it is given a few at a time."""
    step = max(pipeline.executor.at_once, _at_once(pipeline))
    parts = (slice(at, at + step) for at in range(0, len(images), step))
    for some in pipeline.executor.map(
        pipeline,
        (
            (
                partial(call, images=images[part], others=others[part]),
                f"{what} of training images {part.start} to {part.stop - 1}",
            )
            for part in parts
        ),
    ):
        yield from some
