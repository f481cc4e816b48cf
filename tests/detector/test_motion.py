"""Motion as one more level: who walks where walkers were seen is good; who is faster is not."""

import json

import numpy as np
import pytest

from spade_faiss import Spade, SpadeError
from spade_faiss.images import Frame
from spade_faiss.images.video import open_sources, read_frames, with_motion
from spade_faiss.verdict.notes import STILL
from tests.command import TINY, done, one_line, run
from tests.images.video.videos import frame, street, walk, write_video

SMALL = {"resize": 96, "crop": None, "k": 8}


def fast(view, count):
    """Return frames of someone who looks as a walker does, three times as fast."""
    return [frame(view, 10 + 4.5 * i, noise=100 + i)[0] for i in range(count)]


@pytest.fixture(scope="module")
def street_videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("street")
    view = street()
    for i in range(2):
        write_video(folder / "train" / f"{i}.avi", walk(view, 64, 10 + 30 * i))
    write_video(folder / "new" / "walks.avi", walk(view, 20, 25))
    write_video(folder / "new" / "hurries.avi", fast(view, 20))
    return folder


def learn(network, folder, index=None, **settings):
    videos = sorted((folder / "train").glob("*.avi"))
    frames = (one for path in videos for one in read_frames(path, 12, motion=True))
    return Spade(network, **SMALL, **settings).fit(frames, index)


@pytest.fixture(scope="module")
def fitted(tiny, street_videos, tmp_path_factory):
    index = tmp_path_factory.mktemp("index") / "index"
    return learn(tiny, street_videos, index, preset="video"), index


def peaks(spade, path):
    """Return the largest value of each frame's map, from where there is a frame before it."""
    return [one.peak for one in spade.query(read_frames(path, motion=True))][3:]


def test_who_is_faster_is_found_by_motion_alone(tiny, street_videos, fitted):
    spade, _ = fitted
    walks, hurries = (street_videos / "new" / f"{name}.avi" for name in ("walks", "hurries"))
    assert np.median(peaks(spade, hurries)) > 4 * np.median(peaks(spade, walks))
    still = learn(tiny, street_videos, preset="video", motion=False)
    assert np.median(peaks(still, hurries)) < 2 * np.median(peaks(still, walks))


def test_ways_are_on_one_scale(tiny, fitted):
    """Else what hardly ever moves upwards would be alarmed at by the noise of the flow."""
    spade, _ = fitted
    assert len({*spade.index_.scales[4].tolist()}) == 1
    level = spade.index_.levels[3]
    assert np.sqrt(np.square(level.std(0)).sum()) == pytest.approx(1, rel=1e-3)


def test_motion_is_the_last_level_and_the_index_keeps_it(street_videos, fitted):
    spade, index = fitted
    assert spade.settings.preset == "video" and spade.settings.sigma == 8
    manifest = json.loads((index / "manifest.json").read_text())
    assert manifest["motion"] and manifest["version"] == 2
    assert [one["channels"] for one in manifest["levels"]] == [8, 16, 64, 4]
    assert (manifest["levels"][3]["height"], manifest["levels"][3]["width"]) == (12, 16)
    again = Spade.load(index)
    assert again.settings.motion and again.settings.sigma == 8
    path = street_videos / "new" / "hurries.avi"
    np.testing.assert_array_equal(peaks(again, path), peaks(spade, path))


def test_an_index_without_motion_says_nothing_of_it(tiny, street_videos, tmp_path):
    learn(tiny, street_videos, tmp_path / "index")
    assert "motion" not in json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert not Spade.load(tmp_path / "index").settings.motion


def test_a_match_of_the_level_of_motion_is_a_good_patch(street_videos, fitted):
    spade, _ = fitted
    *_, last = spade.query(read_frames(street_videos / "new" / "hurries.avi", motion=True))
    fastest = np.unravel_index(last.distances[3].argmax(), last.distances[3].shape)
    row = last.matches[3][fastest]
    level = spade.index_.levels[3]
    near = np.linalg.norm(level - level[row], axis=1)
    assert near.min() == 0 and row < len(level)
    here = spade.index_.layouts[3].patches
    assert row // here in last.neighbours


