"""CNN-Dict: how far a patch is from the words of a dictionary of good patches.

Napoletano, Piccoli & Schettini, *Anomaly detection in nanofibrous materials by CNN-based
self-similarity* (Sensors, 2018): patches are described by the averaged last layer of a pretrained
network (ResNet-18), PCA keeps 95 % of the variance, k-means groups them, and the dictionary holds
the patch nearest to each centre. A patch's score is the mean Euclidean distance to the nearest
words.

Differences: the backbone is the one that is compared, and patches have 64 pixels a side as those
of the other two methods on sliding patches, so that all see the same. The 50 words and the 5
nearest of them are choices of ours. `small` slides by 16 pixels instead of 4 and clusters 10 000
patches at most. Image score: the map's maximum, as the paper calls an image wrong for any wrong
patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from .method import Floats, Image, Memory, Method, enlarged, some_of
from .patches import SLIDING, Sliding


@dataclass(frozen=True)
class Setting:
    """Settings: how patches slide, how many are clustered at most, words, and nearest words."""

    sliding: Sliding
    most: int
    words: int = 50
    nearest: int = 5


class CnnDictionary(Method):
    """See the module."""

    budgets: ClassVar = {
        "small": Setting(SLIDING["small"], 10_000),
        "paper": Setting(SLIDING["paper"], 100_000),
    }

    def fit(self, images: Sequence[Image]) -> None:
        """Reduce and cluster good patches, and keep the one nearest to each centre."""
        rows = self.setting.sliding.describe_all(images, self.network)
        rows = some_of(rows, self.setting.most, self.seed)
        self._pca = PCA(0.95, svd_solver="covariance_eigh").fit(rows)
        reduced = self._reduced(rows)
        groups = KMeans(
            min(self.setting.words, len(reduced)), n_init=3, random_state=self.seed
        ).fit(reduced)
        _, ids = Memory(reduced).nearest(groups.cluster_centers_)
        self._words = Memory(reduced[np.unique(ids)])

    def map(self, image: Image) -> Floats:
        """Return each patch's mean distance to its nearest words."""
        rows = self.setting.sliding.describe(image, self.network)
        reduced = self._reduced(rows.reshape(-1, rows.shape[-1]))
        near, _ = self._words.nearest(reduced, self.setting.nearest)
        return enlarged(near.mean(axis=1).reshape(rows.shape[:2]), image)

    def _reduced(self, rows: Floats) -> Floats:
        return np.asarray(self._pca.transform(rows), np.float32)
