"""Pictures for a page: the image, the map to lay over it, and outlines, small enough to inline."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from ..types import Floats, Mask
from ..verdict import over
from .colours import Picture, heat, resized, whole_map
from .pictures import fitted, in_size

_QUALITIES = (80, 60, 40, 20)


@dataclass(frozen=True)
class Layers:
    """What a page lays one over the other, stretched to one size.

    Attributes
    ----------
    pictures : dict of str to uint8 [h, w, 3 or 4]
        `photo`, the image; `heat`, RGBA, the map where it is high; `map`, all of it. Maps are
        smooth, so these two have half as many pixels a side.
    paths : dict of str to str
        SVG paths in pixels of the photo: `outline`, what is over the threshold; `truth`, the
        defects if they are known; `unseen`, what is not looked at.
    """

    pictures: Mapping[str, Picture]
    paths: Mapping[str, str]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the photo in pixels."""
        return self.pictures["photo"].shape[1], self.pictures["photo"].shape[0]


def layers_of(
    image: Picture,
    values: Floats,
    side: int,
    threshold: float | None,
    *,
    top: float | None = None,
    looked_at: Mask | None = None,
    truth: Mask | None = None,
) -> Layers:
    """Return the layers of an image.

    Parameters
    ----------
    image : uint8 [H, W, 3]
    values : float32 [H, W]
        Its map.
    side : int
        The most pixels that the longer side may have.
    threshold : float or None
        What is over it is outlined.
    top : float, optional
        Where colours end if there is no threshold; by default at the map's maximum.
    looked_at : bool [H, W], optional
        Which pixels of the image are looked at; by default all.
    truth : bool [H, W], optional
        Where the defects are.
    """
    photo = fitted(image, min(side, max(image.shape[:2])))
    height, width = photo.shape[:2]
    fine = resized(values, (width, height))
    coarse = resized(values, (max(1, width // 2), max(1, height // 2)))
    pictures = {
        "photo": photo,
        "heat": heat(coarse, threshold, top),
        "map": whole_map(coarse, threshold, top),
    }
    paths = {
        "outline": "" if threshold is None else _outline(over(fine, threshold)),
        "truth": "",
        "unseen": "",
    }
    if looked_at is not None and not looked_at.all():
        around = f"M0 0H{width}V{height}H0Z"  # but for what lies in it: see `fill-rule`
        paths["unseen"] = around + _outline(in_size(looked_at, photo))
    if truth is not None:
        paths["truth"] = _outline(in_size(truth, photo))
    return Layers(pictures, paths)


def encoded(pictures: Mapping[str, Picture], most: int) -> dict[str, str]:
    """Return pictures as WebP in base64; worse, then smaller, if they would take over `most` bytes.

    That counts the bytes before base64 makes four of three, and must leave each picture 100.
    """
    for quality in _QUALITIES:
        files = {name: _webp(picture, quality) for name, picture in pictures.items()}
        if sum(map(len, files.values())) <= most:
            break
    else:
        return encoded(
            {name: np.ascontiguousarray(picture[::2, ::2]) for name, picture in pictures.items()},
            most,
        )
    return {name: base64.b64encode(data).decode() for name, data in files.items()}


def _webp(picture: Picture, quality: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "webp", quality=quality, method=2, alpha_quality=60)
    return data.getvalue()


def _outline(mask: Mask) -> str:
    """Return the edges of regions as one SVG path, straightened by less than a pixel."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    lines = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.7, True).reshape(-1, 2).tolist()
        lines.append("M" + "L".join(f"{x + 0.5:g} {y + 0.5:g}" for x, y in points) + "Z")
    return "".join(lines)
