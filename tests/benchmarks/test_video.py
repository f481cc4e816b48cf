"""Methods on video: each finds what moves otherwise, which no ignorant model does."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sklearn", reason="needs scikit-learn, of the extra 'bench'")

from benchmarks.baselines import VIDEO_METHODS
from benchmarks.baselines.itae import _turned
from benchmarks.baselines.memae import Memory, shrunk_weights
from benchmarks.baselines.training import Schedule
from benchmarks.baselines.video import Footage, Stack, shrunk
from spade_faiss import Spade, SpadeError
from spade_faiss.images import Frame
from spade_faiss.images.video import with_motion
from tests.benchmarks.clips import HEIGHT, WIDTH, WRONG, clip, ratio
from tests.benchmarks.killed import check_that_a_killed_training_ends_the_same

NETWORKS = {
    "AE-Conv3D": {"size": (HEIGHT, WIDTH), "patch": 12, "channels": 8},
    "MemAE": {"size": (HEIGHT, WIDTH), "patch": 12, "channels": 12, "rows": 50},
    "AE2D": {"size": (HEIGHT, WIDTH), "patch": 12, "channels": 16},
    "ITAE": {"size": (64, 64), "patch": 8, "channels": 8},
}
"""The methods that train a network on windows, and what is smaller here."""
STEPS = {"AE-Conv3D": 250, "MemAE": 250, "AE2D": 60, "ITAE": 500}
LEAST = {"AE-Conv3D": 1.5, "MemAE": 1.5, "AE2D": 1.5, "ITAE": 1.08}
"""How much higher what is planted is to score, after so many steps. ITAE's errors are in units of
good frames', over a frame that is hard to restore all over."""
GOOD = [clip(seed) for seed in range(6)]


def small(name, **schedule):
    setting = VIDEO_METHODS[name].budgets["small"]
    steps = Schedule(**{"steps": STEPS[name], "batch": 4, "rate": 2e-3} | schedule)
    return replace(setting, schedule=steps, **NETWORKS[name])


def fitted(name, lite, clips=GOOD, setting=None, checkpoint=None, seed=0):
    method = VIDEO_METHODS[name](lite, setting or small(name), seed=seed, checkpoint=checkpoint)
    method.fit(clips)
    return method


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "AE2D" else pytest.mark.slow) for name in STEPS]
)
def test_by_its_training_a_network_lets_what_is_planted_stand_out(name, lite):
    """On average over several seeds: how far one training gets hangs on its seed."""
    methods = [fitted(name, lite, seed=seed) for seed in range(3)]
    found = np.mean([ratio(method) for method in methods])
    blind = ratio(fitted(name, lite, setting=small(name, steps=0)))
    assert found > LEAST[name] and found - 1 > 2 * abs(blind - 1)
    scores = methods[0].scores(WRONG[0])
    np.testing.assert_array_equal(methods[0].scores(WRONG[0]), scores)


@pytest.mark.parametrize(
    "name",
    [
        "AE2D",
        *(pytest.param(one, marks=pytest.mark.slow) for one in NETWORKS if one != "AE2D"),
    ],
)
def test_a_training_is_taken_up_where_it_was_to_the_same_end(name, lite, tmp_path):
    few = small(name, steps=3, batch=2, keep_every=2)
    whole = fitted(name, lite, setting=few)
    kept = tmp_path / "deep" / "kept.safetensors"
    first = fitted(name, lite, setting=few, checkpoint=kept)
    done = fitted(name, lite, setting=few, checkpoint=kept)
    assert (first.taken_up, done.taken_up) == (0, 3)
    for one in (first, done):
        np.testing.assert_array_equal(one.scores(WRONG[0]), whole.scores(WRONG[0]))
    assert fitted(name, lite, GOOD[1:], few, kept).taken_up == 0


def judged(method):
    return method.scores(WRONG[0])


