"""All that is said of one image: its score, its verdict, and the places that are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .regions import Region, find_regions

if TYPE_CHECKING:
    from ..index import Index


class Judge(Protocol):
    """A detector, as far as it judges what it compared: `spade_faiss.Spade`, for one."""

    @property
    def index_(self) -> Index:
        """The index that images are compared with."""

    @property
    def image_threshold(self) -> float | None:
        """The score above which an image is not good."""

    @property
    def pixel_threshold(self) -> float | None:
        """The map's value above which a pixel is not good."""

    @property
    def review(self) -> float | None:
        """The score from which on an image is to be reviewed."""

    def score_of(self, result: Any) -> float:
        """Return an image's score."""

    def verdict_of(self, score: float) -> str:
        """Return what a score says of its image; see `spade_faiss.verdict.verdict`."""

    def places_from(self, score: float, peak: float) -> float | None:
        """Return the map's value over which regions are shown of an image of a score and peak."""


@dataclass(frozen=True)
class Finding:
    """What is said of one image.

    Attributes
    ----------
    score : float
    verdict : "NG", "REVIEW", "OK", or "" where no threshold is known
    threshold, review, pixel_threshold : float or None
        What the score, and the map, were judged by.
    regions : tuple of Region
        The places that are wrong, the highest peak first; of an image whose map makes it REVIEW,
        those that a person should look at.
    """

    score: float
    verdict: str
    threshold: float | None
    review: float | None
    pixel_threshold: float | None
    regions: tuple[Region, ...] = ()


def judge_result(detector: Judge, result: Any, *, regions: bool = True) -> Finding:
    """Judge an image that a detector compared.

    Parameters
    ----------
    detector : Judge
    result : Result
        What the detector's `query` yielded.
    regions : bool
        Whether to look for regions, too.
    """
    score = detector.score_of(result)
    limit = detector.places_from(score, result.peak) if regions else None
    return Finding(
        score,
        detector.verdict_of(score),
        detector.image_threshold,
        detector.review,
        detector.pixel_threshold,
        () if limit is None else tuple(find_regions(result, detector.index_, limit)),
    )
