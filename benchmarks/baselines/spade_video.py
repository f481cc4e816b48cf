"""SPADE itself on video, by this project's own estimator, behind the interface of the others.

`SPADE` is the preset `paper`, which takes each frame for an image and scores it by the mean squared
distance to the descriptors of the K nearest (section 3.2). `SPADE-video` is the preset `video`,
which is not in the paper: it sees motion, too, and scores a frame by its map's maximum. K is 20 and
whole frames are seen, as `spade-faiss evaluate stc` does; five frames a second are learnt from.
`small` and `paper` differ in nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import floor
from typing import ClassVar

import numpy as np

from spade_faiss import Spade
from spade_faiss.images import Frame
from spade_faiss.images.video import with_motion

from .method import Floats
from .video import Footage, VideoMethod

_ROUNDING = 1e-6
"""Seconds by which a frame may come too early."""


@dataclass(frozen=True)
class Setting:
    """Settings: the project's name for them, what scores a frame, and frames to learn from.

    Attributes
    ----------
    preset, score : str
    fps : float
        Frames a second that are learnt from, at most.
    k : int
    """

    preset: str
    score: str
    fps: float = 5.0
    k: int = 20


class SpadePaperVideo(VideoMethod):
    """See the module."""

    budgets: ClassVar = dict.fromkeys(("small", "paper"), Setting("paper", "descriptor"))

    def fit(self, clips: Sequence[Footage]) -> None:
        """Index frames of good clips."""
        setting = self.setting
        self._spade = Spade(
            self.network, preset=setting.preset, score=setting.score, k=setting.k, crop=None
        )
        frames = chain.from_iterable(_sampled(self._seen(clip), setting.fps) for clip in clips)
        self._spade.fit(frames, calibrate=False)

    def scores(self, clip: Footage) -> Floats:
        """Return the setting's score of each frame."""
        results = self._spade.query(self._seen(clip))
        return np.array([self._spade.score_of(one) for one in results], np.float32)

    def _seen(self, clip: Footage) -> Iterator[Frame]:
        return iter(with_motion(clip) if self._spade.settings.motion else clip)


class SpadeVideo(SpadePaperVideo):
    """See the module."""

    budgets: ClassVar = dict.fromkeys(("small", "paper"), Setting("video", "map"))


def _sampled(frames: Iterable[Frame], fps: float) -> Iterator[Frame]:
    """Yield frames so that at most `fps` are of one second."""
    due = 0.0
    for frame in frames:
        if frame.seconds >= due - _ROUNDING:
            yield frame
            due = (floor((frame.seconds + _ROUNDING) * fps) + 1) / fps
