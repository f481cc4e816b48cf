import tempfile
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from spade_faiss import metrics
from spade_faiss.metrics import collect, ranking
from spade_faiss.metrics.collect import Images, Spill, find_defects
from tests.conftest import examples
from tests.full_disk import no_file_over

from . import oracle

tied = st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0])
free = st.floats(-1e6, 1e6, width=32)


@st.composite
def batches(draw, dtype=np.float32):
    """One to three images, each of its own size, with defects of any shape and scores that tie."""
    maps, masks = [], []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
        score = draw(st.sampled_from([tied, free, st.just(0.5)]))
        maps.append(draw(hnp.arrays(dtype, shape, elements=score)))
        masks.append(draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 255]))))
    defect = np.concatenate([mask.ravel() for mask in masks]) > 0
    assume(defect.any() and not defect.all())
    return maps, masks


def flat(maps, masks):
    return (
        np.concatenate([np.ravel(mask) for mask in masks]) > 0,
        np.concatenate([np.ravel(scores) for scores in maps]).astype(np.float64),
    )


def texture(count=6, side=48, seed=0):
    """Maps where defects score higher but not always, regions of several sizes, some none."""
    random = np.random.default_rng(seed)
    maps = random.normal(size=(count, side, side)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    for i in range(count - 1):
        for _ in range(i + 1):
            y, x = random.integers(0, side - 4, 2)
            masks[i, y : y + random.integers(1, 9), x : x + random.integers(1, 9)] = True
    maps[masks] += 1
    return maps, masks


@given(batches(), st.floats(0.01, 1))
@examples(250)
def test_equals_the_definition(batch, max_fpr):
    maps, masks = batch
    assert metrics.pro(maps, masks, max_fpr) == pytest.approx(
        oracle.pro(maps, masks, max_fpr), abs=1e-9
    )


@given(batches(np.float64))
@examples(200)
def test_equals_scikit_learn(batch):
    y, s = flat(*batch)
    scores = metrics.pixel_metrics(*batch)
    assert scores.pixel_rocauc == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert scores.pixel_average_precision == pytest.approx(average_precision_score(y, s), abs=1e-12)
    precision, recall, _ = precision_recall_curve(y, s)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert scores.pixel_best_f1 == pytest.approx(f1.max(), abs=1e-12)
    called = s >= scores.pixel_best_threshold
    reached = 2 * (called & y).sum() / (called.sum() + y.sum())
    assert scores.pixel_best_f1 == pytest.approx(reached, abs=1e-12)


@given(batches(), st.floats(0.01, 1))
@examples(150)
def test_streaming_is_the_batch_bit_for_bit(batch, max_fpr):
    maps, masks = batch
    stream = metrics.PixelMetrics(max_fpr)
    for i, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        stream.add(scores, mask)
        if i == 0 and np.unique(mask > 0).size == 2:
            stream.compute()  # must not disturb what follows
    assert stream.compute() == metrics.pixel_metrics(maps, masks, max_fpr)
    with tempfile.TemporaryDirectory() as folder:
        spilled = metrics.PixelMetrics(max_fpr, folder)
        for scores, mask in zip(maps, masks, strict=True):
            spilled.add(scores, mask)
        assert spilled.compute() == stream.compute() == spilled.compute()
        assert not list(Path(folder).iterdir())
    assert metrics.pro(iter(maps), iter(masks), max_fpr) == metrics.pro(maps, masks, max_fpr)


@given(batches())
@examples(150)
def test_curves_lie_on_the_definition(batch):
    maps, masks = batch
    roc, overlap = metrics.pixel_roc_curve(maps, masks), metrics.pro_curve(maps, masks)
    for curve, column in ((roc, 1), (overlap, 2)):
        assert (curve.fpr[0], curve.hit[0], curve.thresholds[0]) == (0, 0, np.inf)
        assert (curve.fpr[-1], curve.hit[-1]) == (1, 1)
        assert (np.diff(curve.thresholds) < 0).all()
        for fpr, hit, threshold in zip(*curve, strict=True):
            true = oracle.point(maps, masks, threshold)
            assert (fpr, hit) == pytest.approx((true[0], true[column]), abs=1e-12)
    assert oracle.area(*roc[:2], 1) == pytest.approx(metrics.pixel_rocauc(maps, masks), abs=1e-12)
    assert oracle.area(*overlap[:2], 0.3) == pytest.approx(metrics.pro(maps, masks), abs=1e-12)


def test_curve_holds_no_point_inside_a_straight_run():
    maps = np.array([[[9.0, 8, 7, 6, 5, 4, 3]]])
    curve = metrics.pixel_roc_curve(maps, np.array([[[1, 1, 0, 0, 1, 1, 0]]]))
    corners = np.stack([curve.fpr * 3, curve.hit * 4], 1)
    assert corners.tolist() == [[0, 0], [0, 2], [2, 2], [2, 4], [3, 4]]


def test_regions_weigh_the_same_whatever_their_size():
    # One pixel found at once, fifteen found after every good pixel.
    mask = np.zeros((6, 6), int)
    mask[0, 0] = mask[2:5, 1:] = 1
    scores = np.where(mask == 1, 0.0, 1.0)
    scores[0, 0] = 2
    assert metrics.pro([scores], [mask]) == 0.5


def test_diagonal_neighbours_are_one_region():
    mask = np.eye(4, dtype=bool)
    assert metrics.pixel_metrics([mask.astype(float)], [mask]).regions == 1
    mask[1, 1] = False
    assert metrics.pixel_metrics([mask.astype(float)], [mask]).regions == 2


def test_equal_scores_are_the_diagonal():
    maps, masks = np.ones((2, 5, 5)), np.zeros((2, 5, 5), bool)
    masks[0, :2] = True
    assert metrics.pixel_rocauc(maps, masks) == 0.5
    assert metrics.pro(maps, masks, 0.3) == pytest.approx(0.15, abs=1e-15)


def test_a_whole_number_limit_and_a_tie_of_many_pixels():
    maps, masks = np.ones((1, 300, 300), np.float32), np.zeros((1, 300, 300), bool)
    masks[0, 0] = True
    assert metrics.pro(maps, masks, 1) == pytest.approx(0.5, abs=1e-12)


def test_rank_is_all_that_matters():
    maps, masks = texture()
    expected = metrics.pixel_metrics(maps, masks)
    wide = maps.astype(np.float64)
    for other in (np.exp(wide), 8 * maps, np.arctan(wide)):
        changed = metrics.pixel_metrics(other, masks)
        assert changed.pro == pytest.approx(expected.pro, abs=1e-12)
        assert changed.pixel_rocauc == expected.pixel_rocauc
        assert changed.pixel_best_f1 == expected.pixel_best_f1
    order = np.random.default_rng(1).permutation(len(maps))
    shuffled = metrics.pixel_metrics(maps[order], masks[order])
    assert shuffled.pro == pytest.approx(expected.pro, abs=1e-12)
    assert shuffled.pixel_rocauc == expected.pixel_rocauc


def test_many_pieces_and_blocks():
    """More good scores than one search is worth, more defect scores than are summed at once."""
    maps, masks = texture(4, 400)
    masks[:3, 40:200, 40:200] = masks[:3, 240:300, 240:300] = True
    maps = (2 * maps + masks).round() / 2  # ties across images and pieces
    found = metrics.pixel_metrics(maps, masks)
    assert found.defect_pixels > 4 * ranking.STEP == 4 * ranking.PIECE
    assert found.good_pixels > 3 * collect.BLOCK
    y, s = flat(maps, masks)
    assert found.pixel_rocauc == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert found.pixel_average_precision == pytest.approx(average_precision_score(y, s), abs=1e-12)
    called = {threshold: s >= threshold for threshold in np.unique(s[y])}
    f1 = {at: 2 * (one & y).sum() / (one.sum() + y.sum()) for at, one in called.items()}
    assert found.pixel_best_f1 == pytest.approx(max(f1.values()), abs=1e-12)
    assert found.pixel_best_threshold == max(f1, key=f1.__getitem__)
    assert found.pro == pytest.approx(oracle.pro(maps, masks, 0.3), abs=1e-9)


def test_float64_is_not_rounded():
    maps = np.array([[[1.0, 1.0 + 1e-12]]])
    assert metrics.pixel_rocauc(maps, [np.array([[0, 1]])]) == 1
    # One image of each precision: the wider holds for both.
    mixed = [np.array([[1.0, 0.0]], np.float32), maps[0]]
    assert metrics.pixel_rocauc(mixed, [np.array([[0, 0]]), np.array([[0, 1]])]) == 1
    assert metrics.pixel_rocauc(iter(mixed), [np.array([[0, 0]]), np.array([[0, 1]])]) == 1


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.uint8, np.int64])
def test_scores_of_every_type(kind):
    maps, masks = texture()
    maps = np.clip(20 * maps + 60, 0, 200).astype(np.uint8)
    assert metrics.pixel_metrics(maps.astype(kind), masks).pro == metrics.pro(maps, masks)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int8, np.uint16, np.int64])
