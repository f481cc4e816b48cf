"""Methods on video: each finds what moves otherwise, which no ignorant model does."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn, of the extra 'bench'")

from benchmarks.baselines import VIDEO_METHODS
from benchmarks.baselines.training import Schedule
from benchmarks.baselines.video import Footage, Stack, shrunk
from spade_faiss import SpadeError
from tests.benchmarks.clips import HEIGHT, WIDTH, clip

NETWORKS = {"AE2D": {"channels": 16}}
"""The methods that train a network on windows, and what is smaller here."""
GOOD = [clip(seed) for seed in range(6)]
PLANTED = range(15, 25)
WRONG = clip(100, planted=PLANTED)


def small(name, **schedule):
    setting = VIDEO_METHODS[name].budgets["small"]
    steps = Schedule(**{"steps": 60, "batch": 4, "rate": 2e-3} | schedule)
    return replace(setting, schedule=steps, size=(HEIGHT, WIDTH), **NETWORKS[name])


def fitted(name, lite, clips=GOOD, setting=None, checkpoint=None, seed=0):
    method = VIDEO_METHODS[name](lite, setting or small(name), seed=seed, checkpoint=checkpoint)
    method.fit(clips)
    return method


def ratio(scores):
    """Return the mean score of what is planted to that of frames whose windows hold none of it."""
    assert scores.shape == (40,) and scores.dtype == np.float32 and np.isfinite(scores).all()
    return scores[17:23].mean() / np.r_[scores[:6], scores[-6:]].mean()


@pytest.mark.parametrize("name", NETWORKS)
def test_by_its_training_a_network_lets_what_is_planted_stand_out(name, lite):
    found, blind = [], []
    for seed in range(3):
        method = fitted(name, lite, seed=seed)
        scores = method.scores(WRONG)
        np.testing.assert_array_equal(method.scores(WRONG), scores)
        found.append(ratio(scores))
        blind.append(ratio(fitted(name, lite, setting=small(name, steps=0)).scores(WRONG)))
    assert np.mean(found) > 1.2 and np.mean(found) > np.mean(blind) + 0.15


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_is_taken_up_where_it_was_to_the_same_end(name, lite, tmp_path):
    few = small(name, steps=5, batch=2, keep_every=2)
    whole = fitted(name, lite, setting=few)
    kept = tmp_path / "deep" / "kept.safetensors"
    first = fitted(name, lite, setting=few, checkpoint=kept)
    done = fitted(name, lite, setting=few, checkpoint=kept)
    assert (first.taken_up, done.taken_up) == (0, 5)
    for one in (first, done):
        np.testing.assert_array_equal(one.scores(WRONG), whole.scores(WRONG))
    assert fitted(name, lite, GOOD[1:], few, kept).taken_up == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_clips_too_short_are_refused(name, lite):
    few = small(name, steps=1)
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


def test_a_stack_has_all_frames_and_its_windows_lie_in_one_clip():
    clips = [clip(0, 7), clip(1, 3), clip(2, 9)]
    stack = Stack(clips, (32, 48))
    assert stack.frames.shape == (19, 32, 48, 1) and stack.lengths == [7, 3, 9]
    every = [shrunk(frame.image, (32, 48)) for one in clips for frame in one]
    np.testing.assert_array_equal(stack.frames, every)
    assert stack.starts(5).tolist() == [0, 1, 2, 10, 11, 12, 13, 14]
    np.testing.assert_allclose(stack.mean(), np.mean(every, 0), rtol=1e-5)
    assert Stack(clips, (16, 16), 3).frames.shape == (19, 16, 16, 3)
