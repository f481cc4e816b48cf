"""Clips of a street: figures that walk along, and in some of them one that does otherwise."""

import numpy as np

from benchmarks.baselines.video import Footage
from spade_faiss.images import Frame

HEIGHT, WIDTH, SIDE = 64, 96, 12
LANES = 2, 18, 34
"""The upper edges of the figures that walk: nothing walks below."""
WALK, RUN = 1.0, 6.0
"""Pixels a frame."""
FIGURE = np.repeat([240, 10], SIDE // 2)[:, None]
"""Bright above, dark below."""
STREET = np.kron(np.random.default_rng(0).integers(60, 120, (8, 12)), np.ones((8, 8)))


def clip(seed, frames=40, planted=range(0), name=None):
    """Return footage of three figures that walk, each in its lane.

    While `planted` lasts, the lowest runs, upside down, where nothing walks. So as many figures are
    seen in all frames, and a model that has learnt nothing takes all frames for the same.
    """
    rng = np.random.default_rng(seed)
    lefts, ways = rng.uniform(0, WIDTH, 3), rng.choice([-1, 1], 3)
    noise = rng.normal(0, 2, (frames, HEIGHT, WIDTH))

    def read():
        run = 0.0
        for number in range(frames):
            image = STREET.copy()
            for lane, left, way in zip(LANES, lefts, ways, strict=True):
                top, x, figure = lane, left + way * WALK * number, FIGURE
                if lane == LANES[-1]:
                    if number in planted:
                        run += way * (RUN - WALK)
                        top, figure = 42 + 8 * (number % 2), FIGURE[::-1]
                    x += run
                across = (np.arange(SIDE) + round(x)) % WIDTH
                image[top : top + SIDE, across] = figure
            grey = np.clip(image + noise[number], 0, 255).astype(np.uint8)
            yield Frame(f"{seed}#{number}", np.repeat(grey[..., None], 3, 2), number / 10)

    return Footage(name or f"clip {seed}", read)


PLANTED = range(15, 25)
WRONG = [clip(100 + seed, planted=PLANTED) for seed in range(3)]


def ratio(method):
    """Return the mean score of what is planted beside that of frames far from it."""
    found = []
    for one in WRONG:
        scores = method.scores(one)
        assert scores.shape == (40,) and scores.dtype == np.float32 and np.isfinite(scores).all()
        found.append(scores[17:23].mean() / np.r_[scores[:6], scores[-6:]].mean())
    return np.mean(found)
