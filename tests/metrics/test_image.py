import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from spade_faiss import metrics
from tests.conftest import examples

scores_and_labels = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 2.0]) | st.floats(-1e9, 1e9), st.booleans()),
    min_size=2,
    max_size=40,
).filter(lambda pairs: len({label for _, label in pairs}) == 2)


@given(scores_and_labels)
@examples(300)
def test_equals_scikit_learn(pairs):
    scores, labels = map(np.array, zip(*pairs, strict=True))
    rocauc = metrics.image_rocauc(scores, labels)
    assert rocauc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert metrics.average_precision(scores, labels) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1, threshold = metrics.best_f1(scores, labels)
    harmonic = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert f1 == pytest.approx(harmonic.max(), abs=1e-12)
    called = scores >= threshold
    assert f1 == pytest.approx(2 * (called & labels).sum() / (called.sum() + labels.sum()))
    curve = metrics.roc_curve(scores, labels)
    assert auc(curve.fpr, curve.hit) == pytest.approx(rocauc, abs=1e-12)
    for fpr, hit, cut in zip(*curve, strict=True):
        called = scores >= cut
        assert (fpr, hit) == pytest.approx((called[~labels].mean(), called[labels].mean()))


def test_ties_count_half():
    assert metrics.image_rocauc([1, 2, 2, 3], [0, 0, 1, 1]) == 3.5 / 4
    assert metrics.image_rocauc([5.0, 5.0, 5.0], [1, 0, 0]) == 0.5


def test_best_f1_takes_the_lowest_of_equal_thresholds():
    # At 4: one of one, two missed. At 1: all three, three too many. Both 2 / 3 at 4 and 1 or less.
    assert metrics.best_f1([4, 1, 3, 3.5], [1, 1, 0, 0]) == (pytest.approx(2 / 3), 1)  # type: ignore[comparison-overlap]


def test_arguments_are_left_as_they_are():
    scores = np.array([3.0, 1.0, 2.0, 0.0])
    metrics.image_rocauc(scores, [1, 0, 0, 1])
    assert scores.tolist() == [3, 1, 2, 0]


def test_tensors():
    scores, labels = torch.tensor([0.1, 0.9, 0.4]), torch.tensor([0, 1, 1])
    assert metrics.image_rocauc(scores, labels) == 1


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, np.nan], [0, 1], "image 1: the score is nan"),
        ([-np.inf, 1.0], [0, 1], "image 0: the score is -inf"),
        ([1.0, 2.0], [0, 0], "hold 0 defects"),
        ([1.0, 2.0], [1, 1], "hold 2 defects"),
        ([], np.zeros(0, int), "0 labels"),
        ([1.0, 2.0], [0, 1, 1], r"\[2\].*\[3\]"),
        ([[1.0, 2.0]], [[0, 1]], r"must both be \[n\]"),
        ([1.0, 2.0], [0.0, 1.0], "labels: float64"),
        (["a", "b"], [0, 1], "scores: <U1"),
    ],
)
def test_bad_input(scores, labels, message):
    for metric in (
        metrics.image_rocauc,
        metrics.average_precision,
        metrics.best_f1,
        metrics.roc_curve,
    ):
        with pytest.raises(ValueError, match=message):
            metric(scores, labels)
