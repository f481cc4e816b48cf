import numpy as np
import pytest

from spade_faiss.maps.smoothing import anomaly_map


def bilinear(values, size):
    """Float64 oracle: half-pixel centres, edges held."""
    for axis in (0, 1):
        n, m = values.shape[axis], size[axis]
        at = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, n - 1)
        weight = (at - low).reshape(-1, *[1] * (1 - axis))
        values = np.take(values, low, axis) * (1 - weight) + np.take(values, high, axis) * weight
    return values


def smooth(values, sigma):
    """Float64 oracle: a truncated Gaussian, mirrored at the edges."""
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius, radius)
        padded = np.pad(values, pad, "symmetric")
        values = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
    return values


def oracle_map(distances, size, sigma):
    return smooth(np.mean([bilinear(level, size) for level in distances], axis=0), sigma)


@pytest.mark.parametrize("size", [(224, 224), (96, 160), (160, 96)])
@pytest.mark.parametrize("sigma", [4.0, 1.5])
def test_map_equals_a_float64_oracle(size, sigma):
    rng = np.random.default_rng(0)
    levels = [
        rng.gamma(2, 100, (size[0] // s, size[1] // s)).astype(np.float32) for s in (4, 8, 16)
    ]
    expected = oracle_map([level.astype(np.float64) for level in levels], size, sigma)
    found = anomaly_map(levels, size, sigma)
    assert found.dtype == np.float32 and found.shape == size
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_without_smoothing_one_full_level_comes_back():
    level = np.random.default_rng(0).random((32, 48), np.float32)
    np.testing.assert_allclose(anomaly_map([level], (32, 48), 0), level, rtol=1e-6)


@pytest.mark.parametrize("sigma", [-1, np.nan, np.inf])
def test_a_sigma_that_smooths_nothing_is_refused(sigma):
    with pytest.raises(ValueError, match="must be a finite number, 0 or more"):
        anomaly_map([np.zeros((4, 4), np.float32)], (32, 32), sigma)