@pytest.mark.slow
def test_a_killed_training_ends_with_the_very_scores_of_one_that_was_not(tmp_path):
    check_that_a_killed_training_ends_the_same(__name__, "MemAE", 8, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_papers_networks_can_be_trained(name, lite):
    setting = VIDEO_METHODS[name].budgets["paper"]
    assert setting.schedule.steps >= 16_000
    schedule = replace(setting.schedule, steps=1, batch=1)
    hop = {"AE2D": 10, "ITAE": 1}.get(name, 16)  # the frames that a window has
    own = replace(setting, schedule=schedule, size=(HEIGHT, HEIGHT), hop=hop)
    scores = fitted(name, lite, GOOD[:2], own).scores(WRONG[0])
    assert scores.shape == (40,) and scores.std() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_clips_too_short_are_refused(name, lite):
    few = small(name, steps=0)
    short = VIDEO_METHODS[name].length - 1
    with pytest.raises(SpadeError, match="no frames to learn from"):
        fitted(name, lite, [Footage("empty", list)], few)
    if short:
        with pytest.raises(SpadeError, match="no good clip has"):
            fitted(name, lite, [clip(0, short)], few)
    with pytest.raises(SpadeError, match=f"brief has {short} frames"):
        fitted(name, lite, setting=few).scores(clip(0, short, name="brief"))


@pytest.mark.parametrize("length", [10, 11, 14, 15, 16, 31])
def test_each_frame_of_a_clip_is_in_a_window(lite, length):
    method = fitted("AE2D", lite, setting=replace(small("AE2D", steps=0), hop=5))
    scores = method.scores(clip(0, length))
    assert scores.shape == (length,)
    places = [place for batch, _ in method._batches(clip(0, length)) for place in batch]
    assert places[0] == 0 and places[-1] == length - 10
    assert all(0 < second - first <= 5 for first, second in pairwise(places))


def test_a_frame_s_score_is_the_mean_of_its_windows(lite):
    method = fitted("AE2D", lite, setting=replace(small("AE2D", steps=0), hop=5, patch=0))
    frames = np.stack([shrunk(one.image, (HEIGHT, WIDTH)) for one in clip(0, 15)])
    windows = np.stack([frames[:10], frames[5:]])
    first, second = method.errors(method._windows(windows)).mean((2, 3)).numpy()
    expected = np.r_[first[:5], (first[5:] + second[:5]) / 2, second[5:]]
    np.testing.assert_allclose(method.scores(clip(0, 15)), expected, rtol=1e-5)


def test_a_stack_has_all_frames_and_its_windows_lie_in_one_clip():
    clips = [clip(0, 7), clip(1, 3), clip(2, 9)]
    stack = Stack(clips, (32, 48))
    assert stack.frames.shape == (19, 32, 48, 1) and stack.lengths == [7, 3, 9]
    every = [shrunk(frame.image, (32, 48)) for one in clips for frame in one]
    np.testing.assert_array_equal(stack.frames, every)
    assert stack.starts(5).tolist() == [0, 1, 2, 10, 11, 12, 13, 14]
    np.testing.assert_allclose(stack.mean(), np.mean(every, 0), rtol=1e-5)
    assert Stack(clips, (16, 16), 3).frames.shape == (19, 16, 16, 3)


def test_small_weights_are_shrunk_away_and_the_others_sum_to_one():
    weights = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]])
    kept = shrunk_weights(weights, 0.2)
    expected = [[0.5 / 0.8, 0.3 / 0.8, 0, 0], [1, 0, 0, 0]]
    np.testing.assert_allclose(kept, expected, rtol=1e-5)


def test_a_memory_gives_a_row_back_by_its_direction():
    memory = Memory(5, 8, sharpness=100.0)
    codes = torch.randn(2, 8, 1, 3, 3)
    codes[1, :, 0, 2, 1] = 7 * memory.rows[3].detach()
    mixed, weights = memory(codes)
    assert mixed.shape == codes.shape and weights.shape == (18, 5)
    np.testing.assert_allclose(mixed[1, :, 0, 2, 1].detach(), memory.rows[3].detach(), rtol=1e-4)
    np.testing.assert_allclose(weights.sum(1).detach(), 1, rtol=1e-5)


def test_what_is_foretold_weighs_the_less_the_later_it_is(lite):
    method = fitted("AE-Conv3D", lite, setting=small("AE-Conv3D", steps=0))
    parts = {"encoder": nn.Identity(), "back": nn.Identity(), "ahead": nn.Identity()}
    method.trained = nn.ModuleDict(parts)

    def loss(late):
        windows = torch.zeros(1, 1, 32, 4, 4)
        windows[:, :, 16 + late] = 1
        return float(method.loss(windows, np.random.default_rng(0)))

    assert loss(0) == pytest.approx(16 * loss(15)) and loss(0) == pytest.approx(2 * loss(8))


def test_a_frame_is_made_grey_and_turned():
    image = torch.rand(3, 4, 4)
    grey = image.mean(0)
    np.testing.assert_allclose(_turned(image, 0)[0], grey)
    np.testing.assert_allclose(_turned(image, 1)[0], np.rot90(grey))
    np.testing.assert_allclose(_turned(image[None], 2)[0, 0], np.rot90(grey, 2))


def test_errors_are_in_units_of_those_of_good_frames(lite):
    method = fitted("ITAE", lite, GOOD[:1], replace(small("ITAE", steps=0), patch=0))
    assert method.scores(GOOD[0]).mean() == pytest.approx(1, rel=1e-3)


@pytest.mark.slow
def test_spade_learns_some_frames_a_second_and_sees_motion(tiny):
    for name, motion in (("SPADE", False), ("SPADE-video", True)):
        setting = replace(VIDEO_METHODS[name].budgets["small"], fps=2.0, k=3)
        method = VIDEO_METHODS[name](tiny, setting)
        method.fit(GOOD[:2])
        frames = [with_motion(one) if motion else one for one in GOOD[:2]]
        some = [frame for one in frames for i, frame in enumerate(one) if i % 5 == 0]
        spade = Spade(tiny, preset=setting.preset, k=3, crop=None).fit(some, calibrate=False)
        results = list(spade.query(with_motion(WRONG[0]) if motion else iter(WRONG[0])))
        expected = [one.peak if motion else one.descriptor_score for one in results]
        np.testing.assert_allclose(method.scores(WRONG[0]), expected, rtol=1e-5)
        assert len(method._spade.index_) == 16
        if motion:
            assert ratio(method) > 1.3


def test_frames_are_dropped_by_their_seconds():
    from benchmarks.baselines.spade_video import _sampled

    image = np.zeros((2, 2, 3), np.uint8)
    frames = [Frame(str(i), image, i / 25) for i in range(50)]
    assert [one.name for one in _sampled(frames, 5.0)] == [str(i) for i in range(0, 50, 5)]
    assert len(list(_sampled(frames, 100.0))) == 50
