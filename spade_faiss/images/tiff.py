"""Decode TIFF files: samples of 1 to 16 bits, of any layout, to RGB of 8 bits."""

from __future__ import annotations

import io
import logging
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from math import prod

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from ..errors import SpadeError
from .headers import read_jpeg
from .samples import Samples, grey_to_rgb, note_range, to_8_bit, upright
from .source import OnNote

# It logs what it finds odd in a file; here such files are read right, or refused by name.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

MOST_SAMPLES = 8
"""Samples of a pixel, at most, with alpha and the like."""
_MOST_SEGMENTS = 1 << 17
_MOST_PAGES = 64
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_JPEG = 7
_COMPRESSIONS = {1, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, 34925, 50000}
"""None, CCITT, LZW, JPEG, Deflate, PackBits, LZMA and Zstandard."""
_KINDS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_MAX_SAMPLE, _ORIENTATION, _PHOTOMETRIC, _INK_SET, _DOT_RANGE, _S_MAX_SAMPLE = (
    281,
    274,
    262,
    332,
    336,
    341,
)
_NEEDED = {
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    274,
    277,
    278,
    279,
    281,
    284,
    317,
    320,
    322,
    323,
    324,
    325,
    332,
    336,
    338,
    339,
    341,
    347,
}
"""Tags that say what the pixels are; the last are JPEG's tables."""


@contextmanager
def open_tiff(data: bytes | bytearray) -> Iterator[tuple[tifffile.TiffPage, bool]]:
    """Open a TIFF file: its first page, and whether more follow.

    Pages that are reduced copies or masks of others do not count.
    """
    with tifffile.TiffFile(
        io.BytesIO(data), is_lsm=False, is_ndpi=False, is_scanimage=False
    ) as file:
        whole = (
            page
            for page in islice(file.pages, _MOST_PAGES)
            if isinstance(page, tifffile.TiffPage) and not (page.is_reduced or page.is_mask)
        )
        page = next(whole, None)
        if page is None:
            raise SpadeError("holds only a reduced copy of an image; save the image itself")
        stack = file.imagej_metadata or {}
        yield page, next(whole, None) is not None or stack.get("images", 1) > 1


def decode_tiff(data: bytes | bytearray, on_note: OnNote) -> npt.NDArray[np.uint8]:
    """Decode the first page of a TIFF file to RGB `[H, W, 3]`, upright.

    Raises
    ------
    SpadeError
        If its pixels cannot be read, or not for certain.
    """
    with open_tiff(data) as (page, more):
        _check_tags(page, data)
        channels = _check(page)
        _check_segments(page, data)
        if more:
            on_note("only the first of several pages is looked at")
        planes = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # [planes, H, W, samples]
        samples = np.moveaxis(planes[..., 0], 0, -1) if len(planes) > 1 else planes[0]
        image = _colours(page, samples[..., :channels], on_note)
        return upright(image, page.tags.valueof(_ORIENTATION))


def _check_tags(page: tifffile.TiffPage, data: bytes | bytearray) -> None:
    """Raise SpadeError if a tag could not be read: tifffile would go on with a default value."""
    layout = page.parent.tiff
    (count,) = struct.unpack_from(layout.tagnoformat, data, page.offset)
    first = page.offset + layout.tagnosize
    codes = {
        struct.unpack_from(layout.byteorder + "H", data, first + number * layout.tagsize)[0]
        for number in range(count)
    }
    if lost := (codes & _NEEDED) - {*page.tags.keys()}:
        raise SpadeError(
            f"is damaged or cut short (its tag {min(lost)} cannot be read); copy it again"
        )


def _check(page: tifffile.TiffPage) -> int:
    """Return how many of the samples are colours, and raise SpadeError if that is not certain."""
    mend = "; convert it to grey or RGB of 8 or 16 bits"
    if page.sampleformat != 1:
        kind = _KINDS.get(page.sampleformat, "unknown")
        raise SpadeError(f"holds {kind} samples" + mend)
    bits, compression = page.bitspersample, page.compression
    if not isinstance(bits, int):
        raise SpadeError("holds samples of several depths" + mend)
    if not 1 <= bits <= 16:
        raise SpadeError(f"holds {bits}-bit samples" + mend)
    if page.photometric not in _CHANNELS or _PHOTOMETRIC not in page.tags:
        name = getattr(page.photometric, "name", page.photometric)
        if _PHOTOMETRIC not in page.tags:
            name = "no PhotometricInterpretation"
        raise SpadeError(f"holds colours of a kind that is not read ({name})" + mend)
    if compression not in _COMPRESSIONS:
        name = getattr(compression, "name", compression)
        raise SpadeError(f"is compressed in a way that is not read ({name}); use LZW or Deflate")
    if page.photometric == _YCBCR and (compression != _JPEG or page.planarconfig != 1):
        raise SpadeError("holds YCbCr that is not compressed by JPEG" + mend)
    if page.photometric == _CMYK and page.tags.valueof(_INK_SET, 1) != 1:
        raise SpadeError("holds inks other than CMYK" + mend)
    if page.predictor != 1 and (page.predictor != 2 or bits not in (8, 16)):
        raise SpadeError(f"uses predictor {int(page.predictor)} with {bits}-bit samples" + mend)
    channels = _CHANNELS[page.photometric]
    # Alpha or, named by no one, another sample of grey is dropped; more are not for certain grey.
    most = MOST_SAMPLES if channels > 1 or page.extrasamples else channels + 1
    if not channels <= page.samplesperpixel <= most or page.imagedepth != 1:
        raise SpadeError(f"holds {page.samplesperpixel} samples a pixel" + mend)
    return channels