def test_masks_of_every_type(kind):
    maps, masks = texture()
    assert metrics.pro(maps, masks.astype(kind)) == metrics.pro(maps, masks)
    assert metrics.pro(maps, masks * np.int16(-3)) == metrics.pro(maps, masks)


def on_device(device):
    maps, masks = texture()
    expected = metrics.pixel_metrics(maps, masks)
    scores, defects = torch.from_numpy(maps).to(device), torch.from_numpy(masks).to(device)
    assert metrics.pixel_metrics(scores, defects) == expected
    assert metrics.pixel_metrics(list(scores), list(defects.to(torch.uint8))) == expected
    stream = metrics.PixelMetrics()
    for one, mask in zip(scores.clone().requires_grad_(), defects, strict=True):
        stream.add(one, mask)
    assert stream.compute() == expected
    half = scores.bfloat16()
    assert metrics.pro(half, defects) == metrics.pro(half.float().cpu().numpy(), masks)


def test_tensors():
    on_device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_tensors():
    on_device("cuda")


def test_arguments_are_left_as_they_are():
    maps, masks = texture()
    before = maps.copy()
    metrics.pixel_metrics(maps, masks)
    stream = metrics.PixelMetrics()
    for scores, mask in zip(maps, masks, strict=True):
        stream.add(scores, mask)
    expected = stream.compute()
    assert (maps == before).all()
    maps[:] = 0  # what was added is the stream's own
    assert stream.compute() == expected


