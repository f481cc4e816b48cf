"""What the headers of PNG and JPEG files say that Pillow does not tell, and whether they end."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from ..errors import SpadeError

_PNG_START = 8


@dataclass(frozen=True)
class PngHeader:
    """What a PNG file's chunks say.

    Attributes
    ----------
    bits : int
        Of a sample.
    indexed : bool
        Whether samples are places in a palette.
    significant : int
        The fewest bits that a channel had before it was scaled up to `bits` (sBIT).
    exif : bytes
    """

    bits: int
    indexed: bool
    significant: int
    exif: bytes


@dataclass(frozen=True)
class JpegHeader:
    """What a JPEG file's segments say.

    Attributes
    ----------
    bits : int
        Of a sample.
    height, width, channels : int
    exif : bytes
    adobe : bool
        Whether it bears Adobe's mark, by which inks are stored as 255 minus what they are.
    whole : bool
        Whether the marker of its end follows its data.
    """

    bits: int
    height: int
    width: int
    channels: int
    exif: bytes
    adobe: bool
    whole: bool


def read_png(data: bytes | bytearray) -> PngHeader:
    """Read a PNG file's header, and check each chunk's sum, which Pillow does for few.

    Raises
    ------
    SpadeError
        If the file is cut short or damaged.
    """
    view = memoryview(data)
    kept: dict[bytes, bytes] = {}
    at = _PNG_START
    while b"IEND" not in kept:
        size = int.from_bytes(view[at : at + 4])
        end = at + 8 + size
        if end + 4 > len(data):
            raise SpadeError("is cut short; copy it again")
        kind = bytes(view[at + 4 : at + 8])
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4]):
            name = kind.decode() if kind.isalpha() else "next"
            raise SpadeError(
                f"is damaged (its {name} chunk has another checksum than it should); copy it again"
            )
        if kind in (b"IHDR", b"sBIT", b"eXIf", b"IEND"):
            kept[kind] = bytes(view[at + 8 : end])
        at = end + 4
    bits, colour = kept[b"IHDR"][8], kept[b"IHDR"][9]
    # One value a channel, alpha's the last; colour types 4 and 6 have alpha.
    colours = kept.get(b"sBIT", b"")[: 3 if colour & 2 else 1]
    return PngHeader(bits, colour == 3, min(colours, default=bits), kept.get(b"eXIf", b""))


def read_jpeg(data: bytes | bytearray | memoryview) -> JpegHeader:
    """Read a JPEG file's header.

    Raises
    ------
    SpadeError
        If it ends before its data begins, or is no JPEG.
    """
    frame, exif, adobe, at = b"", b"", False, 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without content
            at += 2
            continue
        size = int.from_bytes(data[at + 2 : at + 4])
        content = bytes(data[at + 4 : at + 2 + size])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(content) >= 6:
            frame = content
        elif marker == 0xE1 and content.startswith(b"Exif\0\0") and not exif:
            exif = content
        elif marker == 0xEE and content.startswith(b"Adobe"):
            adobe = True
        elif marker == 0xDA and frame:  # data up to the end follows
            whole = bytes(data).find(b"\xff\xd9", at) >= 0
            return JpegHeader(
                frame[0],
                int.from_bytes(frame[1:3]),
                int.from_bytes(frame[3:5]),
                frame[5],
                exif,
                adobe,
                whole,
            )
        at += 2 + size
    raise SpadeError("is damaged or cut short (a JPEG without data); copy it again")
