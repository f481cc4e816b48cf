"""The pictures that an answer carries, as files in base64."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from ..detector import Result
from ..images import Framing
from ..index import Index
from ..report import Region
from .answers import Picture

_SIDE = 640
"""Pixels of a picture's longer side; lines over a small image would be coarse."""
_LOOK = 160
"""Pixels a side of a closer look."""
_GREY = 150

Pixels = npt.NDArray[np.uint8]


def photo(result: Result) -> Pixels:
    """Return the image in the size that it is shown in, uint8 [h, w, 3]."""
    height, width = result.image.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(result.image, size, interpolation=how), np.uint8)


def overlay(result: Result, framing: Framing, threshold: float | None) -> Pixels:
    """Return `photo` with the anomaly map over it, coloured like the overlays of a query.

    Clear up to half the pixel threshold, outlined in white above it, full at twice its value;
    grey is what the crop left unseen.
    """
    picture = photo(result)
    height, width = picture.shape[:2]
    heat = np.asarray(cv2.resize(result.map, (width, height)), np.float32)
    top = 2 * threshold if threshold else max(float(result.map.max()), 1e-12)
    share = heat / np.float32(top)
    turbo = np.asarray(cv2.applyColorMap(
        np.round(255 * np.clip(share, 0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO))[..., ::-1]
    cover = 0.65 * np.clip(2 * share - 0.5, 0, 1)[..., None]
    painted = np.ascontiguousarray((picture * (1 - cover) + turbo * cover).round(), np.uint8)
    if threshold:
        over = (heat > threshold).astype(np.uint8)
        edges, _ = cv2.findContours(over, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for colour, thick in (((0, 0, 0), 4), ((255, 255, 255), 2)):
            cv2.drawContours(painted, edges, -1, colour, thick, cv2.LINE_AA)
    seen = framing.seen(result.map.shape[0], result.map.shape[1])
    scale = width / result.map.shape[1]
    left, upper, right, lower = (round(side * scale) for side in seen)
    unseen = np.ones((height, width), bool)
    unseen[upper:lower, left:right] = False
    painted[unseen] = painted[unseen] // 2 + _GREY // 2
    return painted


def looks(result: Result, index: Index, region: Region) -> tuple[Pixels, Pixels]:
    """Return the place where a region peaks, and the good patch matched with it, to one scale.

    Both are of the level that contributes most to the peak, with what surrounds the patch.
    """
    framing = index.manifest.framing.framing()
    match = region.matches[0]
    level = index.manifest.levels[match.level - 1]
    cell = framing.size[1] / level.width, framing.size[0] / level.height
    x, y = framing.to_input(region.peak_at, (result.map.shape[0], result.map.shape[1]))
    here = int(x // cell[0]), int(y // cell[1])
    return (_look(result.input, here, cell),
            _look(np.asarray(index.crops[match.row]), match.patch, cell))


def _look(framed: Pixels, patch: tuple[int, int], cell: tuple[float, float]) -> Pixels:
    side = min(max(48, round(6 * max(cell))), *framed.shape[:2])
    left = round((patch[0] + 0.5) * cell[0] - side / 2)
    top = round((patch[1] + 0.5) * cell[1] - side / 2)
    left = min(max(left, 0), framed.shape[1] - side)
    top = min(max(top, 0), framed.shape[0] - side)
    window = np.ascontiguousarray(framed[top : top + side, left : left + side])
    enlarged = np.asarray(cv2.resize(window, (_LOOK, _LOOK)), np.uint8)
    scale = _LOOK / side
    x, y = (patch[0] * cell[0] - left) * scale, (patch[1] * cell[1] - top) * scale
    corners = (round(x), round(y)), (round(x + cell[0] * scale), round(y + cell[1] * scale))
    cv2.rectangle(enlarged, *corners, (0, 0, 0), 3)
    cv2.rectangle(enlarged, *corners, (0, 200, 255), 1)
    return enlarged


def jpeg(pixels: Pixels) -> Picture:
    """Return a picture for the eye."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "jpeg", quality=88)
    return _picture("image/jpeg", pixels, data)


def tiff_map(values: npt.NDArray[np.float32]) -> Picture:
    """Return a map with all its digits: TIFF, float32."""
    data = io.BytesIO()
    tifffile.imwrite(data, values)
    return _picture("image/tiff", values, data)


def png_map(values: npt.NDArray[np.float32]) -> Picture:
    """Return a map as 16-bit grey PNG; a sample times `scale` is the map's value."""
    scale = max(float(values.max()), 1e-12) / 65535
    data = io.BytesIO()
    Image.fromarray(np.round(values / scale).astype(np.uint16)).save(data, "png", compress_level=3)
    return _picture("image/png", values, data, scale)


def _picture(
    kind: str, pixels: npt.NDArray[np.generic], data: io.BytesIO, scale: float | None = None
) -> Picture:
    return Picture(media_type=kind, width=pixels.shape[1], height=pixels.shape[0],
                   scale=scale, data=base64.b64encode(data.getvalue()).decode())
