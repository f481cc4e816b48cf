"""What an image may come as, and what it is called."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, BinaryIO, Union, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import SpadeError

if TYPE_CHECKING:
    from torch import Tensor

_NUMBERED = re.compile("image ([0-9]+)")


@dataclass(frozen=True)
class Frame:
    """A decoded image that has a name though no file is its own, such as a video's frame.

    Attributes
    ----------
    name : str
    image : uint8 [H, W, 3], RGB
    seconds : float
        When it is shown, from the video's start.
    position : int or None
        Its place among the images that it was decoded with, if some of these are left out.
    before : Frame or None
        The one that its motion is seen by, shown about a tenth of a second before.
    """

    name: str
    image: npt.NDArray[np.uint8] = field(repr=False)
    seconds: float = 0.0
    position: int | None = None
    before: Frame | None = field(default=None, repr=False)


Source = Union[
    str,
    os.PathLike[str],
    npt.NDArray[Any],
    "Tensor",
    Image.Image,
    bytes,
    bytearray,
    memoryview,
    BinaryIO,
    Frame,
]
"""An image: a path, an array, a tensor, a PIL image, a file's bytes, an open file, or a frame.

An array or tensor is RGB, with or without alpha, or grey: [H, W, C], [C, H, W] or [H, W], of uint8,
of uint16, or of floats from 0 to 1. OpenCV's order is BGR, which is not told from RGB: turn it
round, `image[..., ::-1]`.
"""
Images = Source | Iterable[Source]
"""One image, a folder of images, or some images; an array may hold several, [N, H, W, C]."""
OnError = Callable[[str, str], None]
"""Called with the name of an image that could not be used and one line that says why."""
OnNote = Callable[[str], None]
"""Called with one line that is worth knowing and no error."""


def report_problem(on_error: OnError | None, name: str, why: str) -> None:
    """Call `on_error`, or raise the line where there is none to call."""
    if on_error is None:
        raise SpadeError(f"{name}: {why}") from None
    on_error(name, why)


def report_note(on_note: OnNote | None, text: str) -> None:
    """Call `on_note`, or issue a Python warning where there is none to call."""
    if on_note is None:
        warnings.warn(text, stacklevel=3)
    else:
        on_note(text)


def name_of(source: Source, position: int) -> str:
    """Return what an image is called in messages and results: its path, or its number."""
    return own_name(source) or f"image {position}"


def own_name(source: Source) -> str | None:
    """Return the name that an image brings along, as files do; None of arrays and their like."""
    if isinstance(source, Frame):
        return source.name
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    # PIL images know the file that they were opened from, and so do open files.
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return os.fspath(name) if name and isinstance(name, str | os.PathLike) else None


def numbers_after(names: Iterable[str]) -> Iterator[int]:
    """Yield the numbers of images that bring no name along, from the first that is behind all.

    >>> next(numbers_after(["a.png", "image 0", "image 12"]))
    13
    """
    found = (_NUMBERED.fullmatch(name) for name in names)
    return count(1 + max((int(one[1]) for one in found if one), default=-1))


def named(source: Source, name: str) -> Frame:
    """Return an image under a name, decoded or not."""
    return Frame(name, cast("npt.NDArray[np.uint8]", source))