def test_spilled_maps_leave_little_in_memory(tmp_path, monkeypatch):
    for module in (collect, ranking):  # each worker has a block, and places of what it asks for
        monkeypatch.setattr(module, "WORKERS", 2)
    maps, masks = texture(count=60, side=256)
    expected = metrics.pixel_metrics(maps, masks)
    spilled = metrics.PixelMetrics(spill=tmp_path)
    for scores, mask in zip(maps, masks, strict=True):
        spilled.add(scores, mask)
    assert spilled.compute() == expected
    peaks = []
    for good in ([], Spill(tmp_path)):
        tracemalloc.start()
        defects = []
        for scores, mask in zip(maps, masks, strict=True):
            defects.append(find_defects(scores, mask))
            good.append(scores[~mask])
        Images(defects, good.__getitem__, most=collect.BLOCK).rank()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > maps.nbytes > 4 * peaks[1]


def test_a_disk_that_is_full_is_named(tmp_path):
    stream = metrics.PixelMetrics(spill=tmp_path)
    with no_file_over(0), pytest.raises(OSError, match=str(tmp_path)):
        stream.add(zeros(2, 2), DEFECT)
    with pytest.raises(ValueError, match="no images"):
        stream.compute()


def zeros(*shape):
    return np.zeros(shape)


