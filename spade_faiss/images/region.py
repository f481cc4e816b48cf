"""Which part of a still camera's picture is looked at: read from a file, or proposed."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ..errors import SpadeError
from ..types import Doubles, Mask
from .decode import FORMATS, decode_image, read_image

_WHITE = 127
"""A grey above this one is white."""

_SIDE = 512
"""Pixels of the longer side in which pictures are compared."""
FEWEST = 5
"""Images from which on it can be told what varies."""
_APART = 3.5
"""How many times as much the rest has to vary as the ground does."""
_GRADIENT = 2.0
"""What a change of a grey level a pixel counts, beside one from image to image."""
_ROUNDING = 0.5
"""Grey levels that say nothing."""
_BLUR, _GAP, _MARGIN = 0.01, 0.02, 0.03
"""Shares of the shorter side: what is looked at together, the widest gap that is closed, and how
far around what varies the picture is looked at, too."""
_LEAST, _SCRAP = 0.05, 0.01
"""The least share of a picture that is worth being left out, or being looked at; and the least of
a single part of the ground."""


def read_region(
    region: str | os.PathLike[str] | bytes | npt.NDArray[Any], *, ignore: bool = False
) -> Mask:
    """Return what is to be looked at, from a picture of it.

    Parameters
    ----------
    region : path, a file's bytes, or bool array [H, W]
        A picture of any kind that `read_image` decodes. What is white, that is brighter than 127
        of 255, is looked at; so is what is True. What is transparent counts as black.
    ignore : bool
        Whether that is to be left out instead, and the rest looked at.

    Returns
    -------
    bool [H, W]
        True where it is looked at: in one place at least, perhaps everywhere.

    Raises
    ------
    SpadeError
        If the file cannot be read, the array is none of bool [H, W], or nothing is looked at.
    """
    if isinstance(region, np.ndarray):
        name, white = "the region", region
        if white.dtype != np.bool_ or white.ndim != 2:
            raise SpadeError(
                f"the region is an array of {white.dtype} {list(white.shape)}: give bool [H, W], "
                "such as grey > 127"
            )
    else:
        name = "the picture" if isinstance(region, bytes) else os.fspath(region)
        white = np.asarray(_grey(region, name) > _WHITE)
    looked_at = ~white if ignore else white.copy()
    if looked_at.any():
        return looked_at
    raise SpadeError(
        f"{name}: the region is empty: "
        + ("all of it is white, and so left out" if ignore else "nothing of it is white")
        + f"; paint white what is to be {'left out' if ignore else 'looked at'}"
    )


def _grey(region: str | os.PathLike[str] | bytes, name: str) -> npt.NDArray[np.uint8]:
    """Return a picture's grey levels [H, W], over black where it is transparent."""

    def unsaid(_: str) -> None: ...

    file: str | os.PathLike[str] | io.BytesIO
    try:
        if isinstance(region, bytes):
            image, file = decode_image(region, unsaid), io.BytesIO(region)
        else:
            image, file = read_image(region, unsaid), region
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        with Image.open(file, formats=FORMATS) as opened:
            if not opened.has_transparency_data:
                return grey
            alpha = np.asarray(ImageOps.exif_transpose(opened.convert("RGBA")).getchannel("A"))
    except SpadeError as error:
        raise SpadeError(f"{name}: the region {error}") from None
    except (OSError, ValueError, SyntaxError):
        raise SpadeError(f"{name}: the region is of a rare kind; save it as a grey PNG") from None
    opaque: npt.NDArray[np.uint8] = (grey * (alpha / 255)).round().astype(np.uint8)
    return opaque


