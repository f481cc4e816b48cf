import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spade_faiss.search.approximate.coreset import ACTIVE, greedy_coreset
from tests.conftest import examples, texture


def plain_greedy(patches, count):
    """The rows chosen and how far each was from those before, by passes over all of them."""
    rows = patches.astype(np.float64)

    def distances(to):
        difference = rows - to
        return np.sqrt(np.einsum("nc,nc->n", difference, difference)).astype(np.float32)

    chosen, radii = [int(distances(rows.mean(axis=0)).argmin())], []
    near = distances(rows[chosen[0]])
    near[chosen[0]] = -1
    while len(chosen) < count:
        chosen.append(int(near.argmax()))
        radii.append(near[chosen[-1]])
        np.minimum(near, distances(rows[chosen[-1]]), out=near)
        near[chosen[-1]] = -1
    return np.array(chosen), np.array(radii)


@given(st.data(), st.integers(1, 60), st.integers(1, 4), st.sampled_from((1, 2, 7, 30, 99)))
@examples(200)
def test_choices_equal_the_plain_method_s_with_ties_and_duplicates(data, n, channels, active):
    # Small whole numbers: distances are exact, and many are equal.
    rng = np.random.default_rng(data.draw(st.integers(0, 9999)))
    patches = rng.integers(0, data.draw(st.integers(1, 6)), (n, channels)).astype(np.float32)
    count = data.draw(st.integers(1, n))
    found = greedy_coreset(patches, count, active=active, tile=(5, 3))
    assert found.dtype == np.int64
    assert found.tolist() == plain_greedy(patches, count)[0].tolist()
    assert len(set(found.tolist())) == count


@pytest.mark.parametrize("active", [64, 1000, 8192])
def test_real_features(tiny, active):
    levels = tiny(np.stack(texture("brick", 10))).levels
    patches = levels[2].numpy().reshape(-1, levels[2].shape[-1])
    expected, radii = plain_greedy(patches, 400)
    found = greedy_coreset(patches, 400, active=active)
    assert np.array_equal(found, expected)
    # Fewer are the first of more, and no patch is farther from them than the next choice.
    assert np.array_equal(greedy_coreset(patches, 50, active=active), found[:50])
    gaps = patches[:, None].astype(np.float64) - patches[found[:50]]
    assert np.sqrt((gaps**2).sum(2)).min(1).max() == pytest.approx(radii[49], rel=1e-6)


def test_many_patches(tiny):
    levels = tiny(np.stack(texture("gravel", 17))).levels
    patches = levels[0].numpy().reshape(-1, levels[0].shape[-1])
    assert len(patches) > 2 * ACTIVE
    told = []
    found = greedy_coreset(patches, 900, told.append)
    assert np.array_equal(found, plain_greedy(patches, 900)[0])
    assert told == sorted(told) and told[-1] == 900 and len(told) > 1


@pytest.mark.parametrize("count", [0, 6])
def test_a_count_out_of_range_is_explained(count):
    with pytest.raises(ValueError, match=f"{count} rows"):
        greedy_coreset(np.zeros((5, 2), np.float32), count)
