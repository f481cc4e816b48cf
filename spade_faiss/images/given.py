"""Images as Python programs hold them: files, bytes, arrays, tensors and PIL images, to RGB."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from ..errors import SpadeError
from .decode import (
    FORMATS,
    checked_size,
    decode_image,
    first_line,
    image_size,
    is_known,
    read_image,
)
from .samples import grey_to_rgb, note_range, to_8_bit, upright
from .source import Frame, Images, OnNote, Source

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs

_ALONE = (str, os.PathLike, Frame, Image.Image, bytes, bytearray, memoryview)
"""What is no image beside others, though bytes can be gone through."""
_CHANNELS = (1, 3, 4)
"""Grey, RGB, and RGB with alpha."""
_ON_ITS_SIDE = range(5, 9)
"""EXIF orientations by which height and width change places."""
_HALF_A_LEVEL = 0.5 / 255
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
"""Modes of PIL whose samples have 16 bits."""
_UNCERTAIN = ("I", "F")
"""Modes of PIL that do not say what is white."""
_READING = Lock()
"""An open file is at one place at a time."""


def as_image(source: Source, on_note: OnNote) -> npt.NDArray[np.uint8]:
    """Return an image as RGB `[H, W, 3]`, uint8, whatever it is given as.

    Files, their bytes and PIL images that are not decoded yet are read as `read_image` reads
    files. What is decoded follows the same rules: grey becomes three equal channels, alpha is
    dropped, 16 bits are scaled by 255/65535, and a PIL image is turned as its EXIF tag says.

    Parameters
    ----------
    source : Source
        An array or tensor has its colours, RGB, as its last axis or its first.
    on_note : callable
        Called with what `read_image` notes.

    Raises
    ------
    SpadeError
        If it is no image, or it is not certain which.
    """
    if isinstance(source, Frame):
        return as_image(source.image, on_note)
    if isinstance(source, str | os.PathLike):
        return read_image(source, on_note)
    if isinstance(source, bytes | bytearray | memoryview):
        return decode_image(bytes(source) if isinstance(source, memoryview) else source, on_note)
    if isinstance(source, Image.Image):
        return _from_pil(source, on_note)
    if isinstance(source, np.ndarray):
        return checked_size(_from_array(source, on_note))
    if _is_tensor(source):
        return checked_size(_from_array(_as_array(source), on_note))
    if _is_file(source):
        return decode_image(_content(source), on_note)
    alone = ": leave out what is beside the image" if isinstance(source, tuple | list) else ""
    raise SpadeError(
        f"is of type {type(source).__name__}, which is no image{alone}; give a path, an array, a "
        "tensor, a PIL image, the bytes of a file, or an open file"
    )


def listed(images: Images) -> Iterable[Source]:
    """Return what was given as images as what can be gone through.

    What is one image alone becomes a list of it; so does a path, be it a folder's.

    Raises
    ------
    SpadeError
        If it is no image and no images, or it is not certain how many an array holds.
    """
    if isinstance(images, _ALONE) or _is_file(images):
        return [images]
    if isinstance(images, np.ndarray) or _is_tensor(images):
        return _listed_array(images)
    if not isinstance(images, Iterable):
        raise SpadeError(
            f"{type(images).__name__} is neither an image nor a list of them: give a folder, a "
            "list of images, or one image"
        )
    return images


def kept(source: Source) -> Source:
    """Return an image of a stream that stays as it is, though its memory is used for the next.

    Images are decoded while those after them are asked for.
    """
    if isinstance(source, np.ndarray):
        return source.copy()
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if _is_tensor(source):
        return source.clone()
    try:
        if isinstance(source, Image.Image):
            data = _undecoded(source)
            if data is None:
                source.load()
            return source if data is None else _Held(data, source)
        return _Held(_content(source), source) if _is_file(source) else source
    except Exception:  # of any kind: whoever decodes it finds the same, and says of which it is
        return source


class _Held(io.BytesIO):
    """What an open file holds, under its name."""

    def __init__(self, data: bytes, file: object) -> None:
        super().__init__(data)
        self.name = getattr(file, "filename", None) or getattr(file, "name", None)


def _listed_array(images: npt.NDArray[Any] | Tensor) -> Sequence[Source]:
    shape = tuple(images.shape)
    if isinstance(images, np.ndarray) and len(shape) == 1 and images.dtype.kind in "OU":
        paths: list[Source] = images.tolist()  # such as a column of a table
        return paths
    if len(shape) == 4:
        return [images[i] for i in range(len(images))]
    colours = _axis_of_colours(shape)
    if colours is None:
        raise SpadeError(
            f"images have shape {shape}; give a list of images, one image [H, W, 3], or many [N, "
            "H, W, 3], and grey ones as [N, H, W, 1]"
        )
    # A tensor of three axes is an image, as torchvision has it.
    if colours == 0 and shape[0] > 1 and isinstance(images, np.ndarray):
        raise SpadeError(
            f"an array of shape {shape} may be one image or {shape[0]} grey ones: give the image "
            "in a list, or the grey ones as a list"
        )
    return [images]


def announced_size(source: Source) -> tuple[int, int] | None:
    """Return an image's height and width, as it is upright, with no pixel decoded; or None."""
    if isinstance(source, Frame):
        return announced_size(source.image)
    if isinstance(source, np.ndarray) or _is_tensor(source):
        shape = tuple(source.shape)
        first = 1 if _axis_of_colours(shape) == 0 else 0
        return None if len(shape) < 2 else (int(shape[first]), int(shape[first + 1]))
    try:
        if isinstance(source, Image.Image):
            return _upright_size(source)
        if isinstance(source, str | os.PathLike):
            if not Path(source).is_file():  # to open a pipe would wait for ever
                return None
            with Path(source).open("rb") as opened:
                return _size_in(opened)
        if isinstance(source, bytes | bytearray | memoryview):
            return _size_in(io.BytesIO(source))
        with _READING:
            return _size_in(source) if _is_file(source) else None
    except Exception:  # of any kind: decoders do not say what damage makes them raise
        return None


