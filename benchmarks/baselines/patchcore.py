"""PatchCore: how far a patch is from the nearest patch of a coreset of good ones.

Roth et al., *Towards total recall in industrial anomaly detection* (CVPR 2022): the pyramid's
second and third levels are averaged over 3 x 3 patches, brought to the second one's grid and
concatenated; a tenth of all good patches is kept, picked greedily so that none is far from one that
is kept. A patch's score is the distance to the nearest of these; the map is enlarged bilinearly
and smoothed (sigma 4). Image score, as in the paper: the largest distance of a patch, weighted down
where the good patch that it is nearest to has few others around it (equation 7, 9 neighbours).

Differences: the paper averages channels down to 1024, here they are all kept, since the backbones'
numbers differ; and the coreset is picked on the features themselves by the project's own search
for it, not on a random projection, which was to save time. `small` and `paper` differ in nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, interpolate

from spade_faiss.maps.smoothing import anomaly_map
from spade_faiss.search.approximate.coreset import greedy_coreset

from .method import Floats, Image, Memory, Method

_AROUND = 3


@dataclass(frozen=True)
class Setting:
    """Settings: the share of patches that is kept, and the neighbours of the image score."""

    share: float = 0.1
    neighbours: int = 9


class PatchCore(Method):
    """See the module."""

    budgets: ClassVar = {"small": Setting(), "paper": Setting()}

    def fit(self, images: Sequence[Image]) -> None:
        """Keep a coreset of the good patches."""
        rows = np.concatenate(
            [self._patches(image).reshape(-1, self._channels) for image in images]
        )
        kept = greedy_coreset(rows, max(1, round(self.setting.share * len(rows))))
        self._memory = Memory(rows[kept])

    def map(self, image: Image) -> Floats:
        """Return distances to the coreset."""
        return self.map_and_score(image)[0]

    def map_and_score(self, image: Image) -> tuple[Floats, float]:
        """Return the map, and the largest distance weighted as in the paper."""
        patches = self._patches(image)
        near, ids = self._memory.nearest(patches.reshape(-1, self._channels))
        found = anomaly_map([near.reshape(patches.shape[:2])], (image.shape[0], image.shape[1]))
        worst = int(near.argmax())
        patch = patches.reshape(-1, self._channels)[worst]
        match = self._memory.rows[ids[worst]]
        _, around = self._memory.nearest(match, self.setting.neighbours)
        others = np.linalg.norm(self._memory.rows[around[0]] - patch, axis=1)
        largest = float(near[worst, 0])
        weight = 1 - 1 / np.exp(others - largest).sum()
        return found, float(weight * largest)

    def _patches(self, image: Image) -> Floats:
        """Return an image's locally aware patches [h, w, C]."""
        levels = [level.permute(0, 3, 1, 2) for level in self.network(image[None]).levels[1:3]]
        levels = [avg_pool2d(level, _AROUND, 1, _AROUND // 2) for level in levels]
        grid = levels[0].shape[2:]
        joined = torch.cat([interpolate(level, grid, mode="bilinear") for level in levels], 1)[0]
        self._channels = joined.shape[0]
        return joined.permute(1, 2, 0).contiguous().cpu().numpy()
