"""Good images scored against the others, as if they were not in the index themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ..index import Index
from ..index.manifest import Calibration
from ..maps import anomaly_map, contrast
from ..types import Floats, Ids
from ..verdict.calibration import calibration_sample, draw_thresholds
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


def map_peaks(
    pipeline: Pipeline, images: Ids, others: Sequence[Ids], *, exact: bool
) -> list[float]:
    """Return the peaks of some training images' maps, each against its own others alone."""
    peaks = []
    for i, own in zip(images.tolist(), others, strict=True):
        record = pipeline.index.manifest.images[i]
        distances = distances_to_others(pipeline, i, own, exact=exact)
        peaks.append(float(maps_of(pipeline, distances, (record.height, record.width))[1].max()))
    return peaks


def input_maps(pipeline: Pipeline, images: Ids, others: Sequence[Ids]) -> list[Floats]:
    """Return some training images' maps on the network's input, against their own others alone."""
    size, settings = pipeline.framing.size, pipeline.settings
    return [
        anomaly_map(
            distances_to_others(pipeline, i, own, exact=settings.exact), size, settings.sigma
        )
        for i, own in zip(images.tolist(), others, strict=True)
    ]


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
    pipeline: Pipeline, known: KnownScores | None = None, *, exact: bool = False
) -> Calibration:
    """Score training images against the others, and draw thresholds from the scores.

    Parameters
    ----------
    pipeline : Pipeline
    known : KnownScores, optional
        Of the index before a change: an image whose K nearest are the same keeps its scores.
    exact : bool
        Whether to search exactly even if the index has galleries.
    """
    index, settings = pipeline.index, pipeline.settings
    names = [image.path for image in index.manifest.images]
    chosen = calibration_sample(names, settings.calibrated)
    others, scores = _others(pipeline, chosen)
    peaks: npt.NDArray[np.float64] = np.zeros(len(chosen))
    enough = len(names) > 1
    todo = list(range(len(chosen) if enough else 0))
    if known and enough:
        todo = known.reuse(scores, peaks, settings.k, chosen, others)
    call = partial(map_peaks, exact=exact)
    found = _in_parts(pipeline, chosen[todo], [others[at] for at in todo], call, "the maps")
    for at, peak in zip(todo, pipeline.bar(found, "calibration", len(todo)), strict=True):
        peaks[at] = peak
    weights = copy_weights(copies_in(index))[chosen]
    return Calibration(
        k=settings.k,
        kappa=settings.kappa,
        sigma=settings.sigma,
        descriptor_scores=tuple(scores.tolist()) if enough else (),
        peaks=tuple(peaks.tolist()) if enough else (),
        **draw_thresholds(scores.tolist(), peaks.tolist(), settings.quantile, weights),
        sample=tuple(chosen.tolist()) if len(chosen) < len(names) else None,
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
    scores : dict of int to (float, float)
        Descriptor score and peak by the place before.
    before : dict of int to int
        The place before, by the place after the change.
    after : dict of int to int
    """

    descriptors: Floats
    copies: Copies
    scores: dict[int, tuple[float, float]]
    before: dict[int, int]
    after: dict[int, int]

    @classmethod
    def of(cls, pipeline: Pipeline, old: Index, kept: Sequence[int]) -> KnownScores | None:
        """Return the scores of an index of which some images are kept, in this order, first.

        None where they are of other settings, or where what is normal may have changed.
        """
        made, settings = old.manifest.calibration, pipeline.settings
        if made is None or not made.peaks or settings.contrast or settings.gallery_spec:
            return None
        if (made.k, made.kappa, made.sigma) != (settings.k, settings.kappa, settings.sigma):
            return None
        scores = zip(made.descriptor_scores, made.peaks, strict=True)
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
        peaks: npt.NDArray[np.float64],
        k: int,
        images: Ids,
        others: Sequence[Ids],
    ) -> list[int]:
        """Take over what is known of images with the same K nearest others as before.

        Parameters
        ----------
        scores : float32 [m]
            Descriptor scores now; the known ones are written over them.
        peaks : float64 [m]
            Written likewise.
        k : int
        images : int64 [m]
        others : list of int64 arrays, m long

        Returns
        -------
        list of int
            Which of the m have no known peak.
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
                scores[at], peaks[at] = self.scores[was]
            else:
                left.append(at)
        return left
