"""Decode image files to RGB of 8 bits."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from stat import S_ISREG

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from .._support.warning import ImageWarning
from ..errors import SpadeError
from .headers import JpegHeader, PngHeader, read_jpeg, read_png
from .samples import Samples, grey_to_rgb, note_range, to_8_bit, upright
from .source import OnNote
from .tiff import decode_tiff, open_tiff

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""What is decoded; some of Pillow's other formats start programs."""
MIN_SIDE = 16
"""The smallest side, in pixels, from which a pyramid of features still means something."""
MAX_PIXELS = 200_000_000
"""The most pixels of an image. To decode it takes 6 to 24 bytes of memory for each."""
_ORIENTATION = 0x0112
_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"RIFF": "WEBP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
# Image.open() would warn of large images, or refuse them, by a limit that is the whole process's.
_PILLOW: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "BMP": BmpImageFile,
    "WEBP": WebPImageFile,
}


def read_image(
    path: str | os.PathLike[str], on_note: OnNote | None = None
) -> npt.NDArray[np.uint8]:
    """Decode an image file to RGB `[H, W, 3]`, uint8, turned upright as its EXIF tag says.

    Grey becomes three equal channels and alpha is dropped. Samples of n bits are scaled by
    255/(2**n - 1), never stretched to the image's own range: brightness carries information.
    n is what the file says, in TIFF also by SMaxSampleValue, MaxSampleValue or OME's
    SignificantBits, so that 12 bits in 16 are scaled by 255/4095 where it is said that they are
    12. Of several pages or frames the first is decoded.

    Parameters
    ----------
    path : path
    on_note : callable, optional
        Called with one line if only the first of several pages is decoded, or if 16-bit samples
        use so little of their range that few levels are left. By default an `ImageWarning` is
        issued.

    Raises
    ------
    SpadeError
        If the file cannot be read, is no image, is cut short, holds samples of more than 16 bits
        or with a sign, or is smaller than 16 pixels a side or larger than `MAX_PIXELS`.
    """
    try:
        if not S_ISREG(Path(path).stat().st_mode):  # to open a pipe would wait for ever
            raise SpadeError("is no file that holds an image, but a pipe, device or folder")
        data = Path(path).read_bytes()
    except OSError as error:
        raise SpadeError(f"cannot be read: {error.strerror}") from None

    def warn(text: str) -> None:
        warnings.warn(f"{os.fspath(path)}: {text}", ImageWarning, stacklevel=4)

    return decode_image(data, on_note or warn)


def decode_image(data: bytes | bytearray, on_note: OnNote | None = None) -> npt.NDArray[np.uint8]:
    """Decode an image file's bytes as `read_image` does, and raise what it raises."""
    if not data:
        raise SpadeError("is empty (0 bytes); copy it again")
    kind = _kind(data)
    if kind is None:
        raise SpadeError("is not an image that can be decoded (PNG, JPEG, BMP, TIFF or WebP)")
    on_note = on_note or _warn
    try:
        height, width = _size(data, kind)
        _check_sides(height, width)
        if height * width > MAX_PIXELS:
            raise SpadeError(
                f"has too many pixels ({width}x{height}, and at most "
                f"{MAX_PIXELS // 10**6} million are decoded); scale it down, or cut "
                "it up"
            )
        return decode_tiff(data, on_note) if kind == "TIFF" else _decode(data, kind, on_note)
    except SpadeError:
        raise
    except MemoryError:
        raise SpadeError(
            f"takes more memory than there is ({width}x{height} pixels); scale it down"
        ) from None
    except Exception as error:  # of any kind: decoders do not say what damage makes them raise
        raise SpadeError(
            f"is damaged, cut short or of a rare kind ({first_line(error)}); copy it "
            "again, or convert it"
        ) from None


def image_format(data: bytes | bytearray) -> str | None:
    """Return which of `FORMATS` an image file's bytes begin as; None if as none."""
    return _kind(data)


def image_size(data: bytes | bytearray) -> tuple[int, int] | None:
    """Return an image's height and width as its header has them; no pixel is decoded.

    None if the bytes are no PNG, JPEG, BMP, TIFF or WebP image. What a tag says of turning is
    not applied.
    """
    kind = _kind(data)
    try:
        return None if kind is None else _size(data, kind)
    except Exception:  # see decode_image
        return None


def is_known(data: bytes | bytearray) -> bool:
    """Say whether a file's bytes begin as an image of a kind that is decoded does."""
    return _kind(data) is not None


