"""Where tiles meet nothing shows: not of a flaw that lies there, nor of what is good."""

import cv2
import numpy as np
import pytest
from skimage import data

from spade_faiss import Spade

SIDE = 128
HEIGHT, WIDTH = 224, 320
"""Of pictures that tiles cover which share 32 pixels, as few as they may: at 96, and at 192."""
JOINT = 112
"""The middle of what the first two columns of tiles share."""
TINT = np.array([0.95, 0.9, 0.92])


def field():
    """Return a photograph of gravel, grown by its mirror images, [H, W, 1]."""
    return np.pad(data.gravel(), ((0, 300), (0, 500)), "symmetric")[..., None]


@pytest.fixture(scope="module", params=["paper", "best"])
def spade(request, lite):
    rng, photo = np.random.default_rng(0), field()
    good = []
    for _ in range(6):
        y, x = rng.integers(0, 400), rng.integers(0, 400)
        tint = rng.uniform(0.85, 1, 3)
        good.append((photo[y : y + HEIGHT, x : x + WIDTH] * tint).astype(np.uint8))
    spade = Spade(lite, preset=request.param, tile=SIDE, overlap=32).fit(good, calibrate=False)
    framing = spade.index_.manifest.framing.framing()
    assert [left for top, left in framing.corners if top == 0] == [0, 96, 192]
    return spade


@pytest.mark.slow
def test_a_flaw_that_moves_over_a_joint_keeps_its_score(spade):
    """The picture moves under the tiles, so that what is around the flaw stays the same.

    It is compared with the middle of a tile at the same place among the network's patches.
    """
    flawed = (field() * TINT).astype(np.uint8)
    cv2.circle(flawed, (700, 364), 9, (12, 10, 10), -1, cv2.LINE_AA)

    def seen(x):
        window = flawed[300 : 300 + HEIGHT, 700 - x : 700 - x + WIDTH]
        (result,) = spade.query([np.ascontiguousarray(window)])
        return np.array([result.peak, result.mean_score])

    middles = {x % 32: seen(x) for x in (48, 56, 64, 72)}
    for x in range(JOINT - 32, JOINT + 33, 8):
        np.testing.assert_allclose(seen(x), middles[x % 32], rtol=0.02, err_msg=str(x))


@pytest.mark.slow
def test_a_good_picture_shows_no_joint(spade):
    """Maps of one texture that moves under the tiles, so that each place has all of it."""
    texture = (field() * TINT).astype(np.uint8)
    windows = [
        np.ascontiguousarray(texture[250 : 250 + HEIGHT, left : left + WIDTH])
        for left in range(300, 556, 32)
    ]
    columns = np.mean([one.map.mean(0) for one in spade.query(windows)], 0)
    joints = np.r_[96:128, 192:224]
    others = np.setdiff1d(np.arange(16, WIDTH - 16), joints)
    assert columns[joints].mean() == pytest.approx(columns[others].mean(), rel=0.05)
