"""OC-SVM: how far outside of a one-class support vector machine's boundary a patch lies.

Schoelkopf et al., *Estimating the support of a high-dimensional distribution* (2001), used on
patches as a baseline by Bergmann et al., *Uninformed Students* (CVPR 2020): a boundary with a
Gaussian kernel around the descriptors of good patches, which are those of `nearest_neighbour`.

Differences: the descriptors, as said there. They are reduced by PCA to 95 % of their variance,
which changes distances little and time much; the kernel's width is scikit-learn's "scale", and nu,
the share of good patches that may lie outside, is 0.1; both are choices of ours. `small` fits on
2000 patches, since time grows with their square. Image score: the map's maximum; the paper has
none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.decomposition import PCA
from sklearn.svm import OneClassSVM

from .method import Floats, Image, Method, enlarged, some_of
from .patches import SLIDING, Sliding


@dataclass(frozen=True)
class Setting:
    """Settings: how patches slide, how many are fitted at most, and the share left outside."""

    sliding: Sliding
    most: int
    nu: float = 0.1


class OneClassSvm(Method):
    """See the module."""

    budgets: ClassVar = {
        "small": Setting(SLIDING["small"], 2000),
        "paper": Setting(SLIDING["paper"], 50_000),
    }

    def fit(self, images: Sequence[Image]) -> None:
        """Draw the boundary around good patches."""
        rows = self.setting.sliding.describe_all(images, self.network)
        rows = some_of(rows, self.setting.most, self.seed)
        self._pca = PCA(0.95, svd_solver="covariance_eigh").fit(rows)
        self._svm = OneClassSVM(nu=self.setting.nu).fit(self._pca.transform(rows))

    def map(self, image: Image) -> Floats:
        """Return how far outside patches are; what lies inside is below 0."""
        rows = self.setting.sliding.describe(image, self.network)
        reduced = self._pca.transform(rows.reshape(-1, rows.shape[-1]))
        outside = -self._svm.decision_function(reduced)
        return enlarged(np.asarray(outside.reshape(rows.shape[:2]), np.float32), image)
