"""Descriptors of patches that slide over an image, each seen by a pretrained network alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from spade_faiss.features import Backbone

from .method import Floats, Image

_BATCH = 64


@dataclass(frozen=True)
class Sliding:
    """How patches slide.

    Attributes
    ----------
    side : int
        Of a patch, in pixels.
    stride : int
        From one patch to the next; patch and stride are both even or both odd.
    """

    side: int
    stride: int

    def cut(self, image: Image) -> npt.NDArray[np.uint8]:
        """Return an image's patches [gh, gw, side, side, 3].

        Each is centred on one cell of stride x stride pixels; the image is mirrored at its
        edges, so that these are looked at like the rest.
        """
        edge = (self.side - self.stride) // 2
        padded = np.pad(image, ((edge, edge), (edge, edge), (0, 0)), "reflect")
        windows = sliding_window_view(padded, (self.side, self.side), (0, 1))
        return windows[:: self.stride, :: self.stride].transpose(0, 1, 3, 4, 2)

    def describe(self, image: Image, network: Backbone) -> Floats:
        """Return the network's last layer, averaged over each patch, [gh, gw, D]."""
        patches = self.cut(image)
        flat = patches.reshape(-1, *patches.shape[2:])
        parts = [
            network(np.ascontiguousarray(flat[at : at + _BATCH])).descriptors.cpu().numpy()
            for at in range(0, len(flat), _BATCH)
        ]
        return np.concatenate(parts).reshape(*patches.shape[:2], -1)

    def describe_all(self, images: Sequence[Image], network: Backbone) -> Floats:
        """Return the descriptors of all patches of all images, [n, D]."""
        found = [self.describe(image, network) for image in images]
        return np.concatenate([one.reshape(-1, one.shape[-1]) for one in found])


SLIDING = {"small": Sliding(64, 16), "paper": Sliding(64, 4)}
"""By budget. A patch of 64 pixels is what a student of "Uninformed Students" sees."""
