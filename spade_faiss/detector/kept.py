"""Good images as an index keeps them: to be shown, and to propose a region by."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from threading import Lock

import cv2
import numpy as np
import numpy.typing as npt

from ..images.region import propose_region
from ..index import Index
from ..types import Mask

_GREY = 127
_ONE_AT_A_TIME = Lock()
"""A proposal reads all that an index keeps of its images."""


def size_of_most(index: Index) -> tuple[int, int]:
    """Return the height and width that most of an index's images have."""
    sizes = Counter((one.height, one.width) for one in index.manifest.images)
    return sizes.most_common(1)[0][0]


def kept_picture(index: Index, image: int) -> npt.NDArray[np.uint8]:
    """Return an image of an index as far as that keeps it, [.., .., 3].

    It has the image's aspect, and as many pixels as it was resized to. Grey is what the crop cut
    off.
    """
    made = index.manifest.images[image]
    framing = index.manifest.framing.framing()
    return framing.unframed(index.wide[image], (made.height, made.width), _GREY)


def proposed_region(index: Index) -> Mask:
    """Propose what to look at, by what an index keeps of its images, bool [H, W].

    It is of the size that most of them have; see `spade_faiss.images.region.propose_region`.
    """
    with _ONE_AT_A_TIME:
        return _proposed(index)


@lru_cache(1)
def _proposed(index: Index) -> Mask:
    height, width = size_of_most(index)
    proposed = propose_region(np.asarray(one) for one in index.crops)
    if proposed.all():
        return np.ones((height, width), np.bool_)
    framing = index.manifest.framing.framing()
    # What lies beyond the crop is not looked at anyway.
    on_input = proposed[..., None].astype(np.uint8)
    whole = framing.unframed(on_input, (height, width))[..., 0]
    there = cv2.resize(whole, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(there, np.bool_)
