import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spade_faiss import SpadeError
from spade_faiss.verdict.judge import check_limits, over, verdict

finite = st.floats(-1e6, 1e6)


@given(finite, finite, st.none() | finite)
def test_a_score_has_one_verdict(score, threshold, review):
    said = verdict(score, threshold, review)
    assert (said == "NG") == (score > threshold)
    if review is None or review > threshold:
        assert said in ("NG", "OK")
    else:
        assert (said == "REVIEW") == (review <= score <= threshold)


def test_ends_belong_to_review():
    said = [
        verdict(score, 40, 30) for score in (math.nextafter(30, 0), 30, 40, math.nextafter(40, 50))
    ]
    assert said == ["OK", "REVIEW", "REVIEW", "NG"]
    assert verdict(1.0, None) == verdict(1.0, None, 0.5) == ""


@given(st.floats(-1e6, 1e6, width=32), finite)
@example(float(np.float32(0.1)), 0.1)  # 0.1 as float32 is more than 0.1
@example(float(np.float32(0.7)), 0.7)  # and 0.7 less
def test_a_pixel_is_over_a_threshold_if_it_would_make_the_image_wrong(value, threshold):
    for near in (threshold, value):
        pixels = np.array([[value]], np.float32)
        assert over(pixels, near).item() == (verdict(value, near) == "NG")
        assert over(pixels.astype(float), near).item() == (value > near)


def test_nothing_is_over_no_threshold_or_a_huge_one():
    values = np.array([1, 3e38], np.float32)
    assert not over(values, None).any() and not over(values, 1e300).any()
    assert over(values, -1e300).all() and over([1, 2, 3], 2).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("threshold", "review", "options", "why"),
    [
        (math.nan, None, {}, "threshold = nan must be a finite number, 0 or more"),
        (math.inf, None, {}, "threshold = inf"),
        (-1, None, {}, "threshold = -1"),
        (5, -0.1, {}, "review = -0.1"),
        (None, math.nan, {}, "review = nan"),
        (-math.inf, None, {"least": -math.inf}, "threshold = -inf must be a finite number$"),
        (5, 5, {}, "review = 5 must be below the threshold, 5"),
        (5, 6, {}, "below the threshold"),
        (5, None, {"quantile": 0.9}, "give one of the two"),
        (None, None, {"quantile": 0}, "quantile = 0 must lie between 0 and 1"),
        (None, None, {"quantile": 1.0}, "quantile = 1.0 must lie between 0 and 1"),
        (None, None, {"quantile": math.nan}, "quantile = nan"),
    ],
)
def test_what_means_nothing_is_refused(threshold, review, options, why):
    with pytest.raises(SpadeError, match=why):
        check_limits(threshold, review, **options)


def test_what_means_something_is_not():
    check_limits(0, None)
    check_limits(None, 3, quantile=0.9)
    check_limits(-0.5, -2, least=-math.inf)  # of an ensemble


@pytest.mark.parametrize("score, threshold", [(float("nan"), 1.0), (1.0, float("nan"))])
def test_what_is_no_number_is_no_verdict(score, threshold):
    with pytest.raises(ValueError, match="must be numbers"):
        verdict(score, threshold)