def test_an_image_alone_is_looked_at_without_motion_and_says_so(street_videos, fitted):
    spade, _ = fitted
    frames = list(read_frames(street_videos / "new" / "hurries.avi", motion=True))
    moving, alone = spade.query([frames[-1], frames[-1].image])
    assert STILL in alone.notes and STILL not in moving.notes
    assert alone.peak < moving.peak


def test_images_come_and_go(tiny, street_videos, tmp_path):
    spade = learn(tiny, street_videos, tmp_path / "index", preset="video")
    n = len(spade.index_)
    more = list(read_frames(street_videos / "new" / "walks.avi", 8, motion=True))
    assert spade.add(more) == len(more)
    own = spade.index_.rows(3, n + 2, n + 3)
    assert own.shape == (12 * 16, 4) and own.max() > 0
    again = Spade.load(tmp_path / "index")
    assert again.settings.motion and len(again.index_) == n + len(more)
    assert spade.remove([one.name for one in more]) == len(more)
    assert len(spade.index_) == n and spade.settings.motion


def test_a_moving_frame_is_no_copy_because_others_are_as_still(street_videos, fitted):
    """Copies are told by the network's coarsest level: most of a street does not move."""
    spade, _ = fitted
    assert len(spade.index_.manifest.copies) < len(spade.index_)


def test_what_shows_no_motion_is_refused(tiny, street_videos, fitted):
    spade, _ = fitted
    images = walk(street(), 6, 30)
    with pytest.raises(SpadeError, match="none of the images has a frame before it: give videos"):
        Spade(tiny, preset="video", **SMALL).fit(images)
    with pytest.raises(SpadeError, match="images show no motion"):
        spade.calibrate(images)
    with pytest.raises(SpadeError, match="leave out `views`"):
        Spade(tiny, preset="video", mirror=True)


def test_frames_of_a_camera_need_no_file(fitted):
    spade, _ = fitted
    frames = (Frame(str(i), one, i / 24) for i, one in enumerate(fast(street(), 12)))
    found = list(spade.query(with_motion(frames)))
    assert not any(STILL in one.notes for one in found)
    assert found[-1].peak > 1.5 * found[0].peak


def test_the_command_line_learns_and_judges_by_motion(street_videos, fitted, tmp_path):
    spade, _ = fitted
    index, out = tmp_path / "index", tmp_path / "out"
    given = ("--preset", "video", "--fps", "12", "--resize", "96", "-k", "8", *TINY)
    done("build", street_videos / "train", "--index", index, *given)
    manifest = json.loads((index / "manifest.json").read_text())
    framing = manifest["framing"]
    assert (framing["height"], framing["width"], framing["crop"]) == (96, 128, False)
    path = street_videos / "new" / "hurries.avi"
    ended = done("query", index, path, "--out", out, "--worst", "1", "--explain", "--json")
    printed = json.loads(ended.stdout)
    scores = [row["score"] for row in printed["images"]]
    expected = [one.peak for one in spade.query(read_frames(path, motion=True))]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert "motion" not in json.dumps(printed["notes"])
    assert "12x16x4 (the last is motion)" in done("info", index).stdout
    one_line(
        run("build", street_videos / "train", "--index", tmp_path / "o", "--views", "flip", *given),
        "leave out --views",
    )


def test_a_folder_of_videos_is_seen_whole_unless_a_crop_is_asked_for(street_videos, tmp_path):
    for name, given, crop in (("whole", (), False), ("cut", ("--crop", "64"), True)):
        done(
            *("build", street_videos / "train", "--index", tmp_path / name, "--fps", "4"),
            *("--resize", "96", *given, *TINY),
        )
        framing = json.loads((tmp_path / name / "manifest.json").read_text())["framing"]
        assert framing["crop"] is crop
    done(
        *("build", street_videos, "--index", tmp_path / "lines", "--each", "--fps", "4"),
        *("--resize", "96", *TINY),
    )
    framing = json.loads((tmp_path / "lines/train/manifest.json").read_text())["framing"]
    assert (framing["width"], framing["crop"]) == (128, False)


def test_sources_come_with_motion_if_that_is_asked_for(street_videos):
    from spade_faiss.images import Found

    path = street_videos / "new" / "walks.avi"
    found = [Found(path, path, None)]
    assert all(one.before for one in open_sources(found, 12, pytest.fail, motion=True))
    assert not any(one.before for one in open_sources(found, 12, pytest.fail))
