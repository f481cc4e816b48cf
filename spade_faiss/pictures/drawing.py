"""Pictures that a person can read at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import SpadeError
from ..images import Framing
from ..images.coverage import looked_at_on
from ..index import Index
from ..types import Floats, Mask
from ..verdict import Finding, Region, over, shown_map
from ..verdict.regions import Compared
from . import colours
from .colours import MARK, OUTLINE, Picture, rgb

OVERLAY_SIDE = 448
"""Length of an overlay's longer side, in pixels, unless another is asked for."""
_LINE = 2
_LEAST_SIDE, _MOST_SIDE = 64, 16384
_FINE = 1500
"""Pixels of a picture's longer side for each pixel of an outline, which has `_LINE` at least."""
_LEGIBLE = 1024
"""Pixels of an overlay's longer side from which on labels grow with it."""
_ROWS = 1 << 20
"""Pixels that are painted at a time: what that takes is many times the picture."""
_INK, _PAPER, _MUTED = rgb("ink"), rgb("paper"), rgb("muted")
_HATCH = 9
"""Pixels from one line to the next, where nothing is looked at."""
SHOWN_REGIONS = 6
"""Of an image, the highest peaks."""


class Pictured(Compared, Protocol):
    """An image that was compared with an index, and is shown: such as `spade_faiss.Result`."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def image(self) -> Picture:
        """The image, uint8 [H, W, 3]."""

    @property
    def input(self) -> Picture:
        """What the network saw of it, uint8 [h, w, 3]."""


def overlay_picture(
    result: Pictured,
    finding: Finding,
    framing: Framing,
    title: str | None = None,
    *,
    side: int | None = OVERLAY_SIDE,
) -> Picture:
    """Return the image beside itself with the anomaly map over it, under a verdict.

    Colours mean the same in every picture of an index (see `heat`), and what is over the pixel
    threshold is outlined. What is not looked at is hatched.

    Parameters
    ----------
    result : Pictured
    finding : Finding
        Its score, its verdict, and the thresholds that it was judged by.
    framing : Framing
        Of the index.
    title : str, optional
        By default the image's name.
    side : int or None
        Pixels of the longer side of the image in it; None for the image's own.

    Returns
    -------
    uint8 [h, w, 3], RGB
    """
    panel = fitted(result.image, side or max(result.image.shape[:2]))
    unit = max(1.0, max(panel.shape[:2]) / _LEGIBLE)
    values = shown_map(result, finding.pixel_threshold)
    painted = overlaid(panel, values, finding.pixel_threshold)
    looked_at = looked_at_in(panel, framing, result)
    panel, painted = hatch(panel, looked_at), hatch(painted, looked_at)
    bar = _scale(panel.shape[0], unit, result.map, finding.pixel_threshold)
    gap = np.full((panel.shape[0], round(8 * unit), 3), _PAPER, np.uint8)
    body = np.concatenate([panel, gap, painted, gap, bar], axis=1)
    title = result.name if title is None else title
    return np.concatenate([_banner(body.shape[1], unit, title, finding), body])


def check_side(side: int | None) -> None:
    """Raise SpadeError unless an overlay may be so large; None is the image's own size."""
    if side is not None and not _LEAST_SIDE <= side <= _MOST_SIDE:
        raise SpadeError(f"overlay_size = {side} must be {_LEAST_SIDE} to {_MOST_SIDE} pixels")


