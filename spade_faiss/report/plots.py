"""Plots: the scores of a video over time, and results beside published ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ..verdict.judge import over
from .colours import SERIES, Colour, Picture, rgb

Spot = tuple[float, float]

_INK, _PAPER, _MUTED, _GRID = map(rgb, ("ink", "paper", "muted", "line"))
_LINE, _BAD, _ALARM, _PUBLISHED = map(rgb, ("accent", "ng", "ng-soft", "grey"))
TIMES = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
"""Seconds between ticks."""
_FINE = 2  # pictures are drawn this much larger and averaged down, which smooths their lines


class _Canvas:
    """A picture to draw on, in pixels of its final size."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._size = width, height

    def line(self, points: Sequence[Spot], colour: Colour, width: float = 1) -> None:
        scaled = [(x * _FINE, y * _FINE) for x, y in points]
        self._draw.line(scaled, colour, max(1, round(width * _FINE)), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        if right > left and bottom > top:
            corners = [round(side * _FINE) for side in (left, top, right, bottom)]
            self._draw.rectangle(
                (
                    corners[0],
                    corners[1],
                    max(corners[0], corners[2] - 1),
                    max(corners[1], corners[3] - 1),
                ),
                colour,
            )

    def ring(self, x: float, y: float, radius: float, colour: Colour) -> None:
        corners = [side * _FINE for side in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(corners, _PAPER, colour, round(1.5 * _FINE))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: Colour = _INK,
        size: int = 13,
        anchor: str = "lm",
    ) -> None:
        font = ImageFont.load_default(size * _FINE)
        self._draw.text((x * _FINE, y * _FINE), text, colour, font, anchor=anchor)

    def picture(self) -> Picture:
        return np.asarray(self._image.resize(self._size, Image.Resampling.BOX))


def text_width(text: str, size: int = 13) -> float:
    """Return how wide a text is drawn, in pixels."""
    return float(ImageFont.load_default(size).getlength(text))


def timeline_picture(
    seconds: Sequence[float],
    scores: Sequence[float],
    threshold: float | None,
    marks: Sequence[int],
    title: str,
) -> Picture:
    """Return a plot of a video's scores over time.

    What is over the threshold is red, on a red ground. Where several frames fall on a column of
    pixels, the line covers all their scores.

    Parameters
    ----------
    seconds, scores : sequence of float [n]
        Ascending times, and the frames' scores, 0 or more.
    threshold : float or None
    marks : sequence of int
        Frames to mark with a ring: the worst.
    title : str

    Returns
    -------
    uint8 [320, 1200, 3], RGB
    """
    width, height = 1200, 320
    left, right, top, bottom = 70, width - 24, 48, height - 40
    canvas = _Canvas(width, height)
    times, values = np.asarray(seconds, float), np.asarray(scores, float)
    start, span = times[0], max(times[-1] - times[0], 1e-9)
    most = 1.08 * max(values.max(), threshold or 0, 1e-12)
    x = left + (times - start) / span * (right - left)
    y = bottom - values / most * (bottom - top)
    bad = over(values, threshold)
    edges = np.concatenate([[left], (x[1:] + x[:-1]) / 2, [right]])
    for first, last in runs(bad):
        canvas.box(edges[first], top, max(edges[last + 1], edges[first] + 1), bottom, _ALARM)
    for value in ticks(most, 5):
        level = bottom - value / most * (bottom - top)
        canvas.line([(left, level), (right, level)], _GRID)
        canvas.text(left - 8, level, f"{value:.4g}", _MUTED, anchor="rm")
    for value in ticks(span, 10, TIMES if span >= 60 else ()):
        at = left + value / span * (right - left)
        canvas.line([(at, bottom), (at, bottom + 4)], _MUTED)
        canvas.text(at, bottom + 14, clock(start + value, span), _MUTED, anchor="mm")
    level = bottom - threshold / most * (bottom - top) if threshold is not None else -1
    if threshold is not None:
        for dash in range(left, right, 10):
            canvas.line([(dash, level), (min(dash + 6, right), level)], _BAD, 1.2)
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    for one, other in pairwise(_parted(points, level)):
        canvas.line([one, other], _BAD if one[1] + other[1] < 2 * level else _LINE, 1.6)
    if len(points) == 1:
        canvas.ring(*points[0], 2, _LINE)
    for mark in marks:
        canvas.ring(*points[mark], 4.5, _BAD if bad[mark] else _LINE)
    canvas.line([(left, bottom), (right, bottom)], _MUTED)
    said = (
        "no threshold"
        if threshold is None
        else (f"threshold {threshold:.4g}, {bad.sum()} of {len(values)} frames over it")
    )
    canvas.text(left, 22, title, size=17)
    canvas.text(right, 22, said, _BAD if bad.any() else _MUTED, anchor="rm")
    canvas.text(right, height - 10, "seconds" if span < 60 else "time", _MUTED, 12, "rm")
    return canvas.picture()


def _parted(points: Sequence[Spot], level: float) -> Iterator[Spot]:
    """Yield points, and where the line through them crosses a level."""
    yield points[0]
    for (x, y), (right, after) in pairwise(points):
        if (y - level) * (after - level) < 0:
            yield x + (right - x) * (level - y) / (after - y), level
        yield right, after


def bars_picture(
    title: str,
    groups: Sequence[str],
    published: tuple[str, Sequence[float | None]],
    ours: Mapping[str, Sequence[float | None]],
) -> Picture:
    """Return horizontal bars: per group the published figure, and ours below it.

    Parameters
    ----------
    title : str
    groups : sequence of str
    published : (str, sequence of float or None)
        What they are called, and a figure a group, in 0…1.
    ours : mapping of str to sequence of float or None

    Returns
    -------
    uint8 [H, W, 3], RGB
    """
    width, bar, gap = 960, 11, 11
    legend = [(published[0], _PUBLISHED), *zip(ours, map(rgb, SERIES * len(ours)), strict=False)]
    columns = [published[1], *ours.values()]
    row = bar * len(columns) + gap
    keys: list[Spot] = [(20, 60)]
    for label, _ in legend:
        after = keys[-1][0] + 18 + text_width(label) + 26
        keys.append((after, keys[-1][1]) if after < 0.75 * width else (20, keys[-1][1] + 22))
    top = keys[len(legend) - 1][1] + 32
    bottom = top + row * len(groups)
    left, right = 36 + max(text_width(group) for group in groups), width - 64
    canvas = _Canvas(width, round(bottom + 44))
    canvas.text(20, 28, title, size=19)
    for (x, y), (label, colour) in zip(keys, legend, strict=False):
        canvas.box(x, y - 6, x + 12, y + 6, colour)
        canvas.text(x + 18, y, label)
    for percent in range(0, 101, 20):
        x = left + percent / 100 * (right - left)
        canvas.line([(x, top - 6), (x, bottom)], _GRID)
        canvas.text(x, bottom + 14, f"{percent}", _MUTED, anchor="mm")
    canvas.text(right + 18, bottom + 14, "%", _MUTED, anchor="lm")
    for i, group in enumerate(groups):
        middle = top + i * row + bar * len(columns) / 2
        canvas.text(left - 10, middle, group, anchor="rm")
        there = [
            (value, colour)
            for values, (_, colour) in zip(columns, legend, strict=True)
            if (value := values[i]) is not None
        ]
        for j, (value, colour) in enumerate(there):
            y = middle + (j - len(there) / 2) * bar
            end = left + value * (right - left)
            canvas.box(left, y + 0.5, end, y + bar - 0.5, colour)
            canvas.text(
                end + 5,
                y + bar / 2,
                f"{100 * value:.1f}",
                _MUTED if colour == _PUBLISHED else _INK,
                11,
            )
    canvas.line([(left, top - 6), (left, bottom)], _MUTED)
    return canvas.picture()


def runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first and last place of each run of True."""
    steps = np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def ticks(most: float, count: int, steps: Sequence[float] = ()) -> list[float]:
    """Return round values from 0 to `most`, at most about `count`; `steps` are tried first."""
    raw = most / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(step for step in (*steps, unit, 2 * unit, 5 * unit, 10 * unit) if step >= raw)
    return [i * step for i in range(int(most / step) + 1)]


def clock(seconds: float, span: float) -> str:
    """Return a time as it is read: in seconds, or hours, minutes and seconds."""
    if span < 60:
        return f"{seconds:.4g}"
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
