import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import f, fisher_exact, norm, rankdata, ttest_ind

from spade_faiss.verdict.drift import CLEAR, LEVEL, detect_drift, hotelling, p_of_more


def warned(rng, m, n, shift=(0.0, 0.0), defects=0, trials=400):
    """How often batches of m are warned of, of calibrations of n, thresholds chosen by these.

    The shift is of scores and of descriptor scores, in standard deviations.
    """
    count = 0
    for _ in range(trials):
        old, new = rng.normal(size=(2, n)), rng.normal(size=(2, m))
        new += np.array(shift)[:, None]
        new[:, :defects] += 8  # seen by both scores
        limit = np.sort(old[0])[-2]
        count += detect_drift(new[0], old[0], limit, new[1], old[1]).warned
    return count / trials


@pytest.mark.parametrize("m, n", [(3, 40), (10, 10), (40, 20), (300, 20), (40, 200)])
def test_unchanged_batches_are_warned_of_at_most_at_the_stated_rate(m, n):
    # 2000 batches: by chance a rate of 1 % gives 1.6 % in one of a hundred tests.
    assert warned(np.random.default_rng(m), m, n, trials=2000) <= 1.6 * LEVEL


def test_one_calibration_and_many_batches_make_no_storm():
    # Of one calibration's batches all may be warned of, but of few calibrations are they.
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(60):
        old = rng.normal(size=(2, 30))
        limit = np.sort(old[0])[-2]
        new = rng.normal(size=(40, 2, 30))
        shares.append(
            np.mean([detect_drift(one[0], old[0], limit, one[1], old[1]).warned for one in new])
        )
    assert np.mean(shares) <= 2 * LEVEL and np.median(shares) == 0


def test_defects_in_a_batch_are_no_drift():
    assert warned(np.random.default_rng(1), 40, 40, defects=12) <= 2 * LEVEL


@pytest.mark.parametrize("shift", [(0, -1.5), (0, 1.5), (-1.5, 0), (-0.9, 0.9), (-0.8, -0.8)])
def test_a_shift_of_either_score_or_of_both_is_seen(shift):
    assert warned(np.random.default_rng(2), 40, 40, shift) > 0.85


def test_a_slight_shift_of_many_images_is_not_worth_a_warning():
    assert warned(np.random.default_rng(3), 2000, 2000, (0.0, 0.3), trials=20) == 0


@pytest.mark.parametrize("m, n", [(10, 10), (5, 20), (30, 100)])
def test_p_is_hotellings_whatever_the_scores_distribution(m, n):
    """Beside the textbook's formula, and uniform where nothing has changed."""
    rng, values = np.random.default_rng(m), []
    for _ in range(2000):
        x = rng.normal(size=(2, m + n))
        x = np.exp(np.stack([x[0], np.abs(x[0]) * x[1]]))  # dependent, and skewed
        here, before = x[:, :m], x[:, m:]
        values.append(hotelling(here, before).p_value)
    normal = norm.ppf(rankdata(x, axis=1) / (m + n + 1))
    one, other = normal[:, :m], normal[:, m:]
    within = ((m - 1) * np.cov(one) + (n - 1) * np.cov(other)) / (m + n - 2)
    gap = one.mean(1) - other.mean(1)
    t2 = m * n / (m + n) * gap @ np.linalg.inv(within) @ gap
    expected = f.sf(t2 * (m + n - 3) / (2 * (m + n - 2)), 2, m + n - 3)
    assert values[-1] == pytest.approx(expected, rel=1e-9)
    for level in (0.01, 0.05, 0.5):  # by four standard deviations
        assert abs(np.mean(np.array(values) < level) - level) < 4 * (level / 2000) ** 0.5


def test_one_score_alone_is_compared_alone():
    """With --score descriptor both scores are the same."""
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=30), rng.normal(size=20) + 1.2
    found = hotelling(np.stack([new, new]), np.stack([old, old]))
    normal = norm.ppf(rankdata(np.r_[new, old]) / 51)
    assert found.p_value == pytest.approx(ttest_ind(normal[:20], normal[20:]).pvalue, rel=1e-9)
    assert found.effect == found.score_effect == found.apart
    same = np.ones((2, 20))
    assert hotelling(same, same) == (0.5, 0.5, 0.5, 1.0)
    assert hotelling(same, 2 * same).p_value < 1e-9


def test_a_batch_that_is_mostly_over_the_threshold_is_seen():
    old = np.linspace(0, 1, 20)
    found = detect_drift(np.full(8, 2.0), old, 1.0, np.full(8, 2.0), old)
    assert found.warned and (found.over, found.images, found.effect) == (8, 8, None)
    assert "8 of 8 images are over" in found.text
    # One or two wrong parts alone say nothing.
    assert not detect_drift([2.0], old, 1.0, [2.0], old).warned


@given(
    st.lists(st.floats(0, 100), max_size=40),
    st.lists(st.floats(0, 100), max_size=40),
    st.floats(0, 100),
)
@example([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0], 2.0)  # rounds under 0
def test_figures_stay_in_range_and_the_effect_is_that_of_all_pairs(new, old, limit):
    found = detect_drift(new, old, limit, new, old)
    here, before = (np.array([v for v in side if v < limit]) for side in (new, old))
    assert found.over == sum(v > limit for v in new) and "\n" not in found.text
    if found.effect is None:
        assert found.p_value is found.apart is found.score_effect is None
        assert len(here) * len(before) < 100
    else:
        pairs = here[:, None] - before
        assert found.effect == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
        assert found.effect == found.score_effect
        assert found.apart == pytest.approx(max(found.effect, 1 - found.effect), abs=1e-9) or (
            found.p_value > 0.1
        )  # of no difference either way is as good
        assert 0 <= found.p_value <= 1
        if found.warned and 2 * found.over <= len(new):
            assert found.p_value < LEVEL / 2 and found.apart >= CLEAR


def test_nan_and_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        detect_drift([1.0, float("nan")], [1.0, 2.0], 3.0, [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="shape"):
        detect_drift([1.0], [1.0, 2.0], 3.0, [1.0, 2.0], [1.0, 2.0])


@pytest.mark.parametrize("high, m, high_before, n", [(0, 5, 0, 9), (3, 10, 1, 50), (10, 10, 4, 4)])
def test_more_images_over_the_threshold_are_told_as_by_fisher(high, m, high_before, n):
    table = [[high, m - high], [high_before, n - high_before]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert p_of_more(high, m, high_before, n) == pytest.approx(expected, rel=1e-9)
