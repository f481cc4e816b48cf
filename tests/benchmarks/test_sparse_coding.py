"""TSC and StackRNN: sparse codes of patches, found from those of the frame before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn", reason="needs scikit-learn, of the extra 'bench'")

from sklearn.decomposition import sparse_encode

from benchmarks.baselines import VIDEO_METHODS
from benchmarks.baselines.sparse_coding import soft_thresholded
from benchmarks.baselines.tsc import _largest_eigenvalue
from benchmarks.baselines.video import Footage
from spade_faiss import SpadeError
from spade_faiss.images import Frame
from tests.benchmarks.clips import WRONG, clip, ratio

NAMES = "TSC", "StackRNN"
GOOD = [clip(seed) for seed in range(4)]


def small(name, **schedule):
    setting = VIDEO_METHODS[name].budgets["small"]
    steps = replace(setting.schedule, **{"steps": 100} | schedule)
    return replace(setting, schedule=steps, atoms=128, every=2, grids=(1, 2, 4))


def fitted(name, network, clips=GOOD, setting=None, checkpoint=None, seed=0):
    method = VIDEO_METHODS[name](network, setting or small(name), seed=seed, checkpoint=checkpoint)
    method.fit(clips)
    return method


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_planted_stands_out_on_average_over_seeds(name, lite):
    assert np.mean([ratio(fitted(name, lite, seed=seed)) for seed in range(3)]) > 1.25


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_was_shown_as_good_stands_out_less(name, lite):
    known = [clip(200 + seed, planted=range(40)) for seed in range(4)]
    assert ratio(fitted(name, lite, [*GOOD[:2], *known])) < ratio(fitted(name, lite)) - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_errors_of_good_clips_that_it_was_not_shown(name, lite):
    new = clip(300)
    blind, trained = (
        fitted(name, lite, setting=small(name, steps=steps)).scores(new).mean()
        for steps in (0, 100)
    )
    assert trained < 0.9 * blind


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_training_is_taken_up_where_it_was_to_the_same_end(name, lite, tmp_path):
    few = small(name, steps=3, batch=2, keep_every=2)
    clips = GOOD[:2]
    whole = fitted(name, lite, clips, few)
    kept = tmp_path / "deep" / "kept.safetensors"
    first = fitted(name, lite, clips, few, kept)
    done = fitted(name, lite, clips, few, kept)
    assert (first.taken_up, done.taken_up) == (0, 3)
    for one in (first, done):
        np.testing.assert_array_equal(one.scores(WRONG[0]), whole.scores(WRONG[0]))
    assert fitted(name, lite, clips[1:], few, kept).taken_up == 0
    other = fitted(name, lite, clips, few, seed=1)
    assert not np.allclose(other.scores(WRONG[0]), whole.scores(WRONG[0]), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_papers_networks_can_be_trained(name, lite):
    setting = VIDEO_METHODS[name].budgets["paper"]
    assert setting.schedule.steps >= 10_000
    schedule = replace(setting.schedule, steps=1, batch=1)
    own = replace(setting, schedule=schedule, layers=3)
    scores = fitted(name, lite, [*GOOD, *WRONG], own).scores(WRONG[0])
    assert scores.shape == (40,) and scores.std() > 0


def test_clips_too_short_are_refused(lite):
    few = small("TSC", steps=0)
    with pytest.raises(SpadeError, match="no frames to learn from"):
        fitted("TSC", lite, [Footage("empty", list)], few)
    with pytest.raises(SpadeError, match="no good clip has 19 frames"):
        fitted("TSC", lite, [clip(0, 18)], few)
    method = fitted("TSC", lite, [clip(0, 19)], few)
    assert method.scores(clip(0, 1)).shape == (1,)
    with pytest.raises(SpadeError, match="brief has no frames"):
        method.scores(clip(0, 0, name="brief"))


@pytest.mark.parametrize("pull", [0.0, 0.7])
def test_codes_are_those_that_cost_least(pull):
    """The change from the code before is the error of more inputs, which no atoms share."""
    rng = np.random.default_rng(0)
    inputs, before = rng.normal(size=(5, 8)), rng.normal(size=(5, 12))
    atoms = rng.normal(size=(12, 8))
    more = np.hstack([inputs, pull**0.5 * before]), np.hstack([atoms, pull**0.5 * np.eye(12)])
    expected = sparse_encode(*more, algorithm="lasso_cd", alpha=0.3, max_iter=10_000)
    step = 1 / (np.linalg.eigvalsh(atoms @ atoms.T)[-1] + pull)
    tensors = [torch.from_numpy(one) for one in (inputs, before, np.full((5, 1), pull), atoms)]
    codes = soft_thresholded(*tensors, torch.tensor(step), 0.3, layers=3000)
    np.testing.assert_allclose(codes, expected, atol=1e-3)
    assert (codes == 0).any()


def test_the_largest_eigenvalue_is_found():
    rng = np.random.default_rng(0)
    for count in (3, 20, 100):
        atoms = rng.normal(size=(count, 10))
        found = float(_largest_eigenvalue(torch.from_numpy(atoms)))
        assert 0.9 < found / np.linalg.eigvalsh(atoms.T @ atoms)[-1] < 1 + 1e-9


def test_a_frame_is_described_by_the_mean_features_of_the_cells_of_grids(tiny):
    setting = replace(small("TSC", steps=0), grids=(1, 2))
    method = VIDEO_METHODS["TSC"](tiny, setting)
    images = np.random.default_rng(0).integers(0, 255, (7, 64, 128, 3), dtype=np.uint8)
    footage = Footage("noise", lambda: [Frame("", one, 0.0) for one in images])
    level = tiny(images[::3]).levels[-1].numpy()
    height, width = level.shape[1] // 2, level.shape[2] // 2
    cells = level.reshape(len(level), 2, height, 2, width, -1).mean((2, 4))
    expected = np.concatenate([level.mean((1, 2))[:, None], cells.reshape(len(level), 4, -1)], 1)
    found = list(method._described(footage, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_inputs_are_of_mean_square_1_and_typical_changes_of_similarity_1_over_e(lite):
    method = fitted("TSC", lite, GOOD[:1], small("TSC", steps=0))
    inputs = method._inputs(np.stack(list(method._described(GOOD[0], 2))))
    np.testing.assert_allclose(inputs.mean((0, 1)), 0, atol=1e-4)
    assert float(inputs.square().sum(-1).mean()) == pytest.approx(1, rel=1e-3)
    changes = (inputs[1:] - inputs[:-1]).square().sum(-1)
    assert -float(method._similarity(inputs[:-1], inputs[1:]).log().mean()) == pytest.approx(
        float(changes.mean()) / method._change, rel=1e-3
    )
    assert method._change == pytest.approx(float(changes[:11].mean()), rel=1e-3)
    np.testing.assert_array_equal(method._similarity(inputs, inputs), 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_is_the_mean_over_grids_of_the_worst_patch(name, lite):
    method = fitted(name, lite, GOOD[:1], small(name, steps=1))
    still = Footage("still", lambda: [next(iter(GOOD[0]))] * 60)
    scores = method.scores(still)
    inputs = method._inputs(next(method._described(still, 1)))
    codes = method.trained.first(inputs)
    for _ in range(70):
        codes = method.trained.encode(inputs, codes, torch.ones(21, 1))
    errors = (inputs - method.trained.decode(codes)).square().sum(1).numpy()
    expected = (errors[0] + errors[1:5].max() + errors[5:].max()) / 3
    assert scores[-1] == pytest.approx(expected, rel=1e-4)
