"""Scores that a change of an index leaves as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..index import Index
from ..types import Doubles, Floats, Ids
from ..verdict.copies import Copies, from_pairs
from .neighbours import other_images
from .pipeline import Pipeline


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
        if old.parts > 1:  # whose scores hang on many neighbours
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
        others : list of int64 [1, K], m long

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
                *others[at][0].tolist()
            }
            if was is not None and same:
                scores[at], *maps[at] = self.scores[was]
            else:
                left.append(at)
        return left
