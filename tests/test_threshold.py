import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss.threshold import good_threshold


def false_alarms(draw, n, quantile, trials=1500):
    rng = np.random.default_rng(0)
    limits = [good_threshold(draw(rng, n), quantile) for _ in range(trials)]
    return float(np.mean(draw(rng, trials) > limits))


@pytest.mark.parametrize("n", [5, 20, 50])
def test_small_samples_hold_the_rate_for_log_normal_scores(n):
    assert false_alarms(lambda rng, m: rng.lognormal(5, 0.3, m), n, 0.95) == pytest.approx(
        0.05, abs=0.02)


@pytest.mark.parametrize("draw", [
    lambda rng, n: rng.lognormal(0, 1, n), lambda rng, n: rng.pareto(1.5, n),
    lambda rng, n: rng.uniform(0, 1, n),
])
def test_large_samples_hold_the_rate_whatever_the_distribution(draw):
    # n = 99 has the rank that q = 0.9 needs.
    assert false_alarms(draw, 99, 0.9) == pytest.approx(0.1, abs=0.02)


def test_the_sample_maximum_would_not_hold_it():
    rng = np.random.default_rng(0)
    over = [rng.lognormal(5, 0.3) > rng.lognormal(5, 0.3, 20).max() for _ in range(4000)]
    assert np.mean(over) > 0.035  # one in 21, seven times what 0.995 promises


@given(st.lists(st.floats(0, 2.0**99, width=32), min_size=2, max_size=300), st.floats(0.01, 0.999))
def test_it_is_finite_and_at_least_a_good_score(scores, quantile):
    limit = good_threshold(scores, quantile)
    assert np.isfinite(limit) and min(scores) <= limit
    if len(scores) < quantile / (1 - quantile):
        assert limit >= max(scores)


def test_too_few_scores_give_none():
    assert good_threshold([]) is None
    assert good_threshold([1.0]) is None


@pytest.mark.parametrize("quantile", [0.0, 1.0, -1.0, float("nan")])
def test_a_quantile_is_between_0_and_1(quantile):
    with pytest.raises(ValueError, match="quantile"):
        good_threshold([1.0, 2.0], quantile)
