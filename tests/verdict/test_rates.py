import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from spade_faiss.verdict.rates import conformal_rank, expected_rate, images_needed, observed_rate
from spade_faiss.verdict.threshold import good_threshold

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
quantiles = st.floats(0.01, 0.999)


@given(counts)
def test_an_interval_ends_where_the_count_becomes_a_surprise(pair):
    count, n = pair
    rate = observed_rate(count, n)
    assert 0 <= rate.low <= rate.value == count / n <= rate.high <= 1
    # The definition, by the binomial distribution itself: 2.5 % on either side.
    if count:
        assert binom.sf(count - 1, n, rate.low) == pytest.approx(0.025, rel=1e-6)
    if count < n:
        assert binom.cdf(count, n, rate.high) == pytest.approx(0.025, rel=1e-6)
    mirrored = observed_rate(n - count, n)
    assert (rate.low, rate.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-9)


@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize("true", [0.0, 0.005, 0.03, 0.2, 0.5, 1.0])
def test_intervals_cover_the_true_rate(n, true):
    # Summed over all that can come out, not simulated: the coverage itself.
    covered = sum(
        binom.pmf(count, n, true)
        for count in range(n + 1)
        if (rate := observed_rate(count, n)).low <= true <= rate.high
    )
    assert covered >= 0.95 - 1e-12


@given(st.integers(1, 500), quantiles)
def test_the_rank_is_the_least_that_holds(n, quantile):
    rank = conformal_rank(n, quantile)
    assert 1 <= rank <= n + 1
    assert (n - rank + 1) / (n + 1) <= 1 - quantile + 1e-9
    if rank > 1:
        assert (n - rank + 2) / (n + 1) > 1 - quantile - 1e-9


@given(quantiles)
def test_so_many_images_are_needed_and_no_fewer(quantile):
    n = images_needed(quantile)
    assert conformal_rank(n, quantile) <= n
    assert n == 1 or conformal_rank(n - 1, quantile) > n - 1


def test_the_readme_s_figure():
    assert images_needed(0.995) == 199 and images_needed(1 - 0.01) == 99
    assert images_needed(1 - 0.05) == 19


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, *n: rng.lognormal(0, 1, n),
        lambda rng, *n: rng.pareto(1.5, n),
        lambda rng, *n: np.where(rng.random(n) < 0.2, 9, 0) + rng.random(n),
    ],
)
@pytest.mark.parametrize("n, quantile", [(19, 0.95), (60, 0.9), (12, 0.995)])
def test_a_chosen_threshold_does_what_is_said_of_it(draw, n, quantile):
    rng = np.random.default_rng(0)
    pool = np.sort(draw(rng, 200_000))
    true, said = [], []
    for scores in draw(rng, 2000, n):
        limit = good_threshold(scores, quantile)
        true.append(1 - np.searchsorted(pool, limit, side="right") / len(pool))
        said.append(expected_rate(int((scores > limit).sum()), n, quantile))
    # Whatever the distribution, and whichever rule drew it.
    assert np.mean(true) <= np.mean([one.value for one in said]) + 0.005
    inside = [one.low <= share <= one.high for one, share in zip(said, true, strict=True)]
    assert np.mean(inside) >= 0.94


def test_where_the_rank_decides_the_rate_is_exact():
    rng = np.random.default_rng(0)
    true = [1 - good_threshold(scores, 0.9) for scores in 1 + rng.random((2000, 60))]
    said = expected_rate(5, 60, 0.9)
    assert 1 + np.mean(true) == pytest.approx(said.value, abs=0.005)
    inside = [said.low <= 1 + share <= said.high for share in true]
    assert said.low > 0 and np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_the_share_counted_in_the_sample_itself_would_be_too_good():
    rng = np.random.default_rng(0)
    counted, true = [], []
    for scores in rng.lognormal(3, 0.15, (2000, 19)):
        limit = good_threshold(scores, 0.95)
        counted.append((scores > limit).mean())
        true.append(norm.sf((np.log(limit) - 3) / 0.15))
    assert np.mean(counted) < 0.04 < np.mean(true) < 0.06


scores_of = st.lists(st.floats(1, 2.0**60, width=32), min_size=2, max_size=120)


@given(scores_of, quantiles, quantiles)
def test_a_stricter_rate_says_less_false_alarms(scores, one, two):
    low, high = sorted((one, two))
    loose, strict = (expected_rate(0, len(scores), q) for q in (low, high))
    assert strict.value <= loose.value and strict.high <= loose.high


@given(scores_of, quantiles, st.floats(0.001, 1000))
def test_the_threshold_scales_with_the_scores(scores, quantile, factor):
    scores = [value + 1.0 for value in scores]
    limit = good_threshold(scores, quantile)
    if limit < 1e30:
        scaled = good_threshold([value * factor for value in scores], quantile)
        assert scaled == pytest.approx(limit * factor, rel=1e-6)


def test_nonsense_is_refused():
    for count, n in ((-1, 3), (4, 3), (0, 0)):
        with pytest.raises(ValueError, match="no share"):
            observed_rate(count, n)
        with pytest.raises(ValueError, match="no share"):
            expected_rate(count, n, 0.9)
    with pytest.raises(ValueError, match="NaN"):
        good_threshold([1.0, float("nan"), 2.0])
    for quantile in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            conformal_rank(10, quantile)


def test_the_smallest_score_is_no_threshold_below_it():
    assert good_threshold([1.2, 1.0, 1.1], 1e-12) == 1.0