def overlaid(picture: Picture, values: Floats, threshold: float | None) -> Picture:
    """Return a picture with a map, of any size, over it; what is over the threshold, outlined."""
    shown = colours.resized(values, (picture.shape[1], picture.shape[0]))
    top = float(shown.max())
    painted = np.empty_like(picture)
    rows = max(1, _ROWS // picture.shape[1])
    for start in range(0, len(picture), rows):
        part = np.s_[start : start + rows]
        painted[part] = colours.blend(picture[part], colours.heat(shown[part], threshold, top))
    if threshold is not None:
        line = max(_LINE, round(max(picture.shape[:2]) / _FINE))
        contours, _ = cv2.findContours(
            over(shown, threshold).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        for colour, wide in zip(reversed(OUTLINE), (line + 3, line), strict=True):
            cv2.drawContours(painted, contours, -1, colour, wide, cv2.LINE_AA)
    return painted


def explanation_picture(result: Pictured, index: Index, regions: Sequence[Region]) -> Picture:
    """Return, a row a region, where the image is wrong beside the good patch it should resemble.

    Each row shows the whole image with the region's box, a closer look, and the matched place
    of the training image at the same scale. The six highest peaks are shown. What is not looked
    at is hatched in the whole image, and grey in the closer looks, as the network sees it.

    Returns
    -------
    uint8 [h, w, 3], RGB
    """
    rows = [_line("no region over the threshold", 3 * 256 + 16)] if not regions else []
    image = fitted(result.image, 256)
    image = hatch(image, looked_at_in(image, index.manifest.framing.framing(), result))
    for number, region in enumerate(regions[:SHOWN_REGIONS], 1):
        match = region.matches[0]
        whole = image.copy()
        _box(whole, region.box, whole.shape[1] / result.map.shape[1])
        views = [_square(whole, 256)]
        for view in closer_looks(result, index, region):
            enlarged = fitted(view.picture, 256)
            _box(enlarged, view.box, 256 / view.picture.shape[0])
            views.append(enlarged)
        gap = np.full((256, 8, 3), _PAPER, np.uint8)
        text = (
            f"{number}. peak {region.peak:.4g} at {region.peak_at}, {region.area} px   |   "
            f"here   |   good: {_shorten(match.image, 40)}"
        )
        rows += [
            _line(text, 3 * 256 + 16),
            np.concatenate([views[0], gap, views[1], gap, views[2]], axis=1),
        ]
    hidden = len(regions) - SHOWN_REGIONS
    if hidden > 0:
        rows.append(_line(f"and {hidden} more, in the JSON file", 3 * 256 + 16))
    return np.concatenate(rows)


@dataclass(frozen=True)
class View:
    """A square part of what the network saw, and where in it the patch is.

    Attributes
    ----------
    picture : uint8 [n, n, 3], RGB
    box : (left, top, right, bottom)
        In pixels of the picture.
    """

    picture: Picture
    box: tuple[float, float, float, float]


def closer_looks(result: Pictured, index: Index, region: Region) -> tuple[View, View]:
    """Return where a region peaks, and the good patch that was matched, at the same scale.

    Both are of the level that contributes most to the peak.
    """
    framing = index.manifest.framing.framing()
    match = region.matches[0]
    height, width = index.layouts[match.level - 1].grid
    cell = framing.size[1] / width, framing.size[0] / height
    at = framing.to_input(region.peak_at, (result.map.shape[0], result.map.shape[1]))
    here = int(at[0] // cell[0]), int(at[1] // cell[1])
    good = np.asarray(index.shown(match.row))
    return _look(result.input, here, cell), _look(good, match.patch, cell)


def _look(framed: Picture, patch: tuple[int, int], cell: tuple[float, float]) -> View:
    """Return a window around a patch of a framed image."""
    window = min(2 * max(24, round(3 * max(cell))), *framed.shape[:2])
    left = round((patch[0] + 0.5) * cell[0] - window / 2)
    top = round((patch[1] + 0.5) * cell[1] - window / 2)
    left = min(max(left, 0), framed.shape[1] - window)
    top = min(max(top, 0), framed.shape[0] - window)
    x, y = patch[0] * cell[0] - left, patch[1] * cell[1] - top
    return View(
        np.ascontiguousarray(framed[top : top + window, left : left + window]),
        (x, y, x + cell[0], y + cell[1]),
    )


def fitted(image: Picture, side: int) -> Picture:
    """Return a copy whose longer side is `side` pixels."""
    scale = side / max(image.shape[:2])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8).copy()


def _square(image: Picture, side: int) -> Picture:
    """Return an image centred on a square of paper."""
    square = np.full((side, side, 3), _PAPER, np.uint8)
    top, left = (side - image.shape[0]) // 2, (side - image.shape[1]) // 2
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    return square


def looked_at_in(picture: Picture, framing: Framing, result: Pictured) -> Mask:
    """Return which pixels of a result's image, shown in any size, are looked at, [h, w]."""
    size = result.map.shape[0], result.map.shape[1]
    return in_size(looked_at_on(framing, size), picture)


def in_size(mask: Mask, picture: Picture) -> Mask:
    """Return a mask in the size of a picture, by the nearest pixel, [h, w]."""
    size = picture.shape[1], picture.shape[0]
    return np.asarray(cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST), bool)


def hatch(image: Picture, looked_at: Mask) -> Picture:
    """Return a copy with thin diagonal lines over what is not looked at.

    Each is bright beside dark, so that it is seen on any ground, which stays to be seen, too.

    Parameters
    ----------
    image : uint8 [h, w, 3]
    looked_at : bool [h, w]
    """
    hatched = image.copy()
    step = np.add(*np.ogrid[: image.shape[0], : image.shape[1]]) % _HATCH
    for at, grey in ((0, 235), (1, 20)):
        hatched[(step == at) & ~looked_at] = grey
    return hatched


def _scale(height: int, unit: float, values: Floats, threshold: float | None) -> Picture:
    """Return the colour scale, with the threshold and both ends in figures, `unit` times large."""
    shown, ramp = colours.scale_of(values, threshold, height)
    picture = np.full((height, round(84 * unit), 3), _PAPER, np.uint8)
    picture[:, : round(18 * unit)] = ramp[::-1, None]
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13 * unit)
    left, end = 24 * unit, 22 * unit
    draw.text((left, 2 * unit), f"{shown[-1]:.4g}", _INK, font)
    draw.text((left, height - 18 * unit), f"{shown[0]:.4g}", _INK, font)
    if threshold is not None:
        at = height - int(np.searchsorted(shown, threshold))
        draw.line([(0, at), (end, at)], OUTLINE[0], 3 * round(unit))
        draw.line([(0, at), (end, at)], _INK, round(unit))
        draw.text((left, at - 8 * unit), f"{threshold:.4g}", _INK, font)
    return np.asarray(image)