DEFECT = np.array([[0, 1], [0, 0]])
GOOD = np.zeros((2, 2), int)
NAN = np.array([[0, 1], [np.nan, 0]])


@pytest.mark.parametrize("lazy", [list, iter], ids=["list", "iterator"])
@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        ([], [], "no images"),
        ([zeros(2, 2), NAN], [DEFECT, GOOD], "image 1.*1 scores.*nan at row 1, column 0"),
        ([zeros(2, 2) - np.inf], [DEFECT], "image 0.*4 scores.*-inf"),
        ([zeros(2, 2), zeros(2, 3)], [DEFECT, GOOD], r"image 1.*\[2, 3\].*\[2, 2\]"),
        ([zeros(1, 2, 2)], [DEFECT[None]], r"image 0.*\[1, 2, 2\].*\[H, W\]"),
        ([zeros(2, 2)], [GOOD], "defect pixel"),
        ([zeros(2, 2)], [GOOD + 1], "good pixel"),
        ([zeros(2, 2)], [DEFECT / 1], "image 0, mask: float64"),
        ([zeros(2, 2) + 1j], [DEFECT], "image 0, map: complex128"),
    ],
)
def test_bad_input_says_which_image_and_what(maps, masks, message, lazy):
    for metric in (metrics.pro, metrics.pixel_rocauc, metrics.pixel_metrics, metrics.pro_curve):
        with pytest.raises(ValueError, match=message):
            metric(lazy(maps), lazy(masks))


def test_maps_and_masks_must_pair_up():
    with pytest.raises(ValueError, match="2 maps but 1 masks"):
        metrics.pro([zeros(2, 2)] * 2, [DEFECT])
    with pytest.raises(ValueError, match="image 1: the masks end"):
        metrics.pro(iter([zeros(2, 2)] * 2), [DEFECT])
    with pytest.raises(ValueError, match="image 1: the maps end"):
        metrics.pro(iter([zeros(2, 2)]), [DEFECT] * 2)


def test_a_refused_image_is_not_counted_and_is_named():
    stream = metrics.PixelMetrics()
    stream.add(zeros(2, 2), DEFECT, name="bolt/000.png")
    before = stream.compute()
    with pytest.raises(ValueError, match=r"image 1 \(bolt/001.png\)"):
        stream.add(NAN, DEFECT, name="bolt/001.png")
    assert stream.compute() == before
    with pytest.raises(ValueError, match="no images"):
        metrics.PixelMetrics().compute()


@pytest.mark.parametrize("limit", [0, -0.1, 1.01, float("nan")])
def test_the_limit_is_a_rate(limit):
    for call in (metrics.PixelMetrics, lambda f: metrics.pro([zeros(2, 2)], [DEFECT], f)):
        with pytest.raises(ValueError, match="max_fpr"):
            call(limit)


@pytest.mark.slow
def test_equals_adeval_but_for_half_a_step():
    """Its exhaustive routine joins the tops of the steps, one a good pixel, where PRO is flat.

    That adds half a step's width, 1 / (2 good), to every rise of the overlap up to the limit.
    """
    au_pro = pytest.importorskip("adeval.au_pro", reason="needs adeval 1.1 for an outside opinion")
    maps, masks = texture()
    maps = maps.astype(np.float64)
    good = int((~masks).sum())
    fpr, hit, _ = metrics.pro_curve(maps, masks)
    for steps in (good // 20, good // 3, good):
        limit = steps / good
        theirs, _ = au_pro.calculate_au_pro(list(masks.astype(int)), list(maps), limit, good)
        risen = hit[fpr <= limit + 1e-12][-1] - hit[fpr == 0][-1]
        assert metrics.pro(maps, masks, limit) == pytest.approx(
            theirs - risen / (2 * good * limit), abs=1e-9
        )
