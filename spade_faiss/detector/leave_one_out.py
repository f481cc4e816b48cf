"""Good images scored against the others, as if they were not in the index themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ..index import Index
from ..index.scores import Calibration
from ..maps import anomaly_map, contrast, power_mean
from ..types import Doubles, Floats, Ids
from ..verdict.calibration import calibration_sample, draw_thresholds, named_scores
from ..verdict.copies import Copies, copy_weights, from_pairs
from .neighbours import copies_in, other_images
from .pipeline import Pipeline
from .query import correspond, maps_of

Made = TypeVar("Made")

# Done where the executor has them done ------------------------------------------------------


def nearest_others(pipeline: Pipeline, images: Ids) -> tuple[list[Ids], Floats]:
    """Return some training images' K nearest others, and the scores that this gives them.

    See `neighbours.other_images`.
    """
    index = pipeline.index
    return other_images(index.descriptors, pipeline.settings.k, copies_in(index), images)


def map_scores(
    pipeline: Pipeline, images: Ids, others: Sequence[Ids], *, exact: bool
) -> list[tuple[float, float]]:
    """Return the peak and the power mean of some training images' maps.

    Each is against its own others alone.
    """
    scores = []
    for i, own in zip(images.tolist(), others, strict=True):
        record = pipeline.index.manifest.images[i]
        distances = distances_to_others(pipeline, i, own, exact=exact)
        on_input, placed = maps_of(pipeline, distances, (record.height, record.width))
        scores.append((float(placed.max()), power_mean(on_input)))
    return scores


def input_maps(pipeline: Pipeline, images: Ids, others: Sequence[Ids]) -> list[Floats]:
    """Return some training images' maps on the network's input, against their own others alone."""
    settings, records = pipeline.settings, pipeline.index.manifest.images
    maps = []
    for i, own in zip(images.tolist(), others, strict=True):
        distances = distances_to_others(pipeline, i, own, exact=settings.exact)
        if settings.least_area:
            maps.append(maps_of(pipeline, distances, (records[i].height, records[i].width))[0])
        else:
            maps.append(anomaly_map(distances, pipeline.framing.size, settings.sigma))
    return maps


def normal_distances(
    pipeline: Pipeline, images: Ids, others: Sequence[Ids], *, level: int
) -> list[Floats]:
    """Return the distances that are normal for some training images' patches of a level.

    See `spade_faiss.maps.contrast`; each is float32 [h * w, 3].
    """
    index, found = pipeline.index, []
    search = pipeline.level_searches(exact=True)[level]
    patches = index.manifest.levels[level].patches
    for i, own in zip(images.tolist(), others, strict=True):
        k = min(contrast.NEAREST, len(own) * patches)
        if k == 0:  # a single image: nothing is known
            found.append(np.zeros((patches, 3), np.float32))
            continue
        rows = torch.tensor(index.rows(level, i, i + 1))[None]
        near, ids = search.search(rows, torch.tensor(own)[None], k, pipeline.settings.engine)
        found.append(
            contrast.normal_distances(
                near[0].sqrt().numpy(), ids[0].numpy() // patches, copies_in(index)
            )
        )
    return found


def distances_to_others(
    pipeline: Pipeline, i: int, others: Ids, *, exact: bool
) -> tuple[Floats, ...]:
    """Return training image i's distances, level by level, to its nearest others [K]."""
    index = pipeline.index
    rows = (index.rows(level, i, i + 1) for level in range(len(index.levels)))
    levels = [torch.tensor(patches)[None] for patches in rows]
    without = [i, *copies_in(index)[i].tolist()]
    found = correspond(pipeline, levels, others[None], exact=exact, leave_out=without)
    return found[0][0]


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


def all_normal_distances(pipeline: Pipeline) -> Iterator[Floats]:
    """Yield `normal_distances` of all training images, level by level."""
    images = np.arange(len(pipeline.index))
    others, _ = _others(pipeline, images)
    for level in range(len(pipeline.index.levels)):
        call = partial(normal_distances, level=level)
        found = _in_parts(pipeline, images, others, call, "the normal distances")
        yield from pipeline.bar(found, f"contrast, level {level + 1}", len(images))


def calibration_of(
    pipeline: Pipeline,
    known: KnownScores | None = None,
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
    found = _in_parts(pipeline, chosen[todo], [others[at] for at in todo], call, "the maps")
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
    step = pipeline.executor.at_once
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


@dataclass(frozen=True)
class KnownScores:
    """The scores of an index before a change, by the places of its images after it.

    Attributes
    ----------
    descriptors : float32 [n, D]
        Before the change, as are the copies.
    copies : tuple of int64 arrays
    scores : dict of int to (float, float, float)
        Descriptor score, peak and power mean by the place before.
    before : dict of int to int
        The place before, by the place after the change.
    after : dict of int to int
    """

    descriptors: Floats
    copies: Copies
    scores: dict[int, tuple[float, float, float]]
    before: dict[int, int]
    after: dict[int, int]

    @classmethod
    def of(cls, pipeline: Pipeline, old: Index, kept: Sequence[int]) -> KnownScores | None:
        """Return the scores of an index of which some images are kept, in this order, first.

        None where they are of other settings, or where what is normal may have changed, or where
        power means are wanted and were not kept.
        """
        made, settings = old.manifest.calibration, pipeline.settings
        if made is None or not made.peaks or settings.contrast or settings.gallery_spec:
            return None
        if old.manifest.score == "mean" and made.lacks("mean"):
            return None
        if (made.k, made.kappa, made.sigma) != (settings.k, settings.kappa, settings.sigma):
            return None
        if made.min_area != settings.least_area:
            return None
        means = made.means or [math.nan] * len(made.peaks)  # which nobody asks for
        scores = zip(made.descriptor_scores, made.peaks, means, strict=True)
        return cls(
            old.descriptors,
            from_pairs(old.manifest.copies, len(old)),  # an older version left none out
            dict(zip(made.scored, scores, strict=True)),
            dict(enumerate(kept)),
            {was: now for now, was in enumerate(kept)},
        )

    def reuse(
        self,
        scores: Floats,
        maps: Doubles,
        k: int,
        images: Ids,
        others: Sequence[Ids],
    ) -> list[int]:
        """Take over what is known of images with the same K nearest others as before.

        Parameters
        ----------
        scores : float32 [m]
            Descriptor scores now; the known ones are written over them.
        maps : float64 [m, 2]
            Peaks and power means of maps, written likewise.
        k : int
        images : int64 [m]
        others : list of int64 arrays, m long

        Returns
        -------
        list of int
            Which of the m have no known scores.
        """
        then = {self.before.get(i) for i in images.tolist()}
        scored = [was for was in sorted(self.scores) if was in then]
        nearest: dict[int | None, Ids] = {}
        if scored:
            found = other_images(self.descriptors, k, self.copies, np.array(scored))[0]
            nearest.update(zip(scored, found, strict=True))
        left = []
        for at, i in enumerate(images.tolist()):
            was = self.before.get(i)
            same = was in nearest and {self.after.get(j) for j in nearest[was].tolist()} == {
                *others[at].tolist()
            }
            if was is not None and same:
                scores[at], *maps[at] = self.scores[was]
            else:
                left.append(at)
        return left
