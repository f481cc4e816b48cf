"""Decode image files to RGB of 8 bits."""

from __future__ import annotations

import io
import os
from pathlib import Path
from stat import S_ISREG

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import SpadeError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""What Pillow is asked to decode; some of its other formats start programs."""
MIN_SIDE = 16
"""The smallest side, in pixels, from which a pyramid of features still means something."""
_HUGE = (1 << 30, 1 << 30)


def read_image(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Decode an image file to RGB `[H, W, 3]`, uint8, turned upright as its EXIF tag says.

    Grey becomes three equal channels, alpha is dropped, and 16-bit samples are scaled by
    255/65535 (never stretched to the image's own range: brightness carries information).

    Raises
    ------
    SpadeError
        If the file cannot be read, is no image, is cut short, holds floating-point samples or
        is smaller than 16 pixels a side.
    """
    try:
        if not S_ISREG(Path(path).stat().st_mode):  # to open a pipe would wait for ever
            raise SpadeError("is no file that holds an image, but a pipe, device or folder")
        data = Path(path).read_bytes()
    except OSError as error:
        raise SpadeError(f"cannot be read: {error.strerror}") from None
    return decode_image(data)


def decode_image(data: bytes | bytearray) -> npt.NDArray[np.uint8]:
    """Decode an image file's bytes as `read_image` does, and raise what it raises."""
    if not data:
        raise SpadeError("is empty (0 bytes); copy it again")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            image = _to_rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        image = _decode_rarer(data)
    except Image.DecompressionBombError:
        raise SpadeError("has too many pixels to be decoded safely; scale it down") from None
    except SpadeError:
        raise
    except Exception as error:  # of any kind: decoders do not say what damage makes them raise
        raise SpadeError(f"is damaged or cut short ({_first_line(error)}); copy it again") from None
    return checked_size(image)


def image_size(data: bytes | bytearray) -> tuple[int, int] | None:
    """Return an image's height and width as its header has them; no pixel is decoded.

    None if the bytes are no PNG, JPEG, BMP, TIFF or WebP image. What an EXIF tag says of
    turning is not applied.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            return opened.height, opened.width
    except Image.DecompressionBombError:
        return _HUGE
    except Exception:  # see decode_image
        pass
    try:  # such as 16-bit RGB
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            return page.imagelength, page.imagewidth
    except Exception:
        return None


def _to_rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.dtype.itemsize > 2:
            if grey.min() < 0 or grey.max() > 65535:
                raise SpadeError("holds 32-bit samples; convert it to 8 or 16 bits")
            grey = grey.astype(np.uint16)
        return grey_to_rgb(_to_8_bit(grey))
    if image.mode == "F":
        raise SpadeError("holds floating-point samples; convert it to 8 or 16 bits")
    return np.asarray(image.convert("RGB"))


def _decode_rarer(data: bytes | bytearray) -> npt.NDArray[np.uint8]:
    """Decode what Pillow does not know and OpenCV does, such as 16-bit RGB TIFF."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None:
        raise SpadeError("is not an image that can be decoded (PNG, JPEG, BMP, TIFF or WebP)")
    if image.dtype.kind != "u":
        raise SpadeError("holds floating-point samples; convert it to 8 or 16 bits")
    if image.dtype.itemsize > 2:
        raise SpadeError("holds 32-bit samples; convert it to 8 or 16 bits")
    return np.ascontiguousarray(_to_8_bit(image)[:, :, ::-1])


def _to_8_bit(samples: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    if samples.dtype.itemsize == 1:
        return samples.astype(np.uint8, copy=False)
    return np.round(samples.astype(np.float32) * np.float32(255 / 65535)).astype(np.uint8)


def grey_to_rgb(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a grey image [H, W] as three equal channels [H, W, 3]."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def checked_size(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an image, unless it is too small for a pyramid of features: then raise SpadeError."""
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise SpadeError(
            f"is {width}x{height} pixels; an image needs at least {MIN_SIDE} pixels a side"
        )
    return image


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