def propose_region(images: Iterable[npt.NDArray[np.uint8]]) -> Mask:
    """Propose what to look at of a still camera's pictures: all but plain ground.

    Ground is what hardly varies from image to image, shows no edges, and reaches the border of
    the picture; a plain place that is enclosed by what varies is part of it. How much a place
    varies is the root of the variance of its colour over the images, and of the mean square of
    its gradient within them. Where the logarithms of that fall into two kinds (Otsu, 1979) that
    are far apart, the lower is ground. A margin around the rest is looked at, too.

    This is a guess, to be looked at before it is used: nothing tells a plain part that lies
    always in the same place from ground.

    Parameters
    ----------
    images : iterable of uint8 [H, W, 3]
        Good ones, of one size. They are gone through once, and none is kept.

    Returns
    -------
    bool [H, W]
        True where it is looked at. That is everywhere where there is nothing to propose: of fewer
        than 5 images, of images of several sizes, where all of a picture varies alike, or where
        less than 5 % of it would be left out, or looked at.

    Raises
    ------
    SpadeError
        If there is no image.
    """
    size, seen = None, _Seen()
    for image in images:
        if size is None:
            size = image.shape[:2]
        elif image.shape[:2] != size:
            return np.ones(size, np.bool_)
        seen.add(image)
    if size is None:
        raise SpadeError("there are no images to propose a region by")
    everything = np.ones(size, np.bool_)
    ground = None if seen.count < FEWEST else _ground(seen.variation())
    if ground is None:
        return everything
    looked_at = _widened(~ground)
    if not _LEAST <= looked_at.mean() <= 1 - _LEAST:
        return everything
    there = cv2.resize(looked_at.view(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(there, np.bool_)


_NEARLY = 0.02
"""How far the area of a simpler polygon may be off."""


def outlines_of(looked_at: Mask) -> list[tuple[list[tuple[int, int]], bool]]:
    """Return polygons that a mask is painted with, each over those before it, on what is False.

    They are those of the mask to a pixel; of many corners, fewer.

    Parameters
    ----------
    looked_at : bool [H, W]

    Returns
    -------
    list of (list of (int, int), bool)
        The corners, x and y, between pixels, and whether True is painted.
    """
    if looked_at.all():
        height, width = looked_at.shape
        return [([(0, 0), (width, 0), (width, height), (0, height)], True)]
    # Twice as large, contours run through the pixels' outer corners, but for half a pixel.
    double = np.asarray(np.kron(looked_at, np.ones((2, 2), np.bool_)), np.uint8)
    found, tree = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour, (_, _, _, parent) in zip(found, [] if tree is None else tree[0], strict=True):
        corners = contour[:, 0]
        for least in (max(1.0, 0.002 * max(double.shape)), 1.0, 0.0):  # finer, for what is thin
            fewer = cv2.approxPolyDP(contour, least, closed=True)
            area = cv2.contourArea(contour)
            if len(fewer) > 2 and abs(cv2.contourArea(fewer) - area) <= _NEARLY * area:
                corners = fewer[:, 0]
                break
        if len(corners) > 2:
            at = [(round((x + 0.5) / 2), round((y + 0.5) / 2)) for x, y in corners.tolist()]
            polygons.append((at, parent < 0, cv2.contourArea(contour)))
    polygons.sort(key=lambda one: -one[2])  # what lies within something is smaller
    return [(corners, white) for corners, white, _ in polygons]


class _Seen:
    """Sums over images, all shrunk alike.

    Attributes
    ----------
    count : int
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: Doubles = np.zeros(())
        self._squares: Doubles = np.zeros(())
        self._gradients: Doubles = np.zeros(())

    def add(self, image: npt.NDArray[np.uint8]) -> None:
        """Take an image [H, W, 3]."""
        height, width = image.shape[:2]
        scale = min(1.0, _SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small: Doubles = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float64)
        edges = [cv2.Sobel(small, cv2.CV_64F, *way, scale=1 / 8) for way in ((1, 0), (0, 1))]
        self.count += 1
        self._sum = self._sum + small
        self._squares = self._squares + small**2
        self._gradients = self._gradients + sum((edge**2).sum(-1) for edge in edges)

    def variation(self) -> Doubles:
        """Return how much each place varies, over the images and within them, [h, w]."""
        mean = self._sum / self.count
        variance = np.maximum(self._squares / self.count - mean**2, 0).sum(-1)
        energy: Doubles = variance + _GRADIENT**2 * self._gradients / self.count
        return np.sqrt(cv2.GaussianBlur(energy, (0, 0), max(1.0, _share(_BLUR, energy.shape))))


def _ground(variation: Doubles) -> Mask | None:
    """Return what is plain ground of a picture [h, w]; None if that cannot be told."""
    from scipy import ndimage  # takes a while to import

    levels, apart = np.log(variation + _ROUNDING), np.log(_APART)
    if np.ptp(levels) < apart:
        return None
    low = levels <= _otsu(levels)
    if np.median(levels[~low]) - np.median(levels[low]) < apart:
        return None
    parts, count = ndimage.label(low)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    large = np.bincount(parts.ravel(), minlength=count + 1) >= _SCRAP * low.size
    large[0] = False  # what varies
    outer = np.isin(np.arange(count + 1), border)
    ground: Mask = (large & outer)[parts]
    return ground


def _otsu(levels: Doubles) -> float:
    """Return the value that parts values into two kinds of the greatest variance between them."""
    counts, edges = np.histogram(levels, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = sums / below - (sums[-1] - sums) / above
        between = np.nan_to_num(below * above * apart**2)
    return float(edges[1:][between.argmax()])


def _widened(looked_at: Mask) -> Mask:
    """Return what is looked at without gaps and holes, and with a margin."""
    from scipy import ndimage  # takes a while to import

    gap, margin = (round(_share(one, looked_at.shape)) for one in (_GAP, _MARGIN))
    room = gap + margin
    around = np.pad(looked_at, room)
    closed = _eroded(_dilated(around, gap), gap)
    filled = np.asarray(ndimage.binary_fill_holes(closed[room:-room, room:-room] | looked_at))
    return _dilated(filled, max(1, margin))


def _dilated(mask: Mask, radius: int) -> Mask:
    """Return all pixels that are no farther than a radius from a mask's."""
    from scipy import ndimage  # takes a while to import

    return np.asarray(ndimage.distance_transform_edt(~mask) <= radius)


def _eroded(mask: Mask, radius: int) -> Mask:
    return ~_dilated(~mask, radius)


def _share(share: float, size: Sequence[int]) -> float:
    """Return a share of the shorter side, in pixels."""
    return share * min(size)
