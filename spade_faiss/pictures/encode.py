"""Pictures and maps as files."""

from __future__ import annotations

import io

import tifffile
from PIL import Image

from ..types import Floats
from .colours import Picture

_LARGE = 1_000_000
"""Pixels of a map that is compressed."""


def as_tiff(values: Floats) -> bytes:
    """Return a map as a TIFF file, float32; one of over a megapixel is compressed by zlib.

    No predictor is used, which would halve the file: readers without imagecodecs, MVTec's own
    evaluation code among them, cannot undo it.
    """
    data = io.BytesIO()
    if values.size > _LARGE:
        fast = {"level": 1}  # more takes twice as long for 1 % less
        tifffile.imwrite(data, values, compression="zlib", compressionargs=fast, maxworkers=1)
    else:
        tifffile.imwrite(data, values)
    return data.getvalue()


def as_png(picture: Picture) -> bytes:
    """Return a picture as a PNG file."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "png", compress_level=3)
    return data.getvalue()


def as_jpeg(picture: Picture, quality: int) -> bytes:
    """Return a picture as a JPEG file, with colours at full resolution."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "jpeg", quality=quality, subsampling=0)
    return data.getvalue()


def as_webp(picture: Picture, quality: int = 80) -> bytes:
    """Return a picture as a WebP file."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "webp", quality=quality, method=2, alpha_quality=60)
    return data.getvalue()
