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
