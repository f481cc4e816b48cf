"""Scores of good images and of defects, and the thresholds drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from ..types import SCORES, Score
from .record import Data


class _Judged(Data):
    """A record of scores or thresholds; without what is new, it is written as older ones are."""

    @model_serializer(mode="wrap")
    def _without_what_is_new(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        for name in ("means", "mean_threshold", "min_area"):
            if name in written and getattr(self, name) in ((), None):
                del written[name]
        return written


class _Scores(_Judged):
    """A record that has scores of images, or their thresholds, by kind."""

    def scores(self, score: str) -> tuple[float, ...]:
        """Return the images' scores of one kind; none if they were not kept."""
        found: tuple[float, ...] = getattr(self, SCORES[score])
        return found

    def lacks(self, score: str) -> bool:
        """Say whether there are images, but no scores of a kind."""
        return bool(self.scores("map")) and not self.scores(score)


class Calibration(_Scores):
    """Leave-one-out results of the training images, and the thresholds drawn from them.

    `descriptor_scores` (mean squared distance to the K nearest descriptors), `peaks` (the
    largest value of each anomaly map) and `means` (its power mean; kept where images are judged
    by it) are in the training images' order; of a large index, only the images of `sample`
    (places, ascending) were scored. A threshold is None where fewer than two images leave
    nothing to judge by, or there are no such scores.
    """

    quantile: float = Field(gt=0, lt=1)
    k: int = Field(gt=0)
    kappa: int = Field(gt=0)
    sigma: float = Field(ge=0)
    descriptor_scores: tuple[float, ...]
    peaks: tuple[float, ...]
    descriptor_threshold: float | None
    pixel_threshold: float | None
    sample: tuple[int, ...] | None = None
    means: tuple[float, ...] = ()
    mean_threshold: float | None = None
    min_area: int | None = Field(default=None, gt=0)

    @property
    def scored(self) -> Sequence[int]:
        """Places of the images that were scored, in the scores' order."""
        return range(len(self.peaks)) if self.sample is None else self.sample

    def without_means(self) -> Calibration:
        """Return a copy that older programs can read, if it has no `sample` either."""
        return self.model_copy(update={"means": (), "mean_threshold": None})


class Scored(_Scores):
    """Images that are not in the index: names, digests of what the network saw, and scores."""

    names: tuple[str, ...]
    digests: tuple[str, ...]
    descriptor_scores: tuple[float, ...]
    peaks: tuple[float, ...]
    means: tuple[float, ...] = ()
    """None if an older version scored them."""


class CalibrationSet(_Scores):
    """What `Spade.calibrate` found: scores of further images, and thresholds by the good ones'.

    The thresholds of a change's index are not those of the index before it, so a change drops
    them. `search` is how a gallery was searched: its search parameters, or "exact".
    """

    created: str
    quantile: float = Field(gt=0, lt=1)
    k: int = Field(gt=0)
    kappa: int = Field(gt=0)
    sigma: float = Field(ge=0)
    search: str | None
    good: Scored
    defects: Scored
    descriptor_threshold: float
    pixel_threshold: float
    mean_threshold: float | None = None
    min_area: int | None = Field(default=None, gt=0)

    def scores(self, score: str) -> tuple[float, ...]:
        """Return the good images' scores of one kind; none if they were not kept."""
        return self.good.scores(score)


class Counted(Data):
    """How many of some images were over a threshold."""

    over: int = Field(ge=0)
    n: int = Field(gt=0)


class ByHand(_Judged):
    """A threshold that a person set, and from which score on images are to be reviewed.

    Both are of one kind of score, and of the settings by which images were scored then; see
    `CalibrationSet`. None is what was not set. `generation` is the state of the index that they
    were set for. `good` and `defects` are images that were tried at the threshold, if there were
    any.
    """

    score: Score
    threshold: float | None
    review: float | None
    created: str
    generation: str
    k: int = Field(gt=0)
    kappa: int = Field(gt=0)
    sigma: float = Field(ge=0)
    search: str | None
    good: Counted | None = None
    defects: Counted | None = None
    min_area: int | None = Field(default=None, gt=0)
