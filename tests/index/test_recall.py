import numpy as np
import pytest

from spade_faiss import Spade, SpadeError
from spade_faiss.index import Index
from spade_faiss.index.recall import measure_recall
from tests.conftest import texture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recall")


@pytest.fixture(scope="module")
def build(tiny, gravel_folder, folder):
    def fit(**way):
        Spade(tiny, **way).fit(gravel_folder, folder / "index", calibrate=False)
        return Index.open(folder / "index")

    return fit


def test_flat_misses_nothing(build):
    for one in measure_recall(build(factory="Flat")):
        assert one.recall_at_1 == 1 and one.mean_distance_ratio == pytest.approx(1, abs=1e-6)
        assert one.queries == min(1000, one.patches)


def test_ivf_finds_more_with_more_lists(build):
    index = build(factory="IVF64,Flat", search_params="nprobe=1")
    found = [measure_recall(index)]
    found += [measure_recall(index, search_params=f"nprobe={n}") for n in (4, 16, 64)]
    for level in range(3):
        recalls = [one[level].recall_at_1 for one in found]
        ratios = [one[level].mean_distance_ratio for one in found]
        assert recalls == sorted(recalls) and ratios == sorted(ratios, reverse=True)
        assert recalls[0] < 0.9 and recalls[-1] == 1 and ratios[-1] == pytest.approx(1, abs=1e-6)
    with pytest.raises(SpadeError, match="efSearch"):
        measure_recall(index, search_params="efSearch=4")


def test_figures_of_a_coreset_equal_a_brute_force(build):
    index = build(coreset=0.05)
    # With as many queries as an image has patches, all of them are asked for.
    found = measure_recall(index, queries=10 * 49)[2]
    patches, kept = index.levels[2].astype(np.float64), index.galleries[2].rows
    far = (patches**2).sum(1)[:, None] - 2 * patches @ patches.T + (patches**2).sum(1)
    images = np.arange(490) // 49
    far[images[:, None] == images[None]] = np.inf
    best, ours = far.min(1), far[:, kept].min(1)
    assert found.queries == 490 and found.patches == len(kept) == 24
    assert found.bytes == 24 * 64 * 4
    assert found.recall_at_1 == pytest.approx(np.mean(ours <= best * (1 + 1e-5)))
    assert found.mean_distance_ratio == pytest.approx(np.sqrt(ours / best).mean(), rel=1e-5)


def test_duplicates_do_not_spoil_the_mean(tiny):
    image = texture("brick", 1)[0]
    spade = Spade(tiny, factory="Flat", batch_size=4).fit([image] * 4, calibrate=False)
    for one in measure_recall(spade.index_):
        assert one.recall_at_1 == 1
        assert one.mean_distance_ratio is None or np.isfinite(one.mean_distance_ratio)


def test_what_cannot_be_measured_is_explained(tiny):
    with pytest.raises(SpadeError, match="`factory` or `coreset`"):
        measure_recall(Spade(tiny).fit(texture("brick", 2), calibrate=False).index_)
    with pytest.raises(SpadeError, match="two images"):
        measure_recall(Spade(tiny, factory="Flat").fit(texture("brick", 1)).index_)
