import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from spade_faiss.verdict import aimed_quantile, draw_threshold, good_threshold, images_needed

quantiles = st.floats(0.01, 0.9999)
some_scores = st.lists(st.floats(0, 1e6) | st.floats(20, 30), min_size=2, max_size=80)


def one_kind(n, spread=0.15):
    """Return n scores as evenly spread as a log-normal distribution's, ascending."""
    return 20 * np.exp(spread * norm.ppf((np.arange(n) + 0.5) / n))


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


@given(
    st.lists(st.floats(-0.05, 0.05), min_size=8, max_size=60),
    st.floats(0, 1e30) | st.floats(1, 100),
)
def test_no_single_score_moves_it_far(jitter, one):
    scores = one_kind(len(jitter)) * np.exp(jitter)
    without, among = good_threshold(scores), good_threshold([*scores, one])
    assert 3 / 4 < among / without < 4 / 3


@given(st.lists(st.floats(20, 30), min_size=8, max_size=60), st.floats(0, 1e30) | st.floats(1, 100))
def test_no_single_score_takes_it_along_even_where_there_are_two_kinds(scores, one):
    # Half of 20 and half of 30: one more decides on which side the median is.
    assert min(scores) <= good_threshold([*scores, one]) <= 5 * max(scores)


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


@given(some_scores, quantiles)
def test_parts_that_are_shown_twice_count_once_for_any_quantile(scores, quantile):
    once = good_threshold(scores, quantile)
    twice = good_threshold(np.repeat(scores, 2), quantile, [0.5] * 2 * len(scores))
    assert twice == (None if once is None else pytest.approx(once, rel=1e-9))


@given(some_scores, quantiles, quantiles, st.booleans())
def test_a_stricter_quantile_never_gives_a_lower_threshold(scores, one, two, weighted):
    weights = [1 / (1 + i % 3) for i in range(len(scores))] if weighted else None
    lax, strict = (good_threshold(scores, q, weights) for q in sorted((one, two)))
    assert (lax is None) == (strict is None)
    assert lax is None or strict >= lax * (1 - 1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_it_rises_with_the_quantile_where_rank_and_limit_meet(seed):
    """Of skew scores the limit alone is below the last score that a rank takes."""
    scores = np.random.default_rng(seed).pareto(4, 60) + 1
    drawn = [good_threshold(scores, q) for q in np.linspace(0.3, 0.9999, 200)]
    assert (np.diff(drawn) >= 0).all() and drawn[0] < drawn[-1]


@pytest.mark.parametrize("quantile", [0.9, 0.95, 0.99, 0.995])
def test_from_how_many_images_on_the_rank_decides(quantile):
    least, ranked = images_needed(quantile), images_needed(quantile, spare=1)
    assert ranked == 2 * least + 1
    scores = np.arange(100.0, 100 + ranked)  # far less skew than the limit allows for
    assert good_threshold(scores, quantile) == scores[-2]
    # Before, the rank is that of the largest score, which is not to decide alone.
    for n in (least, ranked - 1):
        drawn, larger = (
            good_threshold([*scores[: n - 1], scores[n - 1] * more], quantile) for more in (1, 1.01)
        )
        assert scores[n - 2] <= drawn <= larger < 1.01 * drawn


def test_where_the_limit_is_taken_for_the_rank_twice_the_rate_holds_for_any_distribution():
    """From 199 images to 398 at 0.5 %: it is the second largest score, at least."""
    rng = np.random.default_rng(4)
    for n in (199, 300, 398):
        seen = []
        for scores in rng.uniform(1, 2, (300, n)):  # no score of these is an outlier
            limit = good_threshold(scores, 0.995)
            assert limit >= np.sort(scores)[-2]
            seen.append(max(0.0, 2 - limit))
        assert np.mean(seen) <= 2 / (n + 1) <= 0.01


def test_the_rank_decides_where_no_single_image_does():
    scores = np.random.default_rng(3).permutation(np.arange(100.0, 139))  # 39 of them
    assert good_threshold(scores, 0.95) == 137  # the 38th: another is above it
    assert good_threshold(scores[scores < 138], 0.95) != 137  # of 38 it would be the largest
    assert good_threshold(range(1, 100), 0.9) == 90


def test_too_few_or_equal_scores_give_none():
    assert good_threshold([]) is None
    assert good_threshold([1.0]) is None
    assert good_threshold([0.0, 0.0, 0.0]) is None
    assert good_threshold([0.0, 1.0]) is good_threshold([0.0, 0.0, 1.0, 1.1]) is None
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


def test_scores_that_differ_by_more_than_numbers_hold_give_one_that_is_finite():
    assert 1 <= good_threshold([1.0, 2.6e-245], 0.984375) < np.inf


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        good_threshold([1.0, float("nan"), 2.0])
