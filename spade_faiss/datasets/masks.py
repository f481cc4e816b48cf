"""Read masks of defects, however they were painted and saved.

What a mask means is read from its values: two of them, soft edges, the numbers or colours of
kinds of defects, or paint on a transparent layer. Where it cannot be known, the file is named.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from ..errors import SpadeError
from ..types import Mask

Samples = npt.NDArray[Any]

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
_LOSSY = {"JPEG", "MPO", "WEBP"}
_KINDS = 32  # values below this one number kinds of defects; no paint is that dark
_PNG, _DEPTH, _COLOUR = b"\x89PNG", 24, 25  # where a PNG file has its bits and its type of colour


def read_mask(path: str | os.PathLike[str], size: tuple[int, int]) -> Mask:
    """Decode a mask to bool `[H, W]`: True where it marks a defect.

    Of colours a pixel's value is its largest sample. What is marked, is

    - of zero and one other value: the other, whichever it is;
    - of more values, which soft edges and JPEG make: what is over half of the largest, but for
      crumbs, parts that hang together with one ten times as large by what is over a quarter (a
      soft edge breaks where it is thin, and a crumb would count as much as a whole region);
    - of numbers below 32, which name kinds of defects (as in VisA), and of up to 31 colours that
      are not shades of one: all but zero;
    - of paint on a transparent layer: what is over half as opaque as the most opaque, or, if
      black was painted, too, what is not black.

    A palette is resolved first.

    Parameters
    ----------
    path : path
    size : (int, int)
        Height and width of the image that the mask belongs to.

    Raises
    ------
    SpadeError
        If the file cannot be decoded, its size is not the image's, it marks nothing or
        everything, it looks inverted (it marks most of the image and most of its border), or it
        is too dark to tell a defect from what JPEG leaves.
    """
    decoded = decode_mask(path, size)
    marked = _marked(decoded, path)
    share = float(marked.mean())
    if share in (0, 1):
        what = "every pixel as a defect" if share else "no pixel as a defect"
        raise SpadeError(f"{path}: the mask marks {what}; paint defects white on black")
    border = np.concatenate([marked[0], marked[-1], marked[1:-1, 0], marked[1:-1, -1]])
    if share > 0.5 and border.mean() > 0.5:
        raise SpadeError(
            f"{path}: the mask marks {100 * share:.0f}% of the image and most of its "
            "border as a defect: it looks inverted; paint defects white on black"
        )
    return marked


@dataclass(frozen=True)
class Decoded:
    """A mask file as it was saved.

    Attributes
    ----------
    bands : real or bool [H, W, C]
        Grey or RGB; a palette is resolved.
    alpha : [H, W] or None
        How opaque it is, if that differs between pixels.
    lossy : bool
        Whether its format may have changed values.
    """

    bands: Samples
    alpha: Samples | None
    lossy: bool

    @property
    def values(self) -> Samples:
        """The largest sample of each pixel, [H, W]."""
        values: Samples = self.bands.max(axis=2)
        return values


def decode_mask(path: str | os.PathLike[str], size: tuple[int, int]) -> Decoded:
    """Decode a mask file, and check its size.

    Raises
    ------
    SpadeError
        If it cannot be decoded, or its size is not the image's.
    """
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            lossy = opened.format in _LOSSY
            samples, transparent = _samples(ImageOps.exif_transpose(opened), Path(path))
    except UnidentifiedImageError:
        raise SpadeError(f"{path}: the mask is not an image; copy it again") from None
    except Image.DecompressionBombError:
        raise SpadeError(f"{path}: the mask has too many pixels to be decoded safely") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        why = getattr(error, "strerror", None) or "damaged or cut short"
        raise SpadeError(f"{path}: the mask cannot be read ({why}); copy it again") from None
    if samples.shape[:2] != tuple(size):
        raise SpadeError(
            f"{path}: the mask is {samples.shape[1]}x{samples.shape[0]} pixels and "
            f"its image {size[1]}x{size[0]}; they must be of one size"
        )
    if not np.isfinite(samples).all():
        raise SpadeError(
            f"{path}: the mask holds values that are not finite; paint defects white on black"
        )
    if not transparent:
        return Decoded(samples, None, lossy)
    alpha = samples[:, :, -1]
    differs = alpha.min() != alpha.max()
    return Decoded(samples[:, :, :-1], alpha if differs else None, lossy)


def _samples(image: Image.Image, path: Path) -> tuple[Samples, bool]:
    """Return an image's samples [H, W, C], and whether the last band is alpha."""
    if image.mode not in ("1", "L", "LA", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif "transparency" in image.info and image.mode in ("1", "L", "RGB"):
        image = image.convert("RGBA")
    transparent = image.mode in ("LA", "RGBA")
    samples = np.atleast_3d(np.asarray(image))
    with path.open("rb") as file:
        header = file.read(_COLOUR + 1)
    if header.startswith(_PNG) and header[_DEPTH] == 16 and header[_COLOUR] != 0:
        # Pillow keeps only the upper half of these 16 bits.
        # Not by its name, which OpenCV takes for one of the system's code page on Windows.
        whole = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if whole is None:
            raise ValueError
        samples, transparent = np.atleast_3d(whole), whole.ndim == 3 and whole.shape[2] == 4
    return samples, transparent


def _marked(mask: Decoded, path: str | os.PathLike[str]) -> Mask:
    """Return what a mask marks, bool [H, W], perhaps nothing or everything."""
    values = mask.values
    if mask.alpha is not None:
        painted = np.asarray(mask.alpha > mask.alpha.max() / 2)
        if _one_colour(mask.bands[painted]) or values[painted].min() > values[painted].max() / 2:
            return painted
        values = np.where(painted, values, 0)
    distinct = np.unique(values)
    largest = distinct[-1]
    two = len(distinct) == 2 and distinct[0] == 0
    if not two and values.dtype.kind in "iu" and 0 < largest < _KINDS:
        if mask.lossy:
            raise SpadeError(
                f"{path}: the mask is nearly black (its largest value is {largest}) "
                "and of a format that changes values: what it marks cannot be known; "
                "save it as PNG"
            )
        return np.asarray(values != 0)
    if two or (not mask.lossy and mask.alpha is None and _of_kinds(mask.bands)):
        return np.asarray(values != 0)
    return _soft(values, float(largest))


def _soft(values: Samples, largest: float) -> Mask:
    """Return what is over half of the largest value, without crumbs (see `read_mask`)."""
    marked = np.asarray(values > largest / 2)
    parts, count = ndimage.label(marked, np.ones((3, 3)))
    if count < 2:
        return marked
    wholes, _ = ndimage.label(values > largest / 4, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    owners = np.zeros(count + 1, np.int64)  # the whole that each part belongs to
    owners[parts[marked]] = wholes[marked]
    greatest = np.zeros(int(owners.max()) + 1, np.int64)
    np.maximum.at(greatest, owners[1:], sizes[1:])
    crumbs = 10 * sizes < greatest[owners]
    return np.asarray(marked & ~crumbs[parts])


def _one_colour(pixels: Samples) -> bool:
    """Return whether pixels [n, C] are of one colour, but for what a lossy format changes."""
    spread = pixels.max(axis=0).astype(np.float64) - pixels.min(axis=0)
    return bool(spread.max() <= max(float(pixels.max()), 1) / 8)


def _of_kinds(bands: Samples) -> bool:
    """Return whether colours name kinds of defects: they are few, and not shades of one."""
    if bands.shape[2] < 3 or all(np.array_equal(bands[:, :, 0], bands[:, :, i]) for i in (1, 2)):
        return False
    red, green, blue = (bands[:, :, i].astype(np.int64) for i in range(3))
    packed = np.unique(red << 32 | green << 16 | blue)
    colours = np.stack([packed >> 32, packed >> 16 & 0xFFFF, packed & 0xFFFF], axis=1)
    colours = colours[colours.any(axis=1)]
    if len(colours) >= _KINDS:
        return False
    shades = colours / colours.max(axis=1, keepdims=True)
    return bool(np.ptp(shades, axis=0).max() > 1 / 8)
