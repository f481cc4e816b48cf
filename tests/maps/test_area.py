import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import area_opening

from spade_faiss.maps import area_peak
from tests.conftest import examples


def oracle(values, pixels):
    """Return the largest value that an area of so many pixels reaches, one value after another."""
    for value in np.unique(values)[::-1]:
        labels, count = ndimage.label(values >= value, np.ones((3, 3)))
        if count and np.bincount(labels.ravel())[1:].max() >= pixels:
            return value
    return values.min()


@st.composite
def maps(draw, least):
    """Maps that are rough, smooth, or of plateaus with many ties."""
    shape = draw(st.tuples(st.integers(least, 12), st.integers(least, 12)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["rough", "smooth", "plateaus", "standardised"]))
    if kind == "plateaus":
        return rng.integers(0, draw(st.integers(1, 5)), shape).astype(np.float32)
    values = rng.random(shape, np.float32)
    if kind == "smooth":
        return cv2.GaussianBlur(values, (5, 5), 1.5)
    return values - np.float32(0.5) if kind == "standardised" else values


@examples(300)
@given(maps(3), st.data())  # scikit-image fails on narrower ones
def test_it_is_the_maximum_of_the_area_opening(values, data):
    pixels = data.draw(st.integers(1, values.size))
    expected = area_opening(values, pixels, connectivity=2).max()
    assert area_peak(values, pixels) == expected
    assert isinstance(area_peak(values, pixels), float)


@examples(100)
@given(maps(1), st.integers(1, 200))
def test_it_is_so_of_maps_of_any_size(values, pixels):
    before = values.copy()
    assert area_peak(values, pixels) == oracle(values, pixels)
    np.testing.assert_array_equal(values, before)


def test_one_pixel_is_the_maximum_and_too_many_the_minimum():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert area_peak(values, 1) == 11
    assert area_peak(values, 12) == area_peak(values, 13) == area_peak(values, 10**9) == 0


def test_corners_connect():
    values = np.zeros((5, 5), np.float32)
    values[[0, 1, 2], [0, 1, 2]] = 3, 2, 1
    assert [area_peak(values, pixels) for pixels in (1, 2, 3, 4)] == [3, 2, 1, 0]


@pytest.mark.parametrize("pixels", [20, 400])
def test_hot_spots_all_over_a_large_map_are_passed_over_in_time(pixels):
    rng = np.random.default_rng(0)
    smooth = cv2.resize(cv2.GaussianBlur(rng.random((64, 80), np.float32), (33, 33), 4), (640, 512))
    spots = smooth.copy()
    spots[5::8, 5::8] = 2 + rng.random((64, 80), np.float32)
    start = time.perf_counter()
    assert area_peak(spots, pixels) == area_peak(np.minimum(spots, smooth.max()), pixels) < 1
    assert time.perf_counter() - start < 5  # an area opening takes as long
