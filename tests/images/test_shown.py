"""What the network is shown of a picture of which a part is looked at."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from spade_faiss import SpadeError
from spade_faiss.images import Framing
from spade_faiss.images.choose import tiled_framing
from spade_faiss.images.roi import PAINT, Roi

PLAIN = [
    (Framing.choose(64, 32, (97, 140)), (97, 140)),  # shrunk by no whole number, and cropped
    (Framing.choose(64, None, (128, 192)), (128, 192)),  # by a whole number
    (Framing.choose(160, 160, (75, 110)), (75, 110)),  # enlarged
    (Framing.choose(96, None, (90, 300)), (90, 300)),  # one side shrunk, the other enlarged
    (tiled_framing(64, 8, 32, 100, [(130, 203)]), (130, 203)),
    (tiled_framing(64, 8, 32, None, [(130, 203)]), (130, 203)),
]


def noise(rng, size):
    return rng.integers(0, 256, (*size, 3)).astype(np.uint8)


@pytest.mark.parametrize("margin", [0, 32])
@pytest.mark.parametrize(("plain", "size"), PLAIN)
def test_nothing_outside_the_region_changes_what_the_network_is_shown(plain, size, margin):
    rng = np.random.default_rng(0)
    for _ in range(5):
        coarse = rng.random((5, 6)) > 0.4
        mask = cv2.resize(coarse.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
        framing = replace(plain, margin=margin, roi=Roi(mask))
        image = noise(rng, size)
        other = np.where(mask[..., None], image, noise(rng, size))
        one, two = (
            framing.painted(framing.apply_with_margin(each), size) for each in (image, other)
        )
        assert np.array_equal(one, two)
        # What is shown is the picture itself, and what is looked at is shown but for its edge.
        shown, whole = framing.shown(size), replace(framing, roi=None).apply_with_margin(image)
        assert np.array_equal(one[shown], whole[shown]) and (one[~shown] == PAINT).all()
        inside = cv2.erode(framing.looked_at.astype(np.uint8), np.ones((5, 5)), borderValue=0) > 0
        assert framing.inner(shown)[inside].all()
        for part in range(len(framing.corners)):
            assert np.array_equal(framing.cut(whole, part, size), framing.cut(one, part, size))


def test_a_region_of_which_nothing_would_be_shown_is_refused():
    mask = np.zeros((200, 200), bool)
    mask[:, 90] = True
    framing = replace(Framing.choose(32, 32, (200, 200)), roi=Roi(mask))
    with pytest.raises(
        SpadeError, match=r"^the region is too small: nothing of it is left of 200x"
    ):
        framing.apply(np.zeros((200, 200, 3), np.uint8))