def _banner(width: int, unit: float, title: str, finding: Finding) -> Picture:
    """Return a line with the verdict, the score and the threshold, above the title."""
    large, middle, small = (ImageFont.load_default(size * unit) for size in (22, 16, 13))
    word = finding.verdict
    fill, ink = colours.verdict_colours(word)
    image = Image.new("RGB", (width, round(44 * unit)), _PAPER)
    draw = ImageDraw.Draw(image)
    room = max(64 * unit, round(large.getlength(word)) + 24 * unit)
    draw.rectangle((0, 0, room - 1, 38 * unit - 1), fill)
    draw.text((room / 2, 19 * unit), word or "?", ink, large, anchor="mm")
    limit = (
        "no threshold: blue is where the map is highest"
        if finding.threshold is None
        else f"threshold {finding.threshold:.4g}"
    )
    left = room + 12 * unit
    draw.text((left, 2 * unit), f"score {finding.score:.4g}, {limit}", _INK, middle)
    title = _shorten(title, max(10, int((width - left - 14 * unit) // (7 * unit))))
    draw.text((left, 22 * unit), title, _MUTED, small)
    return np.asarray(image)


def _line(text: str, width: int) -> Picture:
    image = Image.new("RGB", (width, 24), _PAPER)
    ImageDraw.Draw(image).text((4, 4), text, _INK, ImageFont.load_default(13))
    return np.asarray(image)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else "…" + text[1 - length :]


def _box(image: Picture, box: Sequence[float], scale: float) -> None:
    left, top, right, bottom = (round(side * scale) for side in box)
    draw_box(image, (left - 2, top - 2), (right + 1, bottom + 1))


def draw_box(image: Picture, corner: tuple[int, int], opposite: tuple[int, int]) -> None:
    """Draw a box that is seen on light and on dark, by the corners x, y that are its lines'."""
    cv2.rectangle(image, corner, opposite, (0, 0, 0), 4)
    cv2.rectangle(image, corner, opposite, MARK, 2)
