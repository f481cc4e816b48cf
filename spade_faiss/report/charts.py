"""Charts as a page's templates draw them: shapes and labels, placed in percent of the plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Doubles, Mask
from ..verdict import over
from .plots import TIMES, clock, runs, ticks

_BINS = 48
_COLUMNS = 600
_STACKED = ("", "OK", "REVIEW", "NG")
"""From the middle outwards."""

Label = tuple[float, str]
"""Where along its axis, in percent, and what it says."""


@dataclass(frozen=True)
class Bar:
    """A bar, or a verdict's part of one, in percent.

    Attributes
    ----------
    left, width : float
        Of the plot's width.
    foot, height : float
        Of a half's height; the foot is the distance from the middle.
    verdict : str
        Of the images that it counts; empty where they have none.
    """

    left: float
    width: float
    foot: float
    height: float
    verdict: str = ""


@dataclass(frozen=True)
class Histogram:
    """Two samples on one axis of scores, one above it and one below.

    Attributes
    ----------
    upper, lower : list of Bar
        Each half is scaled to its own highest bar.
    ticks : list of Label
    threshold : float or None
        Where the threshold is, in percent; no bar reaches across.
    beyond : int
        How many scores are larger than the axis shows; they are in the last bar.
    low, high : float
        The scores at the axis' ends.
    """

    upper: list[Bar]
    lower: list[Bar]
    ticks: list[Label]
    threshold: float | None
    beyond: int
    low: float
    high: float


def histogram(
    upper: Sequence[float],
    lower: Sequence[float],
    threshold: float | None = None,
    verdicts: Sequence[str] | None = None,
) -> Histogram:
    """Return the histograms of two samples of scores, of which one may be empty.

    The axis ends at four thresholds, or four times the largest score of `lower`: what is far
    beyond would leave the rest no room. The threshold parts two bars, of which the left one has
    what equals it, as the verdict does.

    Parameters
    ----------
    upper, lower : sequence of float
    threshold : float, optional
    verdicts : sequence of str, optional
        The verdict of each of `upper`, by which its bars are parted.
    """
    values = np.concatenate([np.asarray(upper, float), np.asarray(lower, float)])
    if not len(values):
        return Histogram([], [], [], None, 0, 0.0, 1.0)
    edges = _edges(values, threshold, max(threshold or 0.0, max(lower, default=0.0)))
    low, high = float(edges[0]), float(edges[-1])

    def percent(value: float) -> float:
        return round(100 * (value - low) / (high - low), 3)

    def bars(sample: Sequence[float], words: Sequence[str]) -> list[Bar]:
        at = np.clip(np.searchsorted(edges, sample) - 1, 0, len(edges) - 2)
        kinds = [word for word in _STACKED if word in words]
        counts = np.zeros((len(kinds), len(edges) - 1), int)
        for row, kind in enumerate(kinds):
            np.add.at(counts[row], at[np.array(words) == kind], 1)
        share = 100 / max(1, counts.sum(0).max())
        return [
            Bar(
                percent(edges[i]),
                round(100 / (len(edges) - 1), 3),
                round(share * int(counts[:row, i].sum()), 3),
                round(share * int(n), 3),
                kind,
            )
            for row, kind in enumerate(kinds)
            for i, n in enumerate(counts[row])
            if n
        ]

    return Histogram(
        bars(upper, verdicts or [""] * len(upper)),
        bars(lower, [""] * len(lower)),
        [(percent(low + at), f"{low + at:.4g}") for at in _offsets(low, high)],
        None if threshold is None else percent(threshold),
        int((values > high).sum()),
        low,
        high,
    )


def _edges(values: Doubles, threshold: float | None, reach: float) -> Doubles:
    """Return the bins' edges, of which one is the threshold; four times `reach` is the end."""
    low, high = float(values.min()), float(values.max())
    if reach > 0:
        high = max(min(high, 4 * reach), reach)
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    wide = high - low
    size = max(abs(high), 1e-12)
    room = 0.04 * wide if wide > 1e-6 * size else 0.1 * size
    low, high = (max(0.0, low - room) if low >= 0 else low - room), high + room
    if threshold is None:
        return np.linspace(low, high, _BINS + 1)
    step = (high - low) / _BINS
    before, after = (math.ceil(side / step) for side in (threshold - low, high - threshold))
    return threshold + step * np.arange(-before, after + 1, dtype=np.float64)


def _offsets(low: float, high: float) -> list[float]:
    """Return where round values lie above `low`."""
    step = ticks(high - low, 6)
    unit = step[1] if len(step) > 1 else high - low
    first = math.ceil(low / unit) * unit
    return [first + i * unit - low for i in range(int((high - first) / unit) + 1)]


def line(points: tuple[npt.ArrayLike, npt.ArrayLike], right: float = 1.0) -> str:
    """Return an SVG path through points (x, y); its 100 units a side stand for `right` and 1."""
    across = 100 * np.asarray(points[0], float) / right
    up = 100 - 100 * np.asarray(points[1], float)
    return "M" + "L".join(f"{a:.5g} {b:.5g}" for a, b in zip(across, up, strict=True))


def thinned(
    x: Doubles, y: Doubles, right: float = 1.0, parts: int = 300
) -> tuple[list[float], list[float]]:
    """Return some points of a curve that rises from left to right, cut off at `right`.

    What is left out lies, in either direction, within 1 / `parts` of the square's side from what
    is kept; at most 4 `parts` points stay. Where the curve is cut, the cut is a point.
    """
    end = int(np.searchsorted(x, right, "right"))
    last = float(np.interp(right, x, y))
    x, y = np.append(x[:end], right), np.append(y[:end], last)
    cells = np.floor(parts * x / right) + np.floor(parts * y)
    new = np.append(True, cells[1:] != cells[:-1])
    keep = new | np.append(new[1:], True)
    return [round(v, 6) for v in x[keep].tolist()], [round(v, 6) for v in y[keep].tolist()]