def _kind(data: bytes | bytearray) -> str | None:
    kind = next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)
    return None if kind == "WEBP" and data[8:12] != b"WEBP" else kind


def _size(data: bytes | bytearray, kind: str) -> tuple[int, int]:
    if kind == "TIFF":
        with open_tiff(data) as (page, _):
            return page.imagelength, page.imagewidth
    if kind == "JPEG":  # Pillow opens no 12-bit ones
        header = read_jpeg(data)
        return header.height, header.width
    with _PILLOW[kind](io.BytesIO(data)) as opened:
        return opened.height, opened.width


def _decode(data: bytes | bytearray, kind: str, on_note: OnNote) -> npt.NDArray[np.uint8]:
    """Decode all but TIFF."""
    if kind == "JPEG":
        jpeg = read_jpeg(data)
        if not jpeg.whole:
            raise SpadeError("is cut short; copy it again")
        if jpeg.channels == 4 and not jpeg.adobe:
            raise SpadeError(
                "is a CMYK JPEG without Adobe's mark, so that it is not certain "
                "whether 0 is ink or paper; convert it to RGB"
            )
        if jpeg.bits != 8:
            return _decode_deep_jpeg(data, jpeg)
    with _PILLOW[kind](io.BytesIO(data)) as opened:
        if getattr(opened, "n_frames", 1) > 1:
            on_note("only the first of several frames is looked at")
        if kind == "PNG":
            png = read_png(data)
            if png.exif:  # which Pillow finds behind the pixels only when it has decoded them
                opened.info["exif"] = png.exif
            if png.bits >= 8 and not png.indexed:
                image = _decode_png(data, png, on_note)
                return upright(image, Image.Image.getexif(opened).get(_ORIENTATION))
        opened.load()
        opened.info.pop("transparency", None)  # of which Pillow would warn; alpha is dropped
        image = np.asarray(opened if opened.mode == "RGB" else opened.convert("RGB"))
        if kind == "JPEG" and (image[-8:, -8:] == 128).all():  # what libjpeg puts for lost data
            on_note("a JPEG that ends in plain mid-grey, as where its data broke off; look at it")
        return upright(image, opened.getexif().get(_ORIENTATION))


def _decode_png(
    data: bytes | bytearray, header: PngHeader, on_note: OnNote
) -> npt.NDArray[np.uint8]:
    """Decode samples of 8 or 16 bits: faster than Pillow, which keeps the high byte of 16 bits."""
    samples: Samples = np.atleast_3d(imagecodecs.png_decode(data))
    samples = samples[..., : 3 if samples.shape[2] > 2 else 1]
    if header.bits == 8:
        return _rgb(to_8_bit(samples, 255))
    top, unused = (1 << header.significant) - 1, 16 - header.significant
    # By its specification sBIT says how many bits there were before they were scaled to 16; then
    # those below are 0 or, rounded, 1 in an image this dark. Else they have not been scaled.
    if not unused or samples.max() > top or (samples & ((1 << unused) - 1)).max() <= 1:
        top = 65535
        note_range(samples, on_note)
    return _rgb(to_8_bit(samples, top))


def _decode_deep_jpeg(data: bytes | bytearray, header: JpegHeader) -> npt.NDArray[np.uint8]:
    """Decode samples of 12 bits, which Pillow refuses."""
    if header.channels not in (1, 3) or not 8 < header.bits <= 16:
        raise SpadeError(
            f"holds {header.channels} channels of {header.bits} bits; convert it to "
            "grey or RGB of 8 bits"
        )
    samples: Samples = np.atleast_3d(imagecodecs.jpeg8_decode(data))
    exif = Image.Exif()
    exif.load(header.exif)
    image = _rgb(to_8_bit(samples, (1 << header.bits) - 1))
    return upright(image, exif.get(_ORIENTATION))


def _rgb(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return levels if levels.shape[2] == 3 else grey_to_rgb(levels[..., 0])


def checked_size(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an image, unless it is too small for a pyramid of features: then raise SpadeError."""
    _check_sides(*image.shape[:2])
    return image


def _check_sides(height: int, width: int) -> None:
    if min(height, width) < MIN_SIDE:
        raise SpadeError(
            f"is {width}x{height} pixels; an image needs at least {MIN_SIDE} pixels a side"
        )


def _warn(text: str) -> None:
    warnings.warn(f"an image: {text}", ImageWarning, stacklevel=4)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind."""
    return str(error).strip().split("\n")[0] or type(error).__name__
