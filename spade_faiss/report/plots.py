"""Plots: the scores of a video over time, and results beside published ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..pictures.colours import SERIES, Colour, Picture, rgb
from ..types import Doubles, Mask
from ..verdict import over

Spot = tuple[float, float]
Value = TypeVar("Value", float, Doubles)

_INK, _PAPER, _MUTED, _GRID = map(rgb, ("ink", "paper", "muted", "line"))
_LINE, _BAD, _ALARM, _PUBLISHED = map(rgb, ("accent", "ng", "ng-soft", "grey"))
TIMES = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
"""Seconds between ticks."""
_BAR, _GAP = 11, 11
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
    times, values = np.asarray(seconds, float), np.asarray(scores, float)
    canvas = _Canvas(width, height)
    frame = _Frame(
        left=70,
        top=48,
        right=width - 24,
        bottom=height - 40,
        start=float(times[0]),
        span=max(float(times[-1] - times[0]), 1e-9),
        most=1.08 * max(float(values.max()), threshold or 0, 1e-12),
    )
    bad = over(values, threshold)
    x = frame.x(times - frame.start)
    edges = np.concatenate([[frame.left], (x[1:] + x[:-1]) / 2, [frame.right]])
    for first, last in runs(bad):
        end = max(edges[last + 1], edges[first] + 1)
        canvas.box(edges[first], frame.top, end, frame.bottom, _ALARM)
    _draw_grid(canvas, frame)
    level = -1.0 if threshold is None else frame.y(threshold)
    if threshold is not None:
        for dash in range(frame.left, frame.right, 10):
            canvas.line([(dash, level), (min(dash + 6, frame.right), level)], _BAD, 1.2)
    points = list(zip(x.tolist(), frame.y(values).tolist(), strict=True))
    _draw_scores(canvas, points, level, [(mark, bool(bad[mark])) for mark in marks])
    canvas.line([(frame.left, frame.bottom), (frame.right, frame.bottom)], _MUTED)
    _write_captions(canvas, frame, title, threshold, bad)
    return canvas.picture()


@dataclass(frozen=True)
class _Frame:
    """Where a plot of scores over time lies on its canvas, and what its axes span."""

    left: int
    top: int
    right: int
    bottom: int
    start: float
    span: float
    most: float

    def x(self, seconds: Value) -> Value:
        """Return where seconds after the start are."""
        return self.left + seconds / self.span * (self.right - self.left)

    def y(self, scores: Value) -> Value:
        """Return where scores are."""
        return self.bottom - scores / self.most * (self.bottom - self.top)


def _draw_grid(canvas: _Canvas, frame: _Frame) -> None:
    """Draw a plot's lines of scores and ticks of time, with their figures."""
    for value in ticks(frame.most, 5):
        level = frame.y(value)
        canvas.line([(frame.left, level), (frame.right, level)], _GRID)
        canvas.text(frame.left - 8, level, f"{value:.4g}", _MUTED, anchor="rm")
    for value in ticks(frame.span, 10, TIMES if frame.span >= 60 else ()):
        at = frame.x(value)
        canvas.line([(at, frame.bottom), (at, frame.bottom + 4)], _MUTED)
        said = clock(frame.start + value, frame.span)
        canvas.text(at, frame.bottom + 14, said, _MUTED, anchor="mm")


def _draw_scores(
    canvas: _Canvas, points: Sequence[Spot], level: float, marks: Sequence[tuple[int, bool]]
) -> None:
    """Draw the line through points, red above a level, and rings around some, red if bad."""
    for one, other in pairwise(_parted(points, level)):
        canvas.line([one, other], _BAD if one[1] + other[1] < 2 * level else _LINE, 1.6)
    if len(points) == 1:
        canvas.ring(*points[0], 2, _LINE)
    for mark, bad in marks:
        canvas.ring(*points[mark], 4.5, _BAD if bad else _LINE)


def _write_captions(
    canvas: _Canvas,
    frame: _Frame,
    title: str,
    threshold: float | None,
    bad: Mask,
) -> None:
    """Write a plot's title, how many frames are over the threshold, and the unit of time."""
    said = (
        "no threshold"
        if threshold is None
        else f"threshold {threshold:.4g}, {bad.sum()} of {len(bad)} frames over it"
    )
    canvas.text(frame.left, 22, title, size=17)
    canvas.text(frame.right, 22, said, _BAD if bad.any() else _MUTED, anchor="rm")
    unit = "seconds" if frame.span < 60 else "time"
    canvas.text(frame.right, frame.bottom + 30, unit, _MUTED, 12, "rm")


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
    legend = [(published[0], _PUBLISHED), *zip(ours, map(rgb, SERIES * len(ours)), strict=False)]
    columns = [published[1], *ours.values()]
    width, row = 960, _BAR * len(columns) + _GAP
    keys = _key_places([label for label, _ in legend], width)
    top = keys[-1][1] + 32
    bottom = top + row * len(groups)
    left, right = 36 + max(text_width(group) for group in groups), width - 64
    canvas = _Canvas(width, round(bottom + 44))
    canvas.text(20, 28, title, size=19)
    for (x, y), (label, colour) in zip(keys, legend, strict=True):
        canvas.box(x, y - 6, x + 12, y + 6, colour)
        canvas.text(x + 18, y, label)
    for percent in range(0, 101, 20):
        x = left + percent / 100 * (right - left)
        canvas.line([(x, top - 6), (x, bottom)], _GRID)
        canvas.text(x, bottom + 14, f"{percent}", _MUTED, anchor="mm")
    canvas.text(right + 18, bottom + 14, "%", _MUTED, anchor="lm")
    for i, group in enumerate(groups):
        middle = top + i * row + _BAR * len(columns) / 2
        canvas.text(left - 10, middle, group, anchor="rm")
        figures = [
            (value, colour)
            for values, (_, colour) in zip(columns, legend, strict=True)
            if (value := values[i]) is not None
        ]
        _draw_bars(canvas, figures, middle, (left, right))
    canvas.line([(left, top - 6), (left, bottom)], _MUTED)
    return canvas.picture()


def _key_places(labels: Sequence[str], width: int) -> list[Spot]:
    """Return where the keys of a legend stand, in lines of three quarters of a width."""
    places: list[Spot] = [(20, 60)]
    for label in labels[:-1]:
        after = places[-1][0] + 18 + text_width(label) + 26
        line = places[-1][1]
        places.append((after, line) if after < 0.75 * width else (20, line + 22))
    return places


def _draw_bars(
    canvas: _Canvas, figures: Sequence[tuple[float, Colour]], middle: float, sides: Spot
) -> None:
    """Draw the bars of a group, of figures in 0…1 between two sides, each with its figure."""
    left, right = sides
    for j, (value, colour) in enumerate(figures):
        y = middle + (j - len(figures) / 2) * _BAR
        end = left + value * (right - left)
        canvas.box(left, y + 0.5, end, y + _BAR - 0.5, colour)
        ink = _MUTED if colour == _PUBLISHED else _INK
        canvas.text(end + 5, y + _BAR / 2, f"{100 * value:.1f}", ink, 11)


def runs(flags: Mask) -> list[tuple[int, int]]:
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