@dataclass(frozen=True)
class Timeline:
    """The scores of a video over time.

    Attributes
    ----------
    path : str
        SVG path in a square of 100 units, which covers all scores of a column of the plot.
    alarms : list of (left, width)
        Spans over the threshold, in percent.
    marks : list of (left, bottom, frame's name)
        The worst frames, in percent.
    x, y : list of Label
    threshold : float or None
        In percent from the bottom.
    over : int
        How many frames are over the threshold.
    frames : int
    top : float
        The score at the top.
    """

    path: str
    alarms: list[tuple[float, float]]
    marks: list[tuple[float, float, str]]
    x: list[Label]
    y: list[Label]
    threshold: float | None
    over: int
    frames: int
    top: float


def timeline(
    seconds: Sequence[float],
    scores: Sequence[float],
    threshold: float | None,
    marks: Sequence[tuple[int, str]],
) -> Timeline:
    """Return a chart of a video's scores.

    Parameters
    ----------
    seconds, scores : sequence of float [n]
        Ascending times, and the frames' scores, 0 or more.
    threshold : float or None
    marks : sequence of (int, str)
        Places and names of the frames that are shown.
    """
    times, values = np.asarray(seconds, float), np.asarray(scores, float)
    start, span = float(times[0]), max(float(times[-1] - times[0]), 1e-9)
    most = 1.08 * max(float(values.max()), threshold or 0, 1e-12)
    x, y = (times - start) / span, values / most
    bad = over(values, threshold)
    return Timeline(
        _drawn(x, y),
        _spans(x, bad),
        [(round(100 * float(x[i]), 3), round(100 * float(y[i]), 3), name) for i, name in marks],
        [
            (round(100 * at / span, 3), clock(start + at, span))
            for at in ticks(span, 6, TIMES if span >= 60 else ())
        ],
        [(round(100 * at / most, 3), f"{at:.4g}") for at in ticks(most, 4)],
        None if threshold is None else round(100 * threshold / most, 3),
        int(bad.sum()),
        len(values),
        most,
    )


@dataclass(frozen=True)
class ClipCurve:
    """The scores of a clip's frames, and which of these are labelled anomalous.

    Attributes
    ----------
    path : str
        SVG path in a square of 100 units, which covers all scores of a column of the plot.
    spans : list of (left, width)
        Of the labelled frames, in percent.
    marks : list of (left, bottom, frame's name)
        In percent.
    x, y : list of Label
    frames, labelled : int
    """

    path: str
    spans: list[tuple[float, float]]
    marks: list[tuple[float, float, str]]
    x: list[Label]
    y: list[Label]
    frames: int
    labelled: int


def clip_curve(
    numbers: Sequence[int],
    scores: Sequence[float],
    labels: Sequence[bool],
    scale: tuple[float, float],
    marks: Sequence[tuple[int, str]],
) -> ClipCurve:
    """Return a chart of the scores of a clip's frames.

    Parameters
    ----------
    numbers, scores : sequence of int, of float [n]
        Ascending, and the frames' scores.
    labels : sequence of bool [n]
        Whether each frame is labelled anomalous.
    scale : (float, float)
        The scores at the plot's foot and at its top; equal if all are.
    marks : sequence of (int, str)
        Places and names of the frames that are shown.
    """
    at, values, bad = np.asarray(numbers, float), np.asarray(scores, float), np.array(labels, bool)
    start, span = float(at[0]), max(float(at[-1] - at[0]), 1.0)
    low, high = scale
    high = high if high > low else low + max(abs(low), 1e-12)
    x, y = (at - start) / span, (values - low) / (high - low)
    return ClipCurve(
        _drawn(x, y),
        _spans(x, bad),
        [(round(100 * float(x[i]), 3), round(100 * float(y[i]), 3), name) for i, name in marks],
        [
            (round(100 * one / span, 3), f"{start + one:g}")
            for one in ticks(span, 4)
            if one % 1 == 0
        ],
        [
            (round(100 * above / (high - low), 3), f"{low + above:.4g}")
            for above in _offsets(low, high)
        ],
        len(at),
        int(bad.sum()),
    )


def _drawn(x: Doubles, y: Doubles) -> str:
    """Return the path of a curve; where many points fall on a column, its extremes are drawn."""
    keep: npt.NDArray[np.intp] = np.arange(len(x))
    if len(x) > 4 * _COLUMNS:
        starts = np.unique(np.searchsorted(x, np.arange(_COLUMNS) / _COLUMNS))
        parts = np.split(np.arange(len(x)), starts[1:])
        keep = np.unique(
            [
                i
                for part in parts
                for i in (part[0], part[np.argmin(y[part])], part[np.argmax(y[part])], part[-1])
            ]
        )
    return line((x[keep], y[keep]))


def _spans(x: Doubles, flags: Mask) -> list[tuple[float, float]]:
    """Return where runs of True begin and how wide they are, in percent."""
    edges = np.concatenate([[0.0], (x[1:] + x[:-1]) / 2, [1.0]])
    spans: list[tuple[float, float]] = []
    for first, last in runs(flags):
        left, right = 100 * float(edges[first]), 100 * float(edges[last + 1])
        if spans and left - sum(spans[-1]) < 100 / _COLUMNS:  # no eye could part them
            left = spans.pop()[0]
        spans.append((round(left, 3), round(max(right - left, 100 / _COLUMNS), 3)))
    return spans