def _check_segments(page: tifffile.TiffPage, data: bytes | bytearray) -> None:
    """Raise SpadeError if a strip or tile is missing, cut short, or larger than it may be."""
    _, _, height, width, _ = page.shaped
    # Tiles may be larger than a small image.
    sides = (
        (page.tilelength, page.tilewidth)
        if page.is_tiled
        else (min(page.rowsperstrip, height), width)
    )
    count = prod(page.chunked)
    if count > _MOST_SEGMENTS or prod(sides) > max(4 * height * width, 1 << 22):
        raise SpadeError(
            "is cut into strips or tiles that are too small or too large; save it anew"
        )
    starts, sizes = page.dataoffsets, page.databytecounts
    if len(starts) != count or len(sizes) != count or not all(starts) or not all(sizes):
        raise SpadeError("is damaged (strips or tiles are missing); copy it again")
    if any(start + size > len(data) for start, size in zip(starts, sizes, strict=True)):
        raise SpadeError("is cut short; copy it again")
    if page.compression == 1 and count == 1 and not page.is_tiled:  # which tifffile does not check
        row = -(-width * page.samplesperpixel * page.bitspersample // 8)
        if sizes[0] < height * row:
            raise SpadeError("is damaged (its pixels are cut short); copy it again")
    if page.compression == _JPEG:
        view = memoryview(data)
        for start, size in zip(starts, sizes, strict=True):
            header = read_jpeg(view[start : start + size])
            if not header.whole or header.height > sides[0] or header.width > sides[1]:
                raise SpadeError("is damaged or cut short (in its JPEG data); copy it again")


def _colours(page: tifffile.TiffPage, samples: Samples, on_note: OnNote) -> npt.NDArray[np.uint8]:
    """Return RGB `[H, W, 3]` for samples `[H, W, channels]`."""
    bits = page.bitspersample
    if samples.dtype == bool:
        samples = samples.view(np.uint8)
    if page.photometric == _PALETTE:
        return _palette(page)[samples[..., 0]]
    top = (1 << bits) - 1
    if bits > 8:
        said = _declared_top(page)
        if said and samples.max(initial=0) <= said < top:
            top = said
        elif bits == 16:
            note_range(samples, on_note)
    dots = page.tags.valueof(_DOT_RANGE)
    inverted = page.photometric == _WHITE_IS_ZERO or (
        page.photometric == _CMYK and isinstance(dots, tuple) and dots[0] > dots[1]
    )
    levels = to_8_bit(samples, top, inverted=inverted)
    if page.photometric == _CMYK:
        return np.asarray(Image.fromarray(levels, "CMYK").convert("RGB"))
    return levels if levels.shape[2] == 3 else grey_to_rgb(levels[..., 0])


def _palette(page: tifffile.TiffPage) -> npt.NDArray[np.uint8]:
    """Return the colour of each sample, `[2**bits, 3]`."""
    colours = page.colormap
    if colours is None or colours.shape != (3, 1 << page.bitspersample):
        raise SpadeError("is damaged (its palette is missing or of another size); copy it again")
    # Some programs write 8 bits, as libtiff knows too. The high byte is exact for both ways in
    # which others make 16 bits of 8: v * 256 and v * 257.
    high = colours if colours.max() < 256 else colours >> 8
    return np.ascontiguousarray(high.T, np.uint8)


def _declared_top(page: tifffile.TiffPage) -> int | None:
    """Return the largest sample that the camera can give, if the file says so.

    MaxSampleValue is often the largest sample that is there, which says nothing; of the form
    2**n - 1 it is taken for a range. OME's SignificantBits says n.
    """
    said = []
    for tag in (_S_MAX_SAMPLE, _MAX_SAMPLE):
        said.append(np.ravel(page.tags.valueof(tag, 0)))
    if ome := re.search(r'\bSignificantBits="(\d{1,2})"', page.description):
        said.insert(0, np.array([(1 << int(ome[1])) - 1]))
    for values in said:
        top = values[0]
        if (values == top).all() and any(top == (1 << bits) - 1 for bits in range(8, 17)):
            return int(top)
    return None
