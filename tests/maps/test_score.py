import math
from fractions import Fraction

import numpy as np
import pytest

from spade_faiss.maps.score import ORDER, power_mean


@pytest.mark.parametrize("scale", [1e-30, 1.0, 3e30])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 48)])
def test_a_power_mean_equals_an_exact_oracle_at_every_scale(shape, scale):
    values = (np.random.default_rng(0).gamma(2, 1, shape) * scale).astype(np.float32)
    powers = sum(Fraction(float(one)) ** ORDER for one in values.ravel()) / values.size
    unit = Fraction(scale) ** ORDER  # powers of floats overflow, those of fractions do not
    expected = scale * float(powers / unit) ** (1 / ORDER)
    assert power_mean(values) == pytest.approx(expected, rel=1e-12)


def test_it_lies_between_the_mean_and_the_maximum_and_weighs_area_and_strength():
    strong, weak = np.full((2, 50, 50), 1.0, np.float32)
    strong[10, 10] = 3.0
    weak[:25] = 2.0
    for values in (strong, weak):
        assert values.mean() < power_mean(values) < values.max()
    assert weak.max() < strong.max() and power_mean(weak) > power_mean(strong) > 1.0
    assert power_mean(strong) == pytest.approx(((2499 + 3.0**8) / 2500) ** (1 / 8), rel=1e-12)


def test_order_1_is_the_mean_and_a_high_one_nears_the_maximum():
    values = np.random.default_rng(1).random((20, 30), np.float32)
    assert power_mean(values, 1) == pytest.approx(values.mean(dtype=np.float64), rel=1e-12)
    assert power_mean(values, 4096) == pytest.approx(float(values.max()), rel=2e-3)


def test_a_map_of_nothing_is_0_and_what_is_below_0_counts_as_0():
    assert power_mean(np.zeros((4, 4), np.float32)) == 0.0
    assert power_mean(np.full((4, 4), -3, np.float32)) == 0.0
    assert power_mean(np.array([[-5, 1]], np.float32)) == pytest.approx(0.5 ** (1 / 8))


def test_what_is_no_number_gives_no_number():
    assert math.isnan(power_mean(np.array([[np.nan, 1]], np.float32)))


@pytest.mark.parametrize("window", [1, 3, 20, 24])
@pytest.mark.parametrize("masked", [False, True])
def test_within_a_window_it_is_the_largest_of_all_windows(window, masked):
    rng = np.random.default_rng(window)
    values = rng.gamma(2, 1, (24, 31)).astype(np.float32)
    looked_at = rng.random(values.shape) < 0.7 if masked else None
    counted = values if looked_at is None else np.where(looked_at, values, 0)
    means = [
        power_mean(counted[y : y + window, x : x + window])
        for y in range(24 - window + 1)
        for x in range(31 - window + 1)
    ]
    found = power_mean(values, looked_at=looked_at, window=window)
    assert found == pytest.approx(max(means), rel=1e-9)


def test_a_flaw_counts_as_much_in_a_large_picture_as_in_a_small_one():
    small = np.ones((64, 64), np.float32)
    small[30:40, 20:30] = 5
    large = np.ones((500, 700), np.float32)
    large[211:275, 402:466] = small
    assert power_mean(large, window=64) == pytest.approx(power_mean(small), rel=1e-12)
    assert power_mean(large) < 0.7 * power_mean(small)
