"""What each of those that are compared can do, and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .setting import Pixels, Setting

Floats = npt.NDArray[np.float32]

BATCH = 32
SHARE = 0.1
"""Of all patches, what PatchCore keeps."""
NEIGHBOURS = 9
"""Of a kept patch, for the image score."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Entrant(ABC):
    """Learns good images and judges others, from decoded arrays to maps on the host.

    Parameters
    ----------
    setting : Setting

    Attributes
    ----------
    by : str
        Whose code it is.
    """

    by: str

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    @abstractmethod
    def learn(self, images: Pixels) -> None:
        """Learn from good images [n, H, W, 3], anew."""

    @abstractmethod
    def judge(self, images: Pixels) -> tuple[Floats, Floats]:
        """Return scores [n] and maps [n, h, w], of batches of `BATCH` images."""

    def learn_with_thresholds(self, images: Pixels) -> bool:
        """Learn, and find thresholds from the same images; say whether that can be done."""
        return False

    def batches(self, images: Pixels) -> Iterator[Tensor]:
        """Yield images as networks take them, float32 [b, 3, h, w] on the device."""
        device = self.setting.device
        mean, std = (torch.tensor(one, device=device).view(3, 1, 1) for one in (MEAN, STD))
        framed = torch.from_numpy(self.setting.framed(images))
        for pixels in framed.split(BATCH):
            yield (pixels.to(device).permute(0, 3, 1, 2) / 255 - mean) / std


class Ours(Entrant):
    """spade-faiss as its users call it."""

    def __init__(self, setting: Setting) -> None:
        from spade_faiss import __version__

        super().__init__(setting)
        self.by = f"spade-faiss {__version__}"
        self._spade: Any = setting.detector(BATCH)

    def learn(self, images: Pixels) -> None:
        """Fit an index without thresholds."""
        self._spade.fit(list(images), calibrate=False)

    def learn_with_thresholds(self, images: Pixels) -> bool:
        """Fit an index, each image scored against the others."""
        self._spade.fit(list(images))
        return True

    def judge(self, images: Pixels) -> tuple[Floats, Floats]:
        """Query arrays; maps are on the images' own grid."""
        results = list(self._spade.query(list(images)))
        scores = np.array([one.score() for one in results], np.float32)
        return scores, np.stack([np.asarray(one.map) for one in results])
