import numpy as np
import pytest

from spade_faiss.datasets import load_stc
from spade_faiss.errors import SpadeError
from tests.command import unprivileged


def make(root, clips, videos=("01_001.avi", "02_001.avi")):
    """Write empty files in the layout; `clips` holds each clip's labels."""
    (root / "training/videos").mkdir(parents=True)
    for name in videos:
        (root / "training/videos" / name).touch()
    (root / "testing/test_frame_mask").mkdir(parents=True)
    for name, labels in clips.items():
        folder = root / "testing/frames" / name
        folder.mkdir(parents=True)
        for i in range(len(labels)):
            (folder / f"{i:03}.jpg").touch()
        np.save(root / "testing/test_frame_mask" / f"{name}.npy", np.array(labels, np.int8))
    return root


CLIPS = {"01_0014": [0, 0, 1], "01_0015": [1, 1], "02_0128": [1, 0]}


def reported(root, names=None):
    problems = []
    scenes = load_stc(root, names, lambda *line: problems.append(line))
    return scenes, problems


def test_scenes_are_the_digits_before_the_underscore(tmp_path):
    root = make(tmp_path, CLIPS, ["01_001.avi", "01_002.avi", "02_001.avi", "13_001.avi"])
    (root / "training/videos/.02_002.avi").touch()
    (root / "training/videos/notes.txt").touch()
    (root / "testing/frames/02_0128/.000.jpg").touch()
    first, second = load_stc(root)
    assert (first.name, second.name) == ("01", "02")
    assert [path.name for path in first.videos] == ["01_001.avi", "01_002.avi"]
    assert [(clip.name, clip.labels) for clip in first.clips] == [
        ("01_0014", (False, False, True)),
        ("01_0015", (True, True)),
    ]
    assert [str(path.relative_to(root)) for path in first.frames][:2] == [
        "testing/frames/01_0014/000.jpg",
        "testing/frames/01_0014/001.jpg",
    ]
    assert len(first.files) == 2 + 5 + 2 and second.clips[0].pixels() is None
    assert [scene.name for scene in load_stc(root, ["02"])] == ["02"]
    with pytest.raises(SpadeError, match="no scene 07; there are: 01, 02"):
        load_stc(root, ["07"])


def test_frames_past_the_thousandth_stay_in_order(tmp_path):
    root = make(tmp_path, {"01_0014": [0] * 1002 + [1]}, ["01_001.avi"])
    frames = load_stc(root)[0].clips[0].frames
    assert [path.stem for path in frames] == [f"{i:03}" for i in range(1003)]


def test_masks_that_do_not_fit_refuse_their_scene(tmp_path):
    root = make(
        tmp_path,
        CLIPS | {"03_0001": [0, 1], "04_0001": [0, 0], "05_0001": [0, 1], "06_0001": [0, 1]},
        [f"{i:02}_001.avi" for i in (1, 2, 3, 4, 6)],
    )
    masks = root / "testing/test_frame_mask"
    np.save(masks / "01_0014.npy", np.zeros(5, np.int8))
    (masks / "01_0015.npy").unlink()
    np.save(masks / "03_0001.npy", np.array([{"no": 1}, None]), allow_pickle=True)
    np.save(masks / "09_0001.npy", np.zeros(3, np.int8))
    (root / "testing/test_pixel_mask").mkdir()
    np.save(root / "testing/test_pixel_mask/06_0001.npy", np.zeros((3, 8, 8), np.uint8))
    scenes, problems = reported(root)
    assert [scene.name for scene in scenes] == ["02"]
    assert [name.removeprefix(f"{root}/testing/") for name, _ in problems] == [
        "test_frame_mask/09_0001.npy",
        "test_frame_mask/01_0014.npy",
        "test_frame_mask/01_0015.npy",
        "test_frame_mask/03_0001.npy",
        "scene 04",
        "scene 05",
        "test_pixel_mask/06_0001.npy",
    ]
    whys = [why for _, why in problems]
    assert "passed over" in whys[0]
    assert whys[1] == "the mask is of 5 frames and the clip has 3; scene 01 is left out"
    assert "no such mask" in whys[2] and "cannot be read" in whys[3]
    assert "all its frames are good" in whys[4] and "training/videos" in whys[5]
    assert whys[6] == "the mask is of 3 frames and the clip has 2; scene 06 is left out"
    with pytest.raises(SpadeError, match="without a clip"):
        load_stc(root)


def test_what_is_among_the_videos_and_not_read_is_noted(tmp_path):
    root = make(tmp_path, CLIPS, ["01_001.avi", "02_001.avi", "03.avi", "02_002.h264", "notes.txt"])
    notes = []
    load_stc(root, on_note=notes.append)
    (note,) = notes
    assert note.startswith("passed over 2 files") and "03.avi" in note and "02_002.h264" in note


def test_a_clip_that_cannot_be_read_leaves_its_scene_out(open_folder):
    root = make(open_folder / "stc", CLIPS)
    for path in (root, *root.rglob("*")):
        path.chmod(0o777)
    clip = root / "testing/frames/01_0015"
    clip.chmod(0)
    with unprivileged():
        scenes, problems = reported(root)
    assert [scene.name for scene in scenes] == ["02"]
    assert problems == [(str(clip), "cannot be read (Permission denied); scene 01 is left out")]


def test_another_layout_is_refused(tmp_path):
    with pytest.raises(SpadeError, match="training/videos"):
        load_stc(tmp_path)
    (tmp_path / "training/videos").mkdir(parents=True)
    (tmp_path / "testing/frames").mkdir(parents=True)
    with pytest.raises(SpadeError, match="holds no clips"):
        load_stc(tmp_path)
