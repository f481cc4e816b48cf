"""Nearest neighbours by brute force in float64."""

import numpy as np
from scipy.spatial.distance import cdist


def brute_force(queries, gallery, k):
    """Squared distances [Q, k] ascending, and all of them [Q, G]."""
    # Sums of squared differences, with no expansion that could cancel.
    everything = cdist(queries.astype(np.float64), gallery.astype(np.float64), "sqeuclidean")
    nearest = np.partition(everything, k - 1, axis=1)[:, :k]
    return np.sort(nearest, axis=1), everything


def assert_exact(queries, gallery, k, distances, ids):
    expected, everything = brute_force(queries, gallery, k)
    assert distances.dtype == np.float32 and ids.dtype == np.int64
    assert distances.shape == ids.shape == (len(queries), k)
    # What float32 cannot hold is no distance: under 1e-37 it loses digits.
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-37)
    # Ties aside, the ids are those of the brute force: their true distances are as small.
    chosen = np.take_along_axis(everything, ids, 1)
    np.testing.assert_allclose(chosen, expected, rtol=1e-5, atol=1e-37)
    assert all(len(set(row)) == k for row in ids.tolist())
    assert (np.diff(distances, axis=1) >= 0).all()
