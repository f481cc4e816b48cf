import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from spade_faiss import metrics
from tests.conftest import examples

from . import oracle

tied = st.sampled_from([0.0, 0.25, 0.5, 1.0])
free = st.floats(-1e6, 1e6, width=32)


@st.composite
def batches(draw):
    """A defect, a good image, and up to three more, each of its own size, with scores that tie."""
    maps, masks = [], []
    for kind in [True, False, *draw(st.lists(st.booleans(), max_size=3))]:
        shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
        score = draw(st.sampled_from([tied, free, st.just(0.5)]))
        maps.append(draw(hnp.arrays(np.float32, shape, elements=score)))
        masks.append(np.zeros(shape, np.uint8))
        if kind:
            masks[-1] = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255])))
            masks[-1][0, 0] = 1
    return maps, masks


def check(maps, masks, bounds):
    ours = metrics.aupimo_per_image(maps, masks, bounds)
    theirs = oracle.aupimo(maps, masks, bounds)
    assert [None if np.isnan(one) else pytest.approx(one, abs=1e-9) for one in ours] == theirs
    mean = np.mean([one for one in theirs if one is not None])
    assert metrics.aupimo(maps, masks, bounds) == pytest.approx(mean, abs=1e-9)


@given(batches(), st.floats(1e-3, 0.5), st.floats(1.1, 50))
@examples(150)
def test_equals_the_definition(batch, lower, times):
    check(*batch, (lower, min(lower * times, 1)))  # type: ignore[call-arg]


def texture(side, seed=0, good=3, bad=3):
    """Maps of three sizes where defects score higher but not always."""
    random = np.random.default_rng(seed)
    maps, masks = [], []
    for number in range(good + bad):
        shape = side + 10 * (number % 3), side
        maps.append(random.normal(size=shape).astype(np.float32))
        masks.append(np.zeros(shape, bool))
        if number >= good:
            masks[-1][5:15, 5 : 15 + number] = True
            maps[-1][masks[-1]] += 3
    return maps, masks


def test_equals_the_definition_at_the_rates_of_the_paper():
    maps, masks = texture(250)
    check(maps, masks, (1e-5, 1e-4))
    check([scores.round(1) for scores in maps], masks, (1e-5, 1e-4))


def test_streaming_is_the_batch(tmp_path):
    maps, masks = texture(60)
    expected = metrics.aupimo_per_image(maps, masks, (1e-3, 1e-2))
    assert np.isnan(expected).tolist() == [True] * 3 + [False] * 3 and expected[3] > 0.1
    for spill in (None, tmp_path):
        stream = metrics.PixelMetrics(spill=spill)
        for scores, mask in zip(maps, masks, strict=True):
            stream.add(torch.from_numpy(scores), mask)
        assert np.array_equal(stream.aupimo((1e-3, 1e-2)), expected, equal_nan=True)
        assert stream.compute() == metrics.pixel_metrics(maps, masks)
    lazy = metrics.aupimo(iter(maps), iter(masks), (1e-3, 1e-2))
    assert lazy == pytest.approx(np.nanmean(expected), abs=1e-12)


def test_a_map_that_says_nothing_finds_nothing():
    maps, masks = np.ones((2, 40, 40)), np.zeros((2, 40, 40), bool)
    masks[0, :4] = True
    assert metrics.aupimo(maps, masks) < 1e-4
    assert metrics.aupimo(maps + masks, masks) == 1


def test_below_the_least_rate_counts_what_is_found_without_a_false_alarm():
    good, bad, mask = np.zeros((10, 10)), np.zeros((10, 10)), np.zeros((10, 10), bool)
    mask[0], good[5, 5] = True, 2
    bad[0, :4], bad[0, 4:6] = 3, 1  # 4 of 10 above every good pixel, 2 more after one of 100
    assert metrics.aupimo([bad, good], [mask, mask & False], (1e-4, 1e-3)) == pytest.approx(0.4)
    # From 1e-3 to 1e-2 four are found, from there to 1e-1 six.
    assert metrics.aupimo([bad, good], [mask, mask & False], (1e-3, 1e-2)) == pytest.approx(0.4)
    # At the lowest threshold all good pixels are called at once: a straight line over the rate.
    assert metrics.aupimo([bad, good], [mask, mask & False], (1e-3, 1e-1)) == pytest.approx(
        oracle.aupimo([bad, good], [mask, mask & False], (1e-3, 1e-1))[0], abs=1e-12
    )


def test_an_image_counts_the_same_whatever_its_size():
    """The rate is a mean of the good images' own, and not of their pixels."""
    wide, narrow = np.zeros((100, 100)), np.zeros((10, 10))
    wide[0, 0], narrow[0, 0] = 1, 2
    bad, mask = np.full((4, 4), 1.5), np.ones((4, 4), bool)
    maps, masks = [wide, narrow, bad], [wide < 0, narrow < 0, mask]
    # 2 is at rate 1/2 of 1/100, and 1 at 1/2 of 1/100 + 1/10000: between them all is found.
    assert metrics.aupimo(maps, masks, (0.001, 0.005)) == 0
    assert metrics.aupimo(maps, masks, (0.005, 0.006)) == 1


DEFECT = np.array([[0, 1], [0, 0]])


@pytest.mark.parametrize(
    ("masks", "bounds", "message"),
    [
        ([DEFECT, DEFECT], (0.1, 0.2), "all 2 masks hold defects: AUPIMO needs good images"),
        ([DEFECT * 0] * 2, (0.1, 0.2), "none of the 2 masks holds a defect"),
        ([DEFECT, DEFECT * 0], (0.2, 0.1), "bounds"),
        ([DEFECT, DEFECT * 0], (0, 0.1), "bounds"),
        ([DEFECT, DEFECT * 0], (0.1, 1.1), "bounds"),
        ([DEFECT], (0.1, 0.2), "2 maps but 1 masks"),
    ],
)
def test_bad_input(masks, bounds, message):
    for metric in (metrics.aupimo, metrics.aupimo_per_image):
        with pytest.raises(ValueError, match=message):
            metric([np.zeros((2, 2))] * 2, masks, bounds)
