"""What every method can do: learn from good images, and map an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

from spade_faiss.features import Backbone
from spade_faiss.search import LevelSearch

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
"""[h, w, 3], RGB, framed: all images of a method have one size, unless it frames them itself."""


class Baseline(ABC):
    """What methods on images and on video have in common.

    Parameters
    ----------
    network : Backbone
        The pretrained network, for methods that use one.
    setting : any
        The method's own; one of `budgets`.
    seed : int
        Of all that is random.
    checkpoint : path, optional
        Where a method that trains a network keeps it, and takes it up again.

    Attributes
    ----------
    budgets : mapping of str to setting
        "small", for minutes on two CPU cores, and "paper".
    taken_up : int
        The step of a checkpoint from which `fit` went on; 0 if it did all itself.
    """

    budgets: ClassVar[Mapping[str, Any]]

    def __init__(
        self,
        network: Backbone,
        setting: Any,
        seed: int = 0,
        checkpoint: Path | None = None,
    ) -> None:
        self.network = network
        self.setting = setting
        self.seed = seed
        self.checkpoint = checkpoint
        self.taken_up = 0


class Method(Baseline):
    """A way of finding defects that is shown good images only.

    Attributes
    ----------
    frames : bool
        Whether it is given whole images, which it scales to 256 and crops to 224 itself. Its maps
        are of the crop, as all others are.
    """

    frames: ClassVar[bool] = False

    @abstractmethod
    def fit(self, images: Sequence[Image]) -> None:
        """Learn from good images."""

    @abstractmethod
    def map(self, image: Image) -> Floats:
        """Return how anomalous each pixel is, [h, w]."""

    def map_and_score(self, image: Image) -> tuple[Floats, float]:
        """Return the map, and how anomalous the image is: by default, the map's maximum."""
        found = self.map(image)
        return found, float(found.max())


class Memory:
    """Rows to be searched again and again, exactly, by the project's own search.

    Parameters
    ----------
    rows : float32 [n, C]
    """

    def __init__(self, rows: Floats) -> None:
        self.rows = np.ascontiguousarray(rows, np.float32)
        block = min(1024, len(rows))
        self._search = LevelSearch(torch.from_numpy(self.rows), block)
        self._all = torch.arange(-(-len(rows) // block))[None]

    def nearest(self, queries: Floats, k: int = 1) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return Euclidean distances to the k nearest rows, ascending, and the rows, [Q, k]."""
        asked = torch.from_numpy(np.ascontiguousarray(queries, np.float32))[None]
        squared, ids = self._search.search(asked, self._all, min(k, len(self.rows)))
        return np.sqrt(squared[0].numpy()), ids[0].numpy()


def enlarged(values: Floats, image: Image) -> Floats:
    """Return a grid of values [gh, gw] on an image's pixels, bilinearly."""
    larger: Floats = cv2.resize(  # type: ignore[assignment]
        np.asarray(values, np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR
    )
    return larger


def some_of(rows: Floats, most: int, seed: int) -> Floats:
    """Return at most so many rows, chosen at random."""
    if len(rows) <= most:
        return rows
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])]
