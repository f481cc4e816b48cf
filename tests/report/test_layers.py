"""Outlines: the lines along which a map passes its threshold."""

import re

import cv2
import numpy as np
import pytest

from spade_faiss.report.layers import paths_of


def lines_of(path):
    """Return the points of each closed line of an SVG path, [n, 2]."""
    assert re.fullmatch(r"(M[^MZ]+Z)*", path)
    return [
        np.array([list(map(float, point.split())) for point in line.split("L")])
        for line in re.findall(r"M([^Z]+)Z", path)
    ]


def filled(path, shape, times=8):
    """Return which points are inside, by the even-odd rule, so many a pixel and side."""
    grid = np.zeros((shape[0] * times, shape[1] * times), np.uint8)
    lines = [np.round(line * times * 16 - 8).astype(np.int32) for line in lines_of(path)]
    return cv2.fillPoly(grid, lines, 1, cv2.LINE_8, 4).astype(bool)


def outline(values, threshold=1.0):
    return paths_of(np.asarray(values, np.float32), threshold)["outline"]


def test_a_line_follows_the_threshold_to_a_fraction_of_a_pixel():
    y, x = np.mgrid[:90, :120]
    far = np.hypot(x + 0.5 - 71.3, y + 0.5 - 40.8)
    (line,) = lines_of(outline(3 - far / 10))  # passes 1 at a radius of 20
    assert np.hypot(*(line - (71.3, 40.8)).T) == pytest.approx(20, abs=0.15)
    assert len(line) > 20


def test_lines_hold_what_is_over_and_leave_out_what_is_not():
    rng = np.random.default_rng(0)
    for seed in range(5):
        noise = rng.standard_normal((40, 60)).astype(np.float32)
        values = cv2.GaussianBlur(noise, (0, 0), 1 + seed)
        threshold = float(np.quantile(values, 0.8))
        inside = filled(outline(values, threshold), values.shape)
        centres = inside[4::8, 4::8]
        clear = np.abs(values - threshold) > 0.3 * values.std()  # of a line that is straightened
        np.testing.assert_array_equal(centres[clear], (values > threshold)[clear])


def test_a_line_runs_along_the_edge_of_the_image():
    values = np.zeros((30, 40))
    values[:10, :15] = 5
    (line,) = lines_of(outline(values))
    assert line.min(0).tolist() == [0, 0]
    assert line.max(0) == pytest.approx([15.3, 10.3], abs=0.35)
    (whole,) = lines_of(outline(np.full((30, 40), 2)))
    assert whole.min(0).tolist() == [0, 0] and whole.max(0).tolist() == [40, 30]


def test_single_pixels_touching_corners_and_holes_are_outlined():
    values = np.zeros((20, 20))
    values[3, 4] = 2
    values[10, 10] = values[11, 11] = 2
    values[14:19, 2:7] = 2
    values[16, 4] = 0
    lines = lines_of(outline(values))
    # Neighbours by a corner are one region, as they are for `find_regions`.
    assert len(lines) == 4
    assert {len(line) >= 4 for line in lines} == {True}
    spans = sorted((line.max(0) - line.min(0)).max() for line in lines)
    assert spans == pytest.approx([1, 1, 2, 5], abs=0.6)


def test_nothing_over_has_no_line():
    assert outline(np.ones((5, 5))) == "" == outline(np.zeros((1, 1)))
    assert set(paths_of(np.ones((5, 5), np.float32), None).values()) == {""}


@pytest.mark.parametrize("shape", [(300, 400), (1001, 1500)])
def test_a_path_is_bounded_whatever_the_map(shape):
    values = np.random.default_rng(0).random(shape, np.float32)
    for quantile in (0.5, 0.999):
        path = outline(values, float(np.quantile(values, quantile)))
        assert 1000 < len(path) <= 24 << 10
        points = np.concatenate(lines_of(path))
        assert points.min() >= 0 and (points.max(0) <= shape[::-1]).all()


def test_a_ragged_map_is_outlined_in_its_own_place():
    values = np.random.default_rng(0).random((1000, 1200), np.float32)
    values[:, 600:] = 0
    points = np.concatenate(lines_of(outline(values, 0.5)))
    assert points.min(0) == pytest.approx([0, 0], abs=2)
    assert points[:, 0].max() == pytest.approx(600, abs=3)


def test_what_is_not_looked_at_is_the_image_but_for_a_region():
    values = np.zeros((50, 80), np.float32)
    looked_at = np.ones((50, 80), bool)
    assert paths_of(values, 1.0, looked_at)["unseen"] == ""
    looked_at[:5] = looked_at[45:] = looked_at[:, :10] = looked_at[:, 70:] = False
    around = "M0 0H80V50H0Z"
    path = paths_of(values, 1.0, looked_at)["unseen"]
    assert path.startswith(around)
    (line,) = lines_of(path.removeprefix(around))
    assert line.min(0).tolist() == [10, 5] and line.max(0).tolist() == [70, 45]
