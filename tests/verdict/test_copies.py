import cv2
import numpy as np
import pytest
from skimage import data

from spade_faiss import Spade
from spade_faiss.detector.neighbours import copies_in
from spade_faiss.index import Manifest
from spade_faiss.verdict.copies import copy_groups, copy_weights, find_copies
from tests.conftest import texture


def neighbours(distances):
    """Return a whole matrix of distances as `find_copies` takes it."""
    n = len(distances)
    ids = np.array([[j for j in range(n) if j != i] for i in range(n)])
    return np.take_along_axis(np.asarray(distances, np.float32), ids, 1), ids


def parts(sizes, within, between):
    """Return distances of shots: `within` those of one part, `between` those of others."""
    of = np.repeat(np.arange(len(sizes)), sizes)
    spread = np.random.default_rng(0).uniform(1, 1.15, (len(of), len(of)))
    return np.where(of[:, None] == of[None], within, between * np.maximum(spread, spread.T))


def test_shots_of_a_part_stand_before_a_step():
    found = find_copies(*neighbours(parts([1, 3, 1, 2, 1, 1], 0.5, 1.0)))
    assert [one.tolist() for one in found] == [[], [2, 3], [1, 3], [1, 2], [], [6], [5], [], []]
    assert copy_groups(found) == [[1, 2, 3], [5, 6]]
    assert copy_weights(found).sum() == pytest.approx(6)


def test_other_parts_are_none_though_some_are_nearer():
    assert copy_groups(find_copies(*neighbours(parts([1] * 12, 0, 1.0)))) == []
    assert copy_groups(find_copies(*neighbours(parts([1, 2, 1, 1, 1], 0.8, 1.0)))) == []


def test_a_kind_of_part_of_its_own_is_not_left_out_as_a_whole():
    assert copy_groups(find_copies(*neighbours(parts([12, 12, 12], 0.5, 1.0)))) == []
    # But stuck frames are one, however many there are.
    stuck = find_copies(*neighbours(parts([20, *[1] * 9], 1e-4, 1.0)))
    assert copy_groups(stuck) == [list(range(20))]
    assert copy_weights(stuck).sum() == pytest.approx(10)


def test_a_few_images_leave_something_to_compare_with():
    assert copy_groups(find_copies(*neighbours(np.zeros((2, 2))))) == []
    assert copy_groups(find_copies(*neighbours(parts([2, 1], 0.1, 1.0)))) == [[0, 1]]


def noisy(image, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


def shifted(image):
    return np.roll(image, 1, axis=1)


def saved(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1], 1)


def lighter(image):
    return np.clip(image * 1.05, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "again, preset",
    [
        (np.copy, "paper"),
        (saved, "paper"),
        (shifted, "paper"),
        (lighter, "paper"),
        (lambda image: noisy(image, 1), "paper"),
        (np.copy, "best"),
    ],
)
def test_a_copy_does_not_move_the_threshold(tiny, again, preset):
    good = texture("brick", 10)
    plain = Spade(tiny, preset=preset).fit(good)
    spade = Spade(tiny, preset=preset).fit([*good, again(good[3])])
    assert copy_groups(copies_in(spade.index_)) == [[3, 10]]
    assert spade.index_.manifest.copies == ((3, 10),)
    assert spade.image_threshold == pytest.approx(plain.image_threshold, rel=0.05)
    assert spade.quantile_ == plain.quantile_
    (note,) = [note for note in spade.notes if "show" in note and "one part" in note]
    assert "2 of the index's 11 images" in note and "image 3, image 10" in note


def test_every_part_shown_twice_is_as_shown_once(tiny):
    good = texture("gravel", 8)
    once = Spade(tiny).fit(good)
    twice = Spade(tiny).fit([*good, *(noisy(image, 1, i) for i, image in enumerate(good))])
    assert len(copy_groups(copies_in(twice.index_))) == 8
    assert twice.image_threshold == pytest.approx(once.image_threshold, rel=0.05)
    assert twice.quantile_ == once.quantile_


def test_copies_come_and_go_with_add_and_remove(tiny, tmp_path):
    good = texture("brick", 6)
    spade = Spade(tiny, preset="best").fit(good, tmp_path / "index")
    before = spade.image_threshold
    assert not Manifest.read(tmp_path / "index").copies
    spade.add([noisy(good[2], 1)])
    assert Manifest.read(tmp_path / "index").copies == ((2, 6),)
    assert spade.image_threshold == pytest.approx(before, rel=0.03)
    spade.remove(["image 2"])
    assert Manifest.read(tmp_path / "index").copies == () and spade.notes[0].startswith(
        "the threshold rests on 6 good images"
    )


def test_a_coreset_leaves_copies_out_too(tiny):
    good = texture("gravel", 8)
    plain = Spade(tiny, coreset=0.5).fit(good)
    again = Spade(tiny, coreset=0.5).fit([*good, good[0]])
    assert again.image_threshold == pytest.approx(plain.image_threshold, rel=0.1)


def test_images_that_are_all_alike_give_no_threshold(tiny):
    spade = Spade(tiny).fit(texture("brick", 1) * 3)
    assert spade.image_threshold is None
    assert any("no verdicts: its good images are all alike" in note for note in spade.notes)


def test_an_odd_good_image_is_named(tiny):
    good = texture("brick", 12)
    plain = Spade(tiny).fit(good)
    spade = Spade(tiny).fit([*good, texture("gravel", 1, seed=9)[0]])
    (note,) = [note for note in spade.notes if "look at it, or remove it" in note]
    assert note.startswith("image 12 scores")
    assert spade.image_threshold == pytest.approx(plain.image_threshold, rel=0.05)


def test_a_video_s_stuck_frames_count_once(tiny):
    wide = np.repeat(data.gravel()[:, :, None], 3, 2)
    moving = [wide[100:196, 21 * i : 21 * i + 96].copy() for i in range(16)]
    settings = {"resize": 96, "crop": 96}
    plain = Spade(tiny, **settings).fit(iter(moving))
    spade = Spade(tiny, **settings).fit(iter([*moving[:8], *[moving[7]] * 12, *moving[8:]]))
    assert copy_groups(copies_in(spade.index_)) == [list(range(7, 20))]
    assert spade.image_threshold == pytest.approx(plain.image_threshold, rel=0.05)


def test_a_threshold_is_never_that_of_an_index_before(tiny, tmp_path):
    good = texture("brick", 9)
    Spade(tiny, coreset=0.3).fit(good[:6], tmp_path / "index")
    spade = Spade.load(tmp_path / "index", backbone=tiny, exact=True)
    before = spade.image_threshold
    spade.add(good[6:])
    after = Spade.load(tmp_path / "index", backbone=tiny, exact=True).image_threshold
    assert spade.image_threshold == pytest.approx(after) and after != before
