import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given

from spade_faiss import metrics
from tests.conftest import examples

from . import oracle

levels = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(-1e6, 1e6, width=32)


@st.composite
def batches(draw):
    """One to three images, with up to three regions each that may overlap, and tied scores."""
    maps, regions = [], []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
        maps.append(draw(hnp.arrays(np.float32, shape, elements=levels)))
        masks = draw(
            st.lists(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 9])), max_size=3)
        )
        areas = st.integers(1, 60) | st.floats(0.1, 60)
        regions.append([(mask, draw(areas)) for mask in masks if mask.any()])
    wrong = [
        sum((mask for mask, _ in own), np.zeros(scores.shape)) > 0
        for scores, own in zip(maps, regions, strict=True)
    ]
    flat = np.concatenate([mask.ravel() for mask in wrong])
    assume(flat.any() and not flat.all())
    return maps, regions, wrong


@given(batches(), st.floats(0.01, 1))
@examples(100)
def test_equals_the_definition(batch, max_fpr):
    maps, regions, masks = batch
    expected = pytest.approx(oracle.spro(maps, regions, max_fpr), abs=1e-9)
    assert metrics.spro(maps, regions, max_fpr) == expected
    stream = metrics.PixelMetrics(max_fpr)
    for scores, mask, own in zip(maps, masks, regions, strict=True):
        stream.add(scores, mask, regions=own)
    assert stream.spro() == expected
    # PRO has its own regions, and is as it was.
    assert stream.compute() == metrics.pixel_metrics(maps, masks, max_fpr)


def example():
    random = np.random.default_rng(3)
    maps = list(random.normal(size=(4, 40, 40)).round(1).astype(np.float32))
    masks = [np.zeros((40, 40), bool) for _ in range(3)]
    masks[0][3:9, 4:30] = masks[1][20:31, 5:9] = masks[2][11:15, 11:15] = True
    for number, mask in enumerate(masks):
        maps[number][mask] += 1
    return maps, masks


def test_a_region_that_saturates_at_its_area_is_pro():
    maps, masks = example()
    good = np.zeros((40, 40), bool)
    regions = [[(mask, int(mask.sum()))] for mask in masks] + [[]]
    for limit in (0.05, 0.3, 1):
        assert metrics.spro(maps, regions, limit) == pytest.approx(
            metrics.pro(maps, [*masks, good], limit), abs=1e-12
        )


def test_a_region_is_found_once_it_saturates():
    mask = np.zeros((10, 10), bool)
    mask[:2] = True
    scores = np.ones((10, 10))
    scores[0, :5] = 2  # 5 of 20 pixels above every good one, the others below
    scores[mask & (scores < 2)] = 0
    for area, overlap in ((5, 1), (10, 0.5), (20, 0.25), (99, 0.25), (7.5, 5 / 7.5)):
        assert metrics.spro([scores], [[(mask, area)]], 0.3) == pytest.approx(overlap, abs=1e-12)


def test_some_of_the_images():
    maps, masks = example()
    regions = [[(mask, 10 + 7 * number)] for number, mask in enumerate(masks)] + [[]]
    stream = metrics.PixelMetrics(0.05)
    for scores, mask, own in zip(maps, [*masks, masks[0] & False], regions, strict=True):
        stream.add(scores, mask, regions=own)
    for some in ([0, 3], [3, 1, 2]):
        assert stream.spro(some) == pytest.approx(
            oracle.spro([maps[i] for i in some], [regions[i] for i in some], 0.05), abs=1e-9
        )
    assert stream.spro() == stream.spro(range(4))


def test_tensors():
    maps, masks = example()
    regions = [[(mask, 9)] for mask in masks] + [[]]
    tensors = [[(torch.from_numpy(mask), area) for mask, area in own] for own in regions]
    assert metrics.spro(map(torch.from_numpy, maps), tensors) == metrics.spro(maps, regions)


MASK = np.array([[0, 1], [0, 0]])


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([[(MASK * 0, 1)]], "image 0: region 0 holds no pixel"),
        ([[(MASK, 0)]], "image 0: region 0 saturates at 0 pixels"),
        ([[(MASK, np.nan)]], "region 0 saturates at nan"),
        ([[(MASK, 1), (MASK[:1], 1)]], r"\[2, 2\] and region 1 \[1, 2\]"),
        ([[(MASK / 1, 1)]], "region 0: float64"),
        ([[]], "none of the 1 masks holds a defect"),
        ([], "image 0: the regions end"),
    ],
)
def test_bad_regions_are_named(regions, message):
    with pytest.raises(ValueError, match=message):
        metrics.spro([np.zeros((2, 2))], regions)


def test_regions_must_make_up_the_mask():
    stream = metrics.PixelMetrics()
    with pytest.raises(ValueError, match="not the union of the 1 regions"):
        stream.add(np.zeros((2, 2)), MASK | 1, regions=[(MASK, 1)])
    stream.add(np.zeros((2, 2)), MASK)
    with pytest.raises(ValueError, match="without its regions"):
        stream.spro()
