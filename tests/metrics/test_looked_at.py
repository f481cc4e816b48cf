"""Pixels that are not looked at are neither good nor a defect's."""

import numpy as np
import pytest

from spade_faiss.metrics import PixelMetrics
from tests.metrics import oracle

SHAPES = [(9, 14), (12, 7), (10, 10), (8, 8)]


def images(ties):
    rng = np.random.default_rng(5)
    made = []
    for number, shape in enumerate(SHAPES):
        scores = rng.integers(0, 6, shape) if ties else rng.random(shape)
        mask = np.zeros(shape, bool)
        if number < 3:  # the last is good
            mask[1:4, 2:6] = True  # crosses what is looked at
            mask[6:8, 4:6] = True
            mask[5, 0] = True  # all outside
        looked_at = np.zeros(shape, bool)
        looked_at[2:, 3:] = rng.random(shape)[2:, 3:] > 0.1
        made.append((scores.astype(np.float32), mask, looked_at))
    return made


def removed(scores, mask, looked_at, kept):
    """Return an image's pixels that count, in one row, and those of a mask."""
    return scores[looked_at][None], (mask & kept)[looked_at][None]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("spill", [False, True])
def test_it_is_as_if_those_pixels_were_not_there(ties, spill, tmp_path):
    part, rest = PixelMetrics(spill=tmp_path if spill else None), PixelMetrics()
    for scores, mask, looked_at in images(ties):
        part.add(scores, mask, looked_at=looked_at)
        rest.add(*removed(scores, mask, looked_at, looked_at))
    one, other = part.compute(), rest.compute()
    for name in ("pixel_rocauc", "pixel_average_precision", "pixel_best_f1", "good_pixels"):
        assert getattr(one, name) == getattr(other, name)
    assert one.pixel_best_threshold == other.pixel_best_threshold
    assert one.defect_pixels == other.defect_pixels
    bounds = (0.01, 0.2)
    np.testing.assert_array_equal(part.aupimo(bounds), rest.aupimo(bounds))


@pytest.mark.parametrize("ties", [False, True])
def test_regions_count_by_what_is_looked_at(ties):
    metrics, maps, regions = PixelMetrics(0.4), [], []
    for scores, mask, looked_at in images(ties):
        own = [np.zeros(mask.shape, bool) for _ in range(3)]
        own[0][1:4, 2:6] = own[1][6:8, 4:6] = own[2][5, 0] = True
        own = own if mask.any() else []
        metrics.add(scores, mask, None, [(one, 5.5) for one in own], looked_at)
        left = [one for one in own if (one & looked_at).any()]
        flat = [removed(scores, mask, looked_at, one)[1] for one in left]
        maps.append(scores[looked_at][None])
        regions.append([(one, 5.5) for one in flat])
    assert metrics.spro() == pytest.approx(oracle.spro(maps, regions, 0.4))
    # Saturating at its area alone, a region overlaps as it does in PRO.
    whole = [[(one, one.sum()) for one, _ in some] for some in regions]
    found = metrics.compute()
    assert found.pro == pytest.approx(oracle.spro(maps, whole, 0.4))
    assert found.regions == sum(map(len, regions)) == 6
    plain = PixelMetrics(0.4)
    for scores, mask, _ in images(ties):
        plain.add(scores, mask)
    assert plain.compute().regions == 9 and plain.compute().pro != found.pro


def test_where_all_is_looked_at_nothing_changes():
    every, plain = PixelMetrics(), PixelMetrics()
    for scores, mask, _ in images(ties=False):
        every.add(scores, mask, looked_at=np.ones(mask.shape, np.uint8))
        plain.add(scores, mask)
    assert every.compute() == plain.compute()


def test_another_size_is_refused_and_not_counted():
    metrics = PixelMetrics()
    with pytest.raises(ValueError, match=r"what is looked at \[3, 3\] differ"):
        metrics.add(np.zeros((4, 4)), np.zeros((4, 4), bool), looked_at=np.ones((3, 3), bool))
    assert not metrics.images.defects
