import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss.search import LevelSearch
from tests.conftest import examples


@examples(40)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 7),
    per_image=st.integers(1, 40),
    channels=st.integers(1, 70),
    scale=st.sampled_from([1e-3, 1.0, 300.0]),
    k=st.integers(1, 3),
    shift=st.sampled_from([0.0, 1.0, 50.0]),
)
def test_half_precision_rows_are_searched_exactly(
    engine, seed, images, per_image, channels, scale, k, shift
):
    rng = np.random.default_rng(seed)
    rows = scale * (shift + rng.standard_normal((images * per_image, channels)))
    stored = rows.astype(np.float16)
    queries = rows[rng.integers(0, len(rows), 30)] + scale * rng.choice(
        [0, 0.01, 1], (30, 1)
    ) * rng.standard_normal((30, channels))
    queries = queries.astype(np.float32)
    among = np.sort(rng.permutation(images)[: rng.integers(1, images + 1)])
    k = min(k, len(among) * per_image)
    near, ids = LevelSearch(stored, per_image).search(
        torch.from_numpy(queries)[None], torch.from_numpy(among)[None], k, engine
    )
    places = (among[:, None] * per_image + np.arange(per_image)).ravel()
    gap = queries[:, None].astype(np.float64) - stored[places].astype(np.float64)
    true = np.square(gap).sum(2)
    np.testing.assert_allclose(near[0], np.sort(true, 1)[:, :k], rtol=1e-5, atol=0)
    assert np.isin(ids, places).all()
    at = np.searchsorted(places, ids[0].numpy())
    np.testing.assert_allclose(np.take_along_axis(true, at, 1), near[0], rtol=1e-5, atol=0)


def test_float16_rows_of_a_large_level_are_found(engine):
    """Large enough for the kernels' tiles, parts and threads all to be at work."""
    rng = np.random.default_rng(0)
    stored = rng.standard_normal((12 * 400, 48)).astype(np.float16)
    queries = torch.from_numpy(stored[rng.permutation(len(stored))[:1200]].astype(np.float32))
    queries = queries + 0.1 * torch.from_numpy(rng.standard_normal((1200, 48), np.float32))
    among = torch.arange(12)[None]
    distances, rows = LevelSearch(stored, 400).search(queries[None], among, 2, engine)
    true = torch.cdist(queries.double(), torch.from_numpy(stored).double()).square()
    near, ids = true.topk(2, largest=False)
    torch.testing.assert_close(distances[0].double(), near, rtol=1e-5, atol=0)
    assert (rows[0] == ids).float().mean() > 0.999
