"""1-NN: how far a patch is from the nearest patch of good images.

The baseline of Bergmann et al., *Uninformed Students* (CVPR 2020), in SPADE's Table 3: a
pretrained network describes patches that slide over the image, and a patch's score is the
distance to the nearest descriptor of the good images.

Differences: that paper's descriptors come from a network that was distilled for patches on
ImageNet and is not published; here it is the backbone itself, with each patch of 64 x 64 pixels
passed through it alone and its last layer averaged. `small` slides by 16 pixels instead of 4.
The search is exact. Image score: the map's maximum; the paper has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .method import Floats, Image, Memory, Method, enlarged, some_of
from .patches import SLIDING, Sliding


@dataclass(frozen=True)
class Setting:
    """Settings: how patches slide, and how many of the good ones are kept at most."""

    sliding: Sliding
    most: int


class NearestNeighbour(Method):
    """See the module."""

    budgets: ClassVar = {
        "small": Setting(SLIDING["small"], 20_000),
        "paper": Setting(SLIDING["paper"], 50_000),
    }

    def fit(self, images: Sequence[Image]) -> None:
        """Keep the good patches' descriptors."""
        rows = self.setting.sliding.describe_all(images, self.network)
        self._memory = Memory(some_of(rows, self.setting.most, self.seed))

    def map(self, image: Image) -> Floats:
        """Return each patch's distance to the nearest good one."""
        rows = self.setting.sliding.describe(image, self.network)
        near, _ = self._memory.nearest(rows.reshape(-1, rows.shape[-1]))
        return enlarged(near.reshape(rows.shape[:2]), image)
