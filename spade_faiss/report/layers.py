"""Pictures for a page: the image, the map to lay over it, and outlines, small enough to inline."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from ..pictures.colours import Picture, heat, resized, whole_map
from ..pictures.drawing import fitted
from ..pictures.encode import as_webp
from ..types import Floats, Mask
from ..verdict import over

_QUALITIES = (80, 60, 40, 20)
_PATH = 24 << 10
"""Bytes of an outline, at most."""
_CROSSINGS = 100_000
"""Pixels of a map that are not on the same side of the threshold as the next; a map that is so
ragged is outlined in half its size, for that takes long and is cut to `_PATH` in the end."""


@dataclass(frozen=True)
class Layers:
    """What a page lays one over the other, stretched to one size.

    Attributes
    ----------
    pictures : dict of str to uint8 [h, w, 3 or 4]
        `photo`, the image; `heat`, RGBA, the map where it is high; `map`, all of it. Maps are
        smooth, so these two have half as many pixels a side.
    paths : dict of str to str
        SVG paths in pixels of the image: `outline`, what is over the threshold; `truth`, the
        defects if they are known; `unseen`, what is not looked at, by the even-odd rule.
    size : (int, int)
        Width and height of the image in pixels.
    """

    pictures: Mapping[str, Picture]
    paths: Mapping[str, str]
    size: tuple[int, int]


def layers_of(
    image: Picture,
    values: Floats,
    side: int,
    threshold: float | None,
    *,
    top: float | None = None,
    looked_at: Mask | None = None,
    truth: Mask | None = None,
) -> Layers:
    """Return the layers of an image.

    Parameters
    ----------
    image : uint8 [H, W, 3]
    values : float32 [H, W]
        Its map.
    side : int
        The most pixels that the longer side of a picture may have.
    threshold : float or None
        What is over it is outlined.
    top : float, optional
        Where colours end if there is no threshold; by default at the map's maximum.
    looked_at : bool [H, W], optional
        Which pixels of the image are looked at; by default all.
    truth : bool [H, W], optional
        Where the defects are.
    """
    photo = fitted(image, min(side, max(image.shape[:2])))
    height, width = photo.shape[:2]
    coarse = resized(values, (max(1, width // 2), max(1, height // 2)))
    pictures = {
        "photo": photo,
        "heat": heat(coarse, threshold, top),
        "map": whole_map(coarse, threshold, top),
    }
    paths = paths_of(values, threshold, looked_at, truth)
    return Layers(pictures, paths, (image.shape[1], image.shape[0]))


def paths_of(
    values: Floats,
    threshold: float | None,
    looked_at: Mask | None = None,
    truth: Mask | None = None,
) -> dict[str, str]:
    """Return the paths of `Layers`; see `layers_of` for the arguments."""
    height, width = values.shape
    paths = {
        "outline": "" if threshold is None else _outline(values, threshold),
        "truth": "" if truth is None else _outline(truth.astype(np.float32), 0.5),
        "unseen": "",
    }
    if looked_at is not None and not looked_at.all():
        around = f"M0 0H{width}V{height}H0Z"  # but for what lies in it
        paths["unseen"] = around + _outline(looked_at.astype(np.float32), 0.5)
    return paths


def encoded(pictures: Mapping[str, Picture], most: int) -> dict[str, str]:
    """Return pictures as WebP in base64; worse, then smaller, if they would take over `most` bytes.

    That counts the bytes before base64 makes four of three, and must leave each picture 100.
    """
    for quality in _QUALITIES:
        files = {name: as_webp(picture, quality) for name, picture in pictures.items()}
        if sum(map(len, files.values())) <= most:
            break
    else:
        return encoded(
            {name: np.ascontiguousarray(picture[::2, ::2]) for name, picture in pictures.items()},
            most,
        )
    return {name: base64.b64encode(data).decode() for name, data in files.items()}


def _outline(values: Floats, threshold: float) -> str:
    """Return the line along which a map passes a threshold, as one SVG path.

    It is straightened by a tenth of a pixel, or by more where it would take too many bytes; if
    even that is too much, what is outlined last is left out.
    """
    from skimage.measure import find_contours  # takes a while to import

    full = np.array([values.shape[1], values.shape[0]])
    while np.count_nonzero(np.diff(over(values, threshold))) > _CROSSINGS:
        values = resized(values, (-(-values.shape[1] // 2), -(-values.shape[0] // 2)))
    pixel = full / (values.shape[1], values.shape[0])
    rows, columns = (np.flatnonzero(over(values, threshold).any(axis)) for axis in (1, 0))
    if not len(rows):
        return ""
    top, left = int(rows[0]), int(columns[0])
    part = np.s_[max(top - 1, 0) : rows[-1] + 2, max(left - 1, 0) : columns[-1] + 2]
    # Beyond the edge the map falls off so that the line runs along the edge.
    padded = np.pad(values[part], 1, "edge").astype(np.float64)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        padded[edge] = np.minimum(padded[edge], 2 * threshold - padded[edge])
    # From places in the padded part to pixels' corners in the map.
    offset = np.array([part[1].start, part[0].start]) - 0.5
    contours = [
        ((line[:, ::-1] + offset) * pixel).astype(np.float32)
        for line in find_contours(padded, threshold, fully_connected="high")
    ]
    slack = 0.1
    while True:
        lines = [_line(contour, slack) for contour in contours]
        if sum(map(len, lines)) <= _PATH or slack > max(values.shape):
            break
        slack *= 2
    room = np.cumsum([len(line) for line in lines]) <= _PATH
    return "".join(line for line, fits in zip(lines, room, strict=True) if fits)


def _line(contour: Floats, slack: float) -> str:
    """Return a closed line as an SVG path, straightened by less than `slack` pixels."""
    points = cv2.approxPolyDP(contour[:-1, None], slack, True).reshape(-1, 2).tolist()
    return "M" + "L".join(f"{x:.7g} {y:.7g}" for x, y in np.round(points, 2).tolist()) + "Z"