def _size_in(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as opened:
            return _upright_size(opened)
    except UnidentifiedImageError:  # such as 16-bit RGB
        file.seek(0)
        return image_size(file.read())


def _upright_size(image: Image.Image) -> tuple[int, int]:
    # Of a PNG without the tag, to ask for it would decode the pixels.
    known = image.format != "PNG" or "exif" in image.info
    turned = known and image.getexif().get(ExifTags.Base.Orientation, 1) in _ON_ITS_SIDE
    return image.size if turned else image.size[::-1]


def _axis_of_colours(shape: tuple[int, ...]) -> int | None:
    """Return which axis of an image's array has its colours; 2 if all are one, or None.

    No side of an image is so short as an axis of colours.
    """
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in _CHANNELS):
        return 2
    return 0 if len(shape) == 3 and shape[0] in _CHANNELS else None


def _from_array(samples: npt.NDArray[Any], on_note: OnNote) -> npt.NDArray[np.uint8]:
    colours = _axis_of_colours(samples.shape)
    if colours is None:
        raise SpadeError(
            f"has shape {samples.shape}; give RGB as [H, W, 3] or [3, H, W], or grey as [H, W]"
        )
    levels = _levels(samples, on_note)
    if levels.ndim == 2:
        return grey_to_rgb(levels)
    levels = np.moveaxis(levels, colours, 2)
    return np.ascontiguousarray(
        levels[..., :3] if levels.shape[2] > 1 else grey_to_rgb(levels[..., 0])
    )


def _levels(samples: npt.NDArray[Any], on_note: OnNote) -> npt.NDArray[np.uint8]:
    """Return samples in 8 bits; same shape."""
    kind = samples.dtype
    if kind == np.uint8:
        return samples
    if kind == np.bool_:
        return samples.view(np.uint8) * np.uint8(255)
    if kind.kind == "u" and kind.itemsize == 2:
        note_range(samples, on_note)
        return to_8_bit(samples, 65535)
    if kind.kind != "f":
        raise SpadeError(
            f"holds samples of type {kind}; give them as uint8, as uint16, or as floats from 0 to 1"
        )
    low, high = float(samples.min(initial=0)), float(samples.max(initial=0))
    if not np.isfinite((low, high)).all():
        raise SpadeError("holds samples that are no finite numbers; give floats from 0 to 1")
    if low < -_HALF_A_LEVEL or high > 1 + _HALF_A_LEVEL:
        cure = (
            "give the image as it was before it was normalised"
            if low < -_HALF_A_LEVEL
            else "divide them by 255, or clip what lies a little beyond"
        )
        raise SpadeError(
            f"holds floats from {low:.4g} to {high:.4g}, and white is 1 and black 0: {cure}"
        )
    levels = np.rint(255 * samples.astype(np.float32))
    return np.asarray(np.clip(levels, 0, 255), np.uint8)


def _from_pil(image: Image.Image, on_note: OnNote) -> npt.NDArray[np.uint8]:
    data = _undecoded(image)
    if data is not None:
        return decode_image(data, on_note)
    if image.mode in _UNCERTAIN:
        raise SpadeError(
            f"is of mode {image.mode}, which does not say what is white: convert it to L, I;16 or "
            "RGB, or give an array"
        )
    try:
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        if image.mode in _DEEP:
            pixels = _from_array(np.asarray(image), on_note)
        elif image.mode == "RGB":
            pixels = np.asarray(image)
        else:
            image = image.copy()
            image.info.pop("transparency", None)  # of which PIL would warn; alpha is dropped
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:  # of any kind: see decode_image
        raise SpadeError(
            f"is damaged or of a rare kind ({first_line(error)}); convert it to RGB"
        ) from None
    return checked_size(upright(pixels, orientation))


def _undecoded(image: Image.Image) -> bytes | None:
    """Return the file as it is of which PIL has decoded nothing yet, if it is of a known kind.

    Raises
    ------
    SpadeError
        If it is closed.
    """
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or image.tell():
        return None
    try:
        with _READING:
            file = image.fp
            if file is None:
                raise ValueError
            at = file.tell()
            file.seek(0)
            data = file.read()
            file.seek(at)
    except (OSError, ValueError):
        raise SpadeError(
            "cannot be read, as its file is closed: give its path, or load the image before"
        ) from None
    return data if is_known(data) else None


def _is_tensor(source: object) -> TypeIs[Tensor]:
    torch = sys.modules.get("torch")  # without it there are none, and it takes a second to import
    return torch is not None and isinstance(source, torch.Tensor)


def _as_array(tensor: Tensor) -> npt.NDArray[Any]:
    held = tensor.detach().cpu()
    values: npt.NDArray[Any] = (held.float() if held.is_floating_point() else held).numpy()
    return values


def _is_file(source: object) -> TypeIs[BinaryIO]:
    return callable(getattr(source, "read", None))


def _content(file: BinaryIO) -> bytes:
    """Return all that an open file holds, from its start."""
    try:
        with _READING:
            file.seek(0)
            data: bytes | str = file.read()
    except (OSError, ValueError, AttributeError) as error:  # of a pipe, or of a closed file
        raise SpadeError(
            f"cannot be read from its start ({first_line(error)}): read it, and give the bytes"
        ) from None
    if isinstance(data, str):
        raise SpadeError("is open as text: open it with the mode 'rb'")
    return data
