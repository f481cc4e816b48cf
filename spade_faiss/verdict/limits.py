"""What images are judged by: thresholds, the mark of review, and the kind of score."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .judge import NG, REVIEW, verdict


@dataclass(frozen=True)
class Limits:
    """What a detector judges images by, as it stood when it was asked.

    Attributes
    ----------
    kind : "map", "descriptor" or "mean"
        What an image's score is.
    threshold : float or None
        The score above which an image is not good.
    review : float or None
        The score from which on an image is to be reviewed.
    pixel_threshold : float or None
        The map's value above which a pixel is not good.
    """

    kind: str = "map"
    threshold: float | None = None
    review: float | None = None
    pixel_threshold: float | None = None

    def verdict_of(self, score: float) -> str:
        """Return what a score says of its image; see `spade_faiss.verdict.verdict`."""
        return verdict(score, self.threshold, self.review)

    def places_from(self, score: float, peak: float) -> float | None:
        """Return the map's value over which places are shown of an image of this score and peak.

        It is the pixel threshold; of an image that its map makes REVIEW, just below the mark of
        review, for a person to see what is meant. An image may be wrong by its map's power mean
        though no pixel is over the pixel threshold: then places count from what its score was
        compared with, which its peak is not below.
        """
        limit, of_score = self.pixel_threshold, self.verdict_of(score)
        unseen = self.kind == "mean" and limit is not None and peak <= limit
        if of_score == NG and unseen:
            return self.threshold
        if of_score == REVIEW and self.review is not None and (self.kind == "map" or unseen):
            return math.nextafter(self.review, -math.inf)
        return limit
