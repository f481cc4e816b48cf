"""Several values of an option in one evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..detector import Detector
from ..errors import SpadeError
from ..types import SCORES
from .points import Point
from .scores import Scores

AXES = ("k", "kappa", "sigma", "levels", "score")


@dataclass(frozen=True)
class Sweep:
    """A grid of options.

    Attributes
    ----------
    axes : dict of str to tuple of str
        The values of each option, as they were written.
    n_levels : int
        How many levels the network has; 0 where nothing is swept.
    """

    axes: Mapping[str, tuple[str, ...]]
    n_levels: int

    @classmethod
    def of(cls, detector: Detector, texts: Sequence[str]) -> Sweep:
        """Read what was written, for a detector; see `parse`.

        Raises
        ------
        SpadeError
            If the detector is an ensemble, or as `parse` does.
        """
        if texts and detector.is_ensemble:
            raise SpadeError("`sweep` takes one network without views, not an ensemble")
        return cls.parse(texts, _level_count(detector) if texts else 0)

    @classmethod
    def parse(cls, texts: Sequence[str], n_levels: int) -> Sweep:
        """Read what was written, as `k=5,50` or `levels=1+2+3,2+3`; several make a grid.

        Parameters
        ----------
        texts : sequence of str
        n_levels : int
            How many levels the network has.

        Raises
        ------
        SpadeError
            If an option is unknown or named twice, or a value is none of it.
        """
        axes: dict[str, tuple[str, ...]] = {}
        for text in texts:
            name, _, values = text.partition("=")
            if name not in AXES:
                raise SpadeError(f"`sweep={text}`: sweep one of {', '.join(AXES)}, as in k=5,50")
            if name in axes:
                raise SpadeError(
                    f"`sweep={text}`: {name} is swept already; list all its values there"
                )
            axes[name] = tuple(dict.fromkeys(values.split(",")))
            for value in axes[name]:
                try:
                    _read(name, value, n_levels)
                except ValueError:
                    raise SpadeError(f"`sweep={text}`: {value!r} is no {_MEANINGS[name]}") from None
        return cls(axes, n_levels)

    def written(self) -> dict[str, list[str]]:
        """Return the axes as JSON values."""
        return {name: list(values) for name, values in self.axes.items()}

    def grid(self) -> list[dict[str, str]]:
        """Return the options of each point, as they were written."""
        if not self.axes:
            return []
        return [
            dict(zip(self.axes, values, strict=True))
            for values in itertools.product(*self.axes.values())
        ]

    def point(self, base: Point, options: Mapping[str, str]) -> Point:
        """Return a point of the grid; what is not swept is as in `base`."""
        values = {
            name: _read(name, value, self.n_levels)
            for name, value in options.items()
            if name != "score"
        }
        return replace(base, **values)

    def points(self, base: Point) -> list[Point]:
        """Return the different points to compute, `base` first."""
        return list(dict.fromkeys([base, *(self.point(base, one) for one in self.grid())]))

    def table(
        self, base: Point, categories: Mapping[str, Sequence[Scores]]
    ) -> list[tuple[dict[str, str], dict[str, Scores]]]:
        """Return each point's options and its scores by category.

        `categories` holds per category the scores of `points`, in that order.
        """
        order = self.points(base)
        rows = []
        for options in self.grid():
            at = order.index(self.point(base, options))
            rows.append(
                (
                    options,
                    {
                        name: _by_score(scores[at], options.get("score"))
                        for name, scores in categories.items()
                    },
                )
            )
        return rows


_MEANINGS = {
    "k": "number of images, 1 or more",
    "kappa": "number of patches, 1 or more",
    "sigma": "number of pixels, 0 to 1000",
    "levels": "sum of the network's levels, such as 2+3",
    "score": f"score: {' or '.join(SCORES)}",
}


def _read(name: str, text: str, n_levels: int) -> Any:
    """Return the value of an option, or raise ValueError."""
    if name == "levels":
        levels = tuple(sorted(int(level) for level in text.split("+")))
        if not all(1 <= level <= n_levels for level in levels) or len(set(levels)) < len(levels):
            raise ValueError
        return None if len(levels) == n_levels else levels
    if name == "score":
        if text not in SCORES:
            raise ValueError
        return text
    readers: dict[str, tuple[Callable[[str], float], float]] = {
        "k": (int, 1),
        "kappa": (int, 1),
        "sigma": (float, 0),
    }
    read, least = readers[name]
    value = read(text)
    if not least <= value < (1000 if name == "sigma" else float("inf")):
        raise ValueError
    return value


def _by_score(scores: Scores, score: str | None) -> Scores:
    """Add the image ROCAUC of the score that a point names."""
    if score is None:
        return scores
    value = {
        "map": scores.image_rocauc_map_max,
        "descriptor": scores.image_rocauc,
        "mean": scores.image_rocauc_map_mean,
    }[score]
    assert value is not None  # a record without it is not taken up
    return replace(scores, extra=scores.extra | {"image_rocauc_by_score": value})


def _level_count(detector: Detector) -> int:
    """Return how many pyramid levels an index has, by a network's for what it is going to see."""
    settings = detector.settings
    side = settings.tile or settings.crop or settings.shorter_side
    levels = detector.network(np.zeros((1, side, side, 3), np.uint8)).levels
    return len(levels) * (2 if settings.averaged else 1)
