"""A region of interest: the part of a still camera's picture that is looked at."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cached_property, lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import SpadeError
from ..types import Mask

PAINT = 127
"""The grey that the network sees where nothing is looked at."""
_ASPECT = 1.01
"""How far the aspects of a picture and of its region may differ, but for a pixel."""


class Roi:
    """What is looked at of a picture, of any size: a mask of the same aspect.

    The network is shown paint in place of the rest (`Framing.painted`), so that nothing there can
    change what is found. Two that look at the same are equal.

    Parameters
    ----------
    mask : bool [H, W]
        Where it is looked at: in some place at least.

    Raises
    ------
    SpadeError
        If nothing is looked at.
    """

    def __init__(self, mask: Mask) -> None:
        if mask.ndim != 2 or not mask.any():
            raise SpadeError("the region is empty: nothing would be looked at")
        self.mask = np.ascontiguousarray(mask, bool)

    @cached_property
    def text(self) -> str:
        """The mask as a PNG of one bit a pixel, in base 64: what a manifest keeps."""
        grey = self.mask.view(np.uint8) * np.uint8(255)
        done, data = cv2.imencode(".png", grey, [cv2.IMWRITE_PNG_BILEVEL, 1])
        assert done
        return base64.b64encode(data.tobytes()).decode()

    @classmethod
    def from_text(cls, text: str) -> Roi:
        """Return what `text` was made of."""
        return _decoded(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Roi) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Roi({self.named})"

    @property
    def named(self) -> str:
        """How large it is, and a name that no other has."""
        height, width = self.mask.shape
        return f"{100 * self.share:.3g} % of {width}x{height}, {self._sha256[:12]}"

    @property
    def said(self) -> str:
        """What is said of it where an index is described."""
        percent = 100 * self.share
        return f"looks at {percent:{'.0f' if percent >= 1 else '.2g'}} % of the image"

    def described(self) -> dict[str, float | int | str]:
        """Return what tells it from others, as JSON values: its share, its size, a checksum."""
        height, width = self.mask.shape
        return {"share": self.share, "width": width, "height": height, "sha256": self._sha256}

    @cached_property
    def _sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def share(self) -> float:
        """How much of a picture is looked at, 0…1."""
        return float(self.mask.mean())

    def on(self, size: tuple[int, int]) -> Mask:
        """Return the mask of a picture of a height and width, by the nearest pixel.

        Raises
        ------
        SpadeError
            If the picture has another aspect than the mask, or nothing of it is looked at.
        """
        return _fitted(self, size)


def paint_over(image: npt.NDArray[np.uint8], shown: Mask) -> npt.NDArray[np.uint8]:
    """Return a picture [h, w, 3] that is painted over but where it is shown, [h, w]."""
    return np.where(shown[..., None], image, np.uint8(PAINT))


def roi_of(region: str | os.PathLike[str] | Mask | Roi | None) -> Roi | None:
    """Return a region of interest, out of what a user may give: a file, a mask, or none.

    One of everything is none.

    Raises
    ------
    SpadeError
        If it cannot be read, or nothing is looked at.
    """
    if region is None:
        return None
    if not isinstance(region, Roi):
        from .region import read_region

        region = Roi(read_region(region))
    return None if region.mask.all() else region


@lru_cache(8)
def _decoded(text: str) -> Roi:
    data = np.frombuffer(base64.b64decode(text), np.uint8)
    grey = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise SpadeError("the index's region is damaged; build the index again")
    return Roi(np.asarray(grey) > 127)


@lru_cache(16)
def _fitted(roi: Roi, size: tuple[int, int]) -> Mask:
    own = roi.mask.shape
    if own == size:
        return roi.mask
    ratio = size[0] / own[0] * own[1] / size[1]
    off = min(size) * abs(1 - min(ratio, 1 / ratio))
    if max(ratio, 1 / ratio) > _ASPECT and off > 1:
        raise SpadeError(
            f"the region is {own[1]}x{own[0]} pixels and the picture {size[1]}x{size[0]}, which is "
            "another aspect: give a region drawn on such a picture"
        )
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.intp)
        for new, old in zip(size, own, strict=True)
    )
    fitted: Mask = roi.mask[rows[:, None], columns]
    if not fitted.any():
        raise SpadeError(
            f"the region is empty on {size[1]}x{size[0]} pixels: nothing would be looked at"
        )
    return fitted
