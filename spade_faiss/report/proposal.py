"""Propose what is to be looked at of a still camera's pictures, and show it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from .._support.files import replace_file
from ..errors import SpadeError
from ..images import Source, decode_images
from ..images.region import FEWEST, propose_region
from ..images.roi import Roi
from ..pictures.drawing import fitted, hatch, in_size
from ..types import Mask

_SIDE = 1600
"""The most pixels that the longer side of the picture has."""


@dataclass(frozen=True)
class Proposal:
    """A region that is proposed, and the files that show it.

    Attributes
    ----------
    roi : Roi
    images : int
        How many it was drawn from.
    mask : Path
        A PNG: white is looked at.
    picture : Path
        A JPEG of the first image, hatched where it is not looked at.
    """

    roi: Roi
    images: int
    mask: Path
    picture: Path


def propose(images: Iterable[Source], place: Path) -> Proposal:
    """Propose a region by good images, and write its files.

    Parameters
    ----------
    images : iterable of Source
        Gone through once. Those that cannot be used are left out.
    place : Path
        Where the mask goes, but for ".png", and the picture, but for ".jpg".

    Raises
    ------
    SpadeError
        If there is nothing to propose, or the files cannot be written.
    """
    sizes: list[tuple[int, int]] = []
    shown: list[npt.NDArray[np.uint8]] = []

    def looked_over() -> Iterator[npt.NDArray[np.uint8]]:
        for frame in decode_images(images, lambda name, why: None):
            assert isinstance(frame.image, np.ndarray)
            sizes.append((frame.image.shape[0], frame.image.shape[1]))
            if not shown:
                shown.append(frame.image)
            yield frame.image

    try:
        looked_at = propose_region(looked_over())
    except SpadeError:
        raise SpadeError("none of the images can be used") from None
    if looked_at.all():
        raise SpadeError(f"no region can be proposed: {_why(sizes)}")
    proposal = Proposal(
        Roi(looked_at),
        len(sizes),
        place.with_name(place.name + ".png"),
        place.with_name(place.name + ".jpg"),
    )
    picture = fitted(shown[0], min(_SIDE, max(shown[0].shape[:2])))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(proposal.mask, _png(looked_at))
        replace_file(proposal.picture, _jpeg(hatch(picture, in_size(looked_at, picture))))
    except OSError as error:
        raise SpadeError(f"{proposal.mask} cannot be written: {error.strerror or error}") from None
    return proposal


def _why(sizes: list[tuple[int, int]]) -> str:
    """Return why there is nothing to propose, and what to do."""
    own = "paint one yourself, white where it is looked at, or leave out `region`"
    if len(set(sizes)) > 1:
        some = " and ".join(f"{width}x{height}" for height, width in dict.fromkeys(sizes[:1000]))
        return f"the images are of several sizes, {some}, and a region is for a still camera; {own}"
    if len(sizes) < FEWEST:
        return (
            f"it takes {FEWEST} good images to see what varies, and there are {len(sizes)}; {own}"
        )
    return f"no plain ground is told from the rest; {own}"


def _png(mask: Mask) -> bytes:
    data = io.BytesIO()
    Image.fromarray(mask.view(np.uint8) * np.uint8(255)).save(data, "png")
    return data.getvalue()


def _jpeg(picture: npt.NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "jpeg", quality=90)
    return data.getvalue()
