import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss.verdict.threshold import aimed_quantile, draw_threshold, good_threshold


def false_alarms(draw, n, quantile=None, trials=1500):
    """Return the rate of new scores over thresholds of n, and the rate that is aimed at."""
    rng = np.random.default_rng(0)
    drawn = [draw_threshold(draw(rng, n), quantile) for _ in range(trials)]
    over = [(draw(rng, 200) > one.value).mean() for one in drawn]
    return float(np.mean(over)), 1 - drawn[0].quantile


def log_normal(spread):
    return lambda rng, m: rng.lognormal(3, spread, m)


def gumbel(rng, m):
    """Draw as map peaks are spread: the largest of many values."""
    return 10 + rng.gumbel(0, 1.3, m)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 20, 50, 100, 200])
def test_log_normal_scores_are_called_wrong_about_as_often_as_aimed_at(n):
    seen, aimed = false_alarms(log_normal(0.15), n)
    assert aimed == pytest.approx(min(max(1 / (n + 1), 0.005), 0.05))
    assert 0.5 * aimed <= seen <= 1.35 * aimed


@pytest.mark.parametrize("n", [5, 20, 50, 200])
def test_skew_scores_are_called_wrong_at_most_two_and_a_half_times_as_often(n):
    seen, aimed = false_alarms(gumbel, n)
    assert seen <= 2.5 * aimed


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.lognormal(0, 1, n),
        lambda rng, n: rng.pareto(1.5, n),
        lambda rng, n: rng.uniform(1, 2, n),
    ],
)
def test_large_samples_hold_the_rate_whatever_the_distribution(draw):
    # n = 99 has the rank that q = 0.9 needs, and others above it.
    assert false_alarms(draw, 99, 0.9)[0] == pytest.approx(0.1, abs=0.02)


@given(st.lists(st.floats(20, 30), min_size=8, max_size=60), st.floats(0, 1e30) | st.floats(1, 100))
def test_no_single_score_moves_it_far(scores, one):
    without, among = good_threshold(scores), good_threshold([*scores, one])
    assert 2 / 3 < among / without < 3 / 2


def test_one_of_twenty_moves_it_by_less_than_a_third():
    rng = np.random.default_rng(0)
    for spread in (0.05, 0.1, 0.2):
        for scores in rng.lognormal(3, spread, (40, 20)):
            before = draw_threshold(scores[1:]).value
            for other in (0, 1e-20, 1e30, *(scores.max() * np.linspace(0.5, 2, 16))):
                after = draw_threshold([*scores[1:], other]).value
                assert 0.75 < after / before < 1.33


def test_odd_scores_are_named_and_do_not_count():
    rng = np.random.default_rng(1)
    scores = rng.lognormal(3, 0.1, 30)
    drawn = draw_threshold(scores)
    assert drawn.outliers == () and drawn.images >= 29
    for factor in (2, 10, 1e20):
        again = draw_threshold([*scores, factor * 20, factor * 21])
        assert again.outliers == (30, 31) and again.images == drawn.images
        assert again.value == pytest.approx(drawn.value, rel=0.03)
    # What is oddly small is nothing to look at, but must not widen the spread either.
    low = draw_threshold([*scores, 1e-10, 0])
    assert low.outliers == () and low.value == pytest.approx(drawn.value, rel=0.03)


def test_copies_count_once():
    rng = np.random.default_rng(2)
    scores = rng.lognormal(3, 0.15, 12)
    once, twice = draw_threshold(scores), draw_threshold(np.repeat(scores, 2), weights=[0.5] * 24)
    assert twice.value == pytest.approx(once.value, rel=1e-9)
    assert (twice.images, twice.quantile) == (12, once.quantile)
    uncounted = draw_threshold(np.repeat(scores, 2))
    assert uncounted.images == 24 and uncounted.value != pytest.approx(once.value, rel=1e-3)


def test_the_rank_decides_where_no_single_image_does():
    scores = np.random.default_rng(3).permutation(np.arange(100.0, 139))  # 39 of them
    assert good_threshold(scores, 0.95) == 137  # the 38th: another is above it
    assert good_threshold(scores[scores < 138], 0.95) != 137  # of 38 it would be the largest
    assert good_threshold(range(1, 100), 0.9) == 90


def test_too_few_or_equal_scores_give_none():
    assert good_threshold([]) is None
    assert good_threshold([1.0]) is None
    assert good_threshold([0.0, 0.0, 0.0]) is None
    assert good_threshold([2.0, 2.0], weights=[0.5, 0.5]) is None  # one part, shown twice
    few = draw_threshold([14.2, 14.3])
    assert 14.3 < few.value < 30 and few.quantile == 0.95


def test_what_so_many_images_can_show():
    assert [round(1 - aimed_quantile(n), 5) for n in (1, 19, 49, 99, 199, 5000)] == [
        0.05,
        0.05,
        0.02,
        0.01,
        0.005,
        0.005,
    ]


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, float("nan")])
def test_a_quantile_is_between_0_and_1(quantile):
    with pytest.raises(ValueError, match="quantile"):
        good_threshold([1.0, 2.0], quantile)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        good_threshold([1.0, float("nan"), 2.0])
