"""All that is said of one image: its score, its verdict, and the places that are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .limits import Limits
from .regions import Region, find_regions

if TYPE_CHECKING:
    from ..index import Index


class Judge(Protocol):
    """A detector, as far as it judges what it compared: `spade_faiss.Spade`, for one."""

    @property
    def index_(self) -> Index:
        """The index that images are compared with."""

    @property
    def limits(self) -> Limits:
        """What it judges images by."""


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
    return finding_of(result, detector.limits, detector.index_ if regions else None)


def finding_of(result: Any, limits: Limits, index: Index | None) -> Finding:
    """Judge an image by some limits; its regions are looked for if there is its index.

    Parameters
    ----------
    result : Result
    limits : Limits
    index : Index or None
        That the image was compared with.
    """
    score = result.score(limits.kind)
    places = limits.places_from(score, result.peak)
    return Finding(
        score,
        limits.verdict_of(score),
        limits.threshold,
        limits.review,
        limits.pixel_threshold,
        () if index is None or places is None else tuple(find_regions(result, index, places)),
    )
