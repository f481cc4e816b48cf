"""The pictures that an answer carries, as files in base64."""

from __future__ import annotations

import base64
import io
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..answers import Picture
from ..detector.result import Result
from ..images import Framing
from ..index import Index
from ..pictures import colours
from ..pictures.drawing import View, closer_looks, draw_box, fitted, hatch, looked_at_in, overlaid
from ..pictures.encode import as_tiff, as_webp
from ..report.closeups import map_at_most
from ..types import Floats
from ..verdict import Region, shown_map

_SIDE = 640
"""Pixels of a picture's longer side; lines over a small image would be coarse."""
_HEAT_SIDE = 1280
_SMALL = 256
_LOOK = 160
"""Pixels a side of a closer look."""

Pixels = npt.NDArray[np.uint8]


class MapFormat(StrEnum):
    """How maps are sent: 16-bit grey PNG with a scale, or float32 TIFF."""

    PNG = "png"
    TIFF = "tiff"


def photo(result: Result) -> Pixels:
    """Return the image in the size that it is shown in, uint8 [h, w, 3]."""
    return fitted(result.image, _SIDE)


def overlay(result: Result, framing: Framing, threshold: float | None) -> Pixels:
    """Return `photo` with the anomaly map over it, coloured like the overlays of a query.

    What is not looked at is hatched.
    """
    painted = overlaid(photo(result), shown_map(result, threshold), threshold)
    return hatch(painted, looked_at_in(painted, framing, result))


def small(result: Result, framing: Framing, threshold: float | None) -> bytes:
    """Return the same, small, as a JPEG file."""
    picture = fitted(result.image, _SMALL)
    painted = overlaid(picture, shown_map(result, threshold), threshold)
    data = io.BytesIO()
    Image.fromarray(hatch(painted, looked_at_in(painted, framing, result))).save(
        data, "jpeg", quality=75
    )
    return data.getvalue()


def heat(values: Floats, threshold: float | None) -> Picture:
    """Return a map's colours, which are clear where it is low."""
    pixels = colours.heat(map_at_most(values, _HEAT_SIDE), threshold)
    return _picture("image/webp", pixels, io.BytesIO(as_webp(pixels)))


def looks(result: Result, index: Index, region: Region) -> tuple[Pixels, Pixels]:
    """Return the place where a region peaks, and the good patch matched with it, to one scale."""
    here, good = closer_looks(result, index, region)
    return _boxed(here), _boxed(good)


def _boxed(view: View) -> Pixels:
    """Return a view enlarged, with a box around its patch."""
    enlarged = fitted(view.picture, _LOOK)
    left, top, right, bottom = (round(side * _LOOK / len(view.picture)) for side in view.box)
    draw_box(enlarged, (left, top), (right, bottom))
    return enlarged


def jpeg(pixels: Pixels) -> Picture:
    """Return a picture for the eye."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "jpeg", quality=88)
    return _picture("image/jpeg", pixels, data)


def map_picture(values: Floats, form: MapFormat) -> Picture:
    """Return a map with all its digits as TIFF, float32; or as 16-bit grey PNG.

    A sample of the PNG times `scale` is the map's value, 0 or more.
    """
    data = io.BytesIO()
    if form is MapFormat.TIFF:
        data.write(as_tiff(values))
        return _picture("image/tiff", values, data)
    scale = max(float(values.max()), 1e-12) / 65535
    grey = np.round(np.maximum(values, 0) / scale).astype(np.uint16)
    Image.fromarray(grey).save(data, "png", compress_level=3)
    return _picture("image/png", values, data, scale)


def _picture(
    kind: str, pixels: npt.NDArray[np.generic], data: io.BytesIO, scale: float | None = None
) -> Picture:
    return Picture(
        media_type=kind,
        width=pixels.shape[1],
        height=pixels.shape[0],
        scale=scale,
        data=base64.b64encode(data.getvalue()).decode(),
    )
