"""Turn samples of 1 to 16 bits into levels of 8 bits."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from .source import OnNote

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
_FEW = 14
"""Bits, at most, of 16 that leave too few of 256 levels to pass without a word."""


def to_8_bit(samples: Samples, top: int, *, inverted: bool = False) -> npt.NDArray[np.uint8]:
    """Return 255/`top` times each sample, rounded, and 255 from `top` on; same shape.

    Inverted, 0 is white. No product lies midway between two levels, as `top` is odd.
    """
    if samples.dtype.itemsize == 1 and top == 255:
        levels = np.ascontiguousarray(samples, np.uint8)
    else:
        wide = np.ascontiguousarray(samples, np.uint16)  # in this machine's byte order
        levels = np.asarray(cv2.convertScaleAbs(wide, alpha=255 / top), np.uint8)
        levels = levels.reshape(samples.shape)
    return 255 - levels if inverted else levels


def note_range(samples: Samples, on_note: OnNote) -> None:
    """Note that 16-bit samples use so little of their range that few levels are left."""
    bits = int(samples.max(initial=0)).bit_length()
    if 0 < bits <= _FEW:
        levels = max(2, 256 >> (16 - bits))
        on_note(
            f"16-bit samples that use {bits} bits, which leaves {levels} of 256 levels; scale "
            "them to 0…65535, or let the file say their range (TIFF: SMaxSampleValue "
            f"{(1 << bits) - 1})"
        )


def grey_to_rgb(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a grey image [H, W] as three equal channels [H, W, 3]."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def upright(image: npt.NDArray[np.uint8], orientation: object) -> npt.NDArray[np.uint8]:
    """Return an image turned as the EXIF or TIFF tag Orientation, 1 to 8, says."""
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return np.asarray(turn(image), np.uint8) if turn else image


_TURNS: dict[int, Callable[[npt.NDArray[np.uint8]], cv2.typing.MatLike]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.flip(image, -1),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
