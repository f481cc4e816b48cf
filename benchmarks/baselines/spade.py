"""SPADE itself, by this project's own estimator, behind the interface of the others.

Cohen & Hoshen, *Sub-image anomaly detection with deep pyramid correspondences* (2020), K = 50.
`SPADE` is the preset `paper`, with the differences that the docs/presets.md names; `SPADE-best` is
the preset `best`, which is not in the paper. Both frame images themselves, as the paper does, since
`best` looks at some of what the crop cuts off. Image score: the paper's is the mean squared
distance to the K nearest images' descriptors (section 3.2), that of `best` its map's power mean.
`small` and `paper` differ in nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from spade_faiss import Spade

from .method import Floats, Image, Method


@dataclass(frozen=True)
class Setting:
    """Settings: the project's name for them, and how images are framed."""

    preset: str
    score: str
    resize: int = 256
    crop: int = 224


class SpadePaper(Method):
    """See the module."""

    budgets: ClassVar = dict.fromkeys(("small", "paper"), Setting("paper", "descriptor"))

    frames: ClassVar = True

    def fit(self, images: Sequence[Image]) -> None:
        """Index good images."""
        self._spade = Spade(self.network, **asdict(self.setting))
        self._spade.fit(list(images), calibrate=False)

    def map(self, image: Image) -> Floats:
        """Return distances to the nearest patches of the K nearest images."""
        return self.map_and_score(image)[0]

    def map_and_score(self, image: Image) -> tuple[Floats, float]:
        """Return the map, and the setting's score."""
        [result] = self._spade.query([image])
        return result.input_map, self._spade.score_of(result)


class SpadeBest(SpadePaper):
    """See the module."""

    budgets: ClassVar = dict.fromkeys(("small", "paper"), Setting("best", "mean"))
