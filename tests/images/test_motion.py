import numpy as np
import pytest

from spade_faiss.images import Frame, Framing, load_images
from spade_faiss.images.motion import motion_of, motion_shape
from spade_faiss.images.video import with_motion
from tests.images.video.videos import street

WAYS = {"right": (2, 0), "left": (-2, 0), "down": (0, 2), "up": (0, -2)}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_shifted_moves_so_fast_in_pixels_a_second(way):
    view, (x, y) = street(), WAYS[way]
    speeds = motion_of(view, np.roll(view, (y, x), (0, 1)), 0.1)
    inner = speeds[2:-2, 2:-2].mean((0, 1))  # beyond the edge nothing is known
    expected = 20.0 * np.array([name == way for name in WAYS])
    np.testing.assert_allclose(inner, expected, atol=2)


def test_an_input_that_no_cell_divides_has_cells_for_its_rest():
    view = street()[:90, :126]
    speeds = motion_of(view, view, 0.1)
    assert speeds.shape == motion_shape((90, 126)) == (12, 16, 4) and speeds.dtype == np.float32
    assert np.abs(speeds).max() < 1


def test_where_no_time_has_passed_nothing_moves():
    view = street()
    for seconds in (0.0, -1.0, float("nan")):
        assert not motion_of(view, view[:, ::-1].copy(), seconds).any()


def frames(count, fps):
    view = street()
    return [Frame(str(i), np.roll(view, i, 1), i / fps) for i in range(count)]


@pytest.mark.parametrize(("fps", "back"), [(25, 3), (24, 3), (10, 1), (4, 1)])
def test_the_frame_before_was_shown_a_tenth_of_a_second_ago(fps, back):
    found = list(with_motion(frames(8, fps)))
    assert [int(one.before.name) for one in found] == [max(0, i - back) for i in range(8)]
    assert all(one.before.before is None for one in found)  # else a video would be held whole


def test_motion_is_of_the_input_that_the_network_sees():
    source = list(with_motion(frames(4, 10)))
    framing = Framing.choose(64, None, (96, 128))
    loaded = list(load_images([*source, source[0].image], framing, motion=True))
    for one, last in zip(source[1:], loaded[1:], strict=False):
        expected = motion_of(framing.apply(one.before.image), last.wide, 0.1)
        np.testing.assert_array_equal(last.motion, expected)
    assert not loaded[0].motion.any() and loaded[4].motion is None
    assert all(one.motion is None for one in load_images(source, framing))
