import numpy as np
import pytest

from spade_faiss.pictures.colours import SERIES, rgb
from spade_faiss.report import bars_picture, timeline_picture


def columns_of(picture, colour):
    return np.flatnonzero((np.abs(picture.astype(int) - colour) <= 2).all(2).any(0))


def test_what_is_over_the_threshold_stands_on_red():
    seconds = np.arange(100) / 10
    scores = np.ones(100)
    scores[40:60] = 3
    picture = timeline_picture(seconds, scores, 2.0, [45], "gate.mp4")
    assert picture.shape == (320, 1200, 3) and picture.dtype == np.uint8
    red = columns_of(picture, rgb("ng-soft"))
    left, right = 70, 1200 - 24
    place = (red[[0, -1]] - left) / (right - left) * 9.9
    assert place == pytest.approx((3.95, 5.95), abs=0.05)
    calm = timeline_picture(seconds, scores, 4.0, [], "gate.mp4")
    assert not len(columns_of(calm, rgb("ng-soft")))


def test_a_single_frame_over_the_threshold_is_red_down_to_it():
    scores = np.ones(9)
    scores[4] = 3
    picture = timeline_picture(np.arange(9) / 10, scores, 2.0, [4], "gate.mp4").astype(int)
    middle = picture[:, 490:756]
    level = round(280 - 2 / (1.08 * 3) * (280 - 48))
    red = middle[..., 0] > middle[..., 2] + 60
    blue = middle[..., 2] > middle[..., 0] + 60
    assert red[60 : level - 4].any(1).all() and not blue[: level - 4].any()
    assert blue[level + 4 : level + 30].any(1).all() and not red[level + 4 :].any()


@pytest.mark.parametrize("count", [1, 2, 30_000])
def test_videos_of_any_length_are_drawn(count):
    scores = np.random.default_rng(0).random(count)
    for threshold in (None, 0.0, 0.5):
        picture = timeline_picture(np.arange(count) / 24, scores, threshold, [0], "a.mp4")
        assert picture.std() > 5
    assert timeline_picture([0.0], [0.0], None, [0], "a.mp4").shape == (320, 1200, 3)


def test_bars_are_as_long_as_their_figures():
    picture = bars_picture(
        "PRO", ["carpet", "grid"], ("published", [0.5, None]), {"ours": [1.0, 0.25]}
    )
    ours = (picture == rgb(SERIES[0])).all(2)
    published = (picture == rgb("grey")).all(2)
    lengths = ours.sum(1)
    full = lengths.max()
    assert published.sum(1).max() == pytest.approx(full / 2, abs=1.5)
    assert np.isclose(lengths, full / 4, atol=1.5).any()
    many = bars_picture(
        "PRO",
        ["carpet"],
        ("published", [0.5]),
        {f"a run with a long name, number {i}": [0.5] for i in range(9)},
    )
    assert many.shape[1] == picture.shape[1]
