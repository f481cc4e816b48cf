import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss.drift import CLEAR, LEVEL, compare


def warned(rng, m, n, shift=0.0, defects=0, trials=400):
    """How often batches of m are warned of, of calibrations of n, thresholds chosen by these."""
    count = 0
    for _ in range(trials):
        old, new = rng.normal(size=(2, n)), rng.normal(size=(2, m))
        new[1] += shift
        new[:, :defects] += 8  # seen by both scores
        limit = np.sort(old[0])[-2]
        count += compare(new[0], old[0], limit, new[1], old[1]).warned
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
        shares.append(np.mean([compare(one[0], old[0], limit, one[1], old[1]).warned
                               for one in new]))
    assert np.mean(shares) <= 2 * LEVEL and np.median(shares) == 0


def test_defects_in_a_batch_are_no_drift():
    assert warned(np.random.default_rng(1), 40, 40, defects=12) <= 2 * LEVEL


@pytest.mark.parametrize("shift", [-1.5, 1.5])
def test_a_shift_either_way_is_seen(shift):
    assert warned(np.random.default_rng(2), 40, 40, shift) > 0.95


def test_a_slight_shift_of_many_images_is_not_worth_a_warning():
    assert warned(np.random.default_rng(3), 2000, 2000, shift=0.3, trials=20) == 0


def test_a_batch_that_is_mostly_over_the_threshold_is_seen():
    old = np.linspace(0, 1, 20)
    found = compare(np.full(8, 2.0), old, 1.0, np.full(8, 2.0), old)
    assert found.warned and (found.over, found.images, found.effect) == (8, 8, None)
    assert "8 of 8 images are over" in found.text
    # One or two wrong parts alone say nothing.
    assert not compare([2.0], old, 1.0, [2.0], old).warned


@given(st.lists(st.floats(0, 100), max_size=40), st.lists(st.floats(0, 100), max_size=40),
       st.floats(0, 100))
def test_figures_stay_in_range_and_the_effect_is_that_of_all_pairs(new, old, limit):
    found = compare(new, old, limit, new, old)
    here, before = (np.array([v for v in side if v < limit]) for side in (new, old))
    assert found.over == sum(v > limit for v in new) and "\n" not in found.text
    if found.effect is None:
        assert found.p_value is None and len(here) * len(before) < 100
    else:
        pairs = here[:, None] - before
        assert found.effect == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
        assert 0 <= found.p_value <= 1
        if found.warned and 2 * found.over <= len(new):
            assert found.p_value < LEVEL / 2 and max(found.effect, 1 - found.effect) >= CLEAR


def test_nan_and_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        compare([1.0, float("nan")], [1.0, 2.0], 3.0, [1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="shape"):
        compare([1.0], [1.0, 2.0], 3.0, [1.0, 2.0], [1.0, 2.0])
