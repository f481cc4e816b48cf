import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from spade_faiss import Spade, SpadeError
from spade_faiss.images import Framing, load_images
from spade_faiss.images.video import is_video, open_sources, read_frames
from spade_faiss.images.video.read import find_sources
from spade_faiss.index import Index
from tests.command import TINY, done, one_line, problems, run
from tests.images.video.videos import SIZE, damage, encode, frame, street, walk, write_video

SMALL = (*TINY, "--resize", "64", "--crop", "64")


def numbered(count):
    """Frames that differ in one channel only, so that swapped channels show."""
    return [np.full((64, 80, 3), (4 * i, 20, 90), np.uint8) for i in range(count)]


@pytest.mark.parametrize(
    "name, codec",
    [
        ("a.avi", "MJPG"),
        ("b.mp4", "mp4v"),
        ("c.mov", "mp4v"),
        ("d.mkv", "MJPG"),
    ],
)
def test_every_frame_comes_once_in_order(tmp_path, name, codec):
    path = write_video(tmp_path / name, numbered(40), codec=codec)
    frames = list(read_frames(path))
    assert [one.name for one in frames] == [f"{path}#{i:06d}" for i in range(40)]
    assert all(one.image.shape == (64, 80, 3) and one.image.dtype == np.uint8 for one in frames)
    colours = np.array([one.image.mean((0, 1)) for one in frames])
    np.testing.assert_allclose(colours, [(4 * i, 20, 90) for i in range(40)], atol=6)
    np.testing.assert_allclose([one.seconds for one in frames], np.arange(40) / 24, atol=2e-3)


@pytest.mark.parametrize(
    "fps, numbers",
    [
        (3, [0, 8, 16, 24, 32]),
        (1, [0, 24]),
        (24, range(40)),
        (1000, range(40)),
        (0.1, [0]),
        (
            16,
            [
                0,
                2,
                3,
                5,
                6,
                8,
                9,
                11,
                12,
                14,
                15,
                17,
                18,
                20,
                21,
                23,
                24,
                26,
                27,
                29,
                30,
                32,
                33,
                35,
                36,
                38,
                39,
            ],
        ),
    ],
)
@pytest.mark.parametrize("name", ["a.avi", "a.mkv"])
def test_frames_are_sampled_by_time(tmp_path, name, fps, numbers):
    path = write_video(tmp_path / name, numbered(40))
    assert [int(one.name[-6:]) for one in read_frames(path, fps)] == list(numbers)


def test_a_variable_rate_is_sampled_by_its_time_stamps(tmp_path):
    path = tmp_path / "slow then fast.gif"
    pauses = [1000] * 5 + [100] * 20  # milliseconds
    images = [Image.fromarray(image) for image in numbered(25)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=pauses)
    shown = np.cumsum([0, *pauses[:-1]]) / 1000
    frames = list(read_frames(path))
    np.testing.assert_allclose([one.seconds for one in frames], shown, atol=0.02)
    assert [int(one.name[-6:]) for one in read_frames(path, 1)] == [0, 1, 2, 3, 4, 5, 15]


def test_a_rate_of_nothing_is_refused(tmp_path):
    path = write_video(tmp_path / "a.avi", numbered(3))
    for fps in (0, -1, float("nan"), float("inf"), 1e308):
        with pytest.raises(SpadeError, match="more than 0"):
            next(read_frames(path, fps))


@pytest.mark.parametrize("name", ["cut.avi", "cut.mkv"])
def test_a_truncated_video_gives_the_frames_it_has(tmp_path, name):
    whole = write_video(tmp_path / name, numbered(40)).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    said = []
    frames = list(read_frames(tmp_path / name, None, lambda *line: said.append(line)))
    assert 8 < len(frames) < 30
    np.testing.assert_allclose(
        [one.image[..., 0].mean() for one in frames[:-1]], 4 * np.arange(len(frames) - 1), atol=6
    )
    assert said == [(str(tmp_path / name), said[0][1])]
    assert f"{len(frames)} of 40 frames" in said[0][1]
    with pytest.warns(UserWarning, match="cut short"):
        list(read_frames(tmp_path / name))


def test_what_is_no_video_is_explained_in_one_line(tmp_path, capfd):
    write_video(tmp_path / "whole.mp4", numbered(20), codec="mp4v")
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.avi").write_text("hello\n" * 100)
    (tmp_path / "empty.mkv").write_bytes(b"")
    for name, why in (
        ("cut.mp4", "cut short"),
        ("text.avi", "cannot be opened"),
        ("empty.mkv", "cannot be opened"),
        ("gone.mov", "no such"),
    ):
        with pytest.raises(SpadeError, match=why) as caught:
            list(read_frames(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    problems = []
    from spade_faiss.images import find_images
    from spade_faiss.images.video import VIDEO_SUFFIXES

    found = find_images([tmp_path], print, VIDEO_SUFFIXES)
    sources = list(open_sources(found, None, lambda *line: problems.append(line)))
    assert len(sources) == 20 and all(is_video(one.path) for one in found)
    assert [Path(name).name for name, _ in problems] == ["cut.mp4", "empty.mkv", "text.avi"]


def resident():
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_video(tmp_path):
    path = tmp_path / "long.avi"
    image = street()
    large = cv2.resize(image, (480, 360))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 24, (480, 360))  # type: ignore[attr-defined]
    for _ in range(600):
        writer.write(large)
    writer.release()
    framing = Framing.choose(64, 64, (360, 480))
    seen, after_some, most = 0, 0, 0
    for loaded in load_images(read_frames(path), framing):
        seen += 1
        assert loaded.image.shape == (360, 480, 3)
        if seen == 100:
            after_some = resident()
        elif seen > 100:
            most = max(most, resident())
    assert seen == 600
    # The 500 frames between are 259 MB.
    assert most - after_some < 40 << 20


def test_a_stream_is_read_a_few_images_ahead():
    made = []

    def images():
        for i in range(200):
            made.append(i)
            yield np.full((64, 64, 3), i, np.uint8)

    framing = Framing.choose(64, 64, (64, 64))
    for loaded in load_images(images(), framing, workers=2):
        assert int(loaded.image[0, 0, 0]) == loaded.position
        assert len(made) <= loaded.position + 1 + 5
    assert len(made) == 200


@pytest.mark.parametrize("crop", [64, None])
def test_a_stream_gives_the_index_that_a_list_gives(tiny, tmp_path, crop):
    path = write_video(tmp_path / "a.avi", walk(street(), 20))
    frames = list(read_frames(path))
    streamed = Spade(tiny, resize=64, crop=crop).fit(read_frames(path), calibrate=False)
    listed = Spade(tiny, resize=64, crop=crop).fit([one.image for one in frames], calibrate=False)
    assert len(streamed.index_) == 20
    assert np.array_equal(streamed.index_.descriptors, listed.index_.descriptors)
    assert streamed.index_.manifest.images[7].path == f"{path}#000007"
    assert np.array_equal(
        streamed.predict(iter(frames)).scores, listed.predict([one.image for one in frames]).scores
    )


@pytest.fixture(scope="module")
def watched(tiny, tmp_path_factory):
    """An index of a walker's videos, and a new one in which someone runs in frames 12 to 16."""
    folder = tmp_path_factory.mktemp("watched")
    view = street()
    write_video(folder / "train/1.avi", walk(view, 96))
    write_video(folder / "train/2.mp4", walk(view, 96, start=16), codec="mp4v")
    done("build", folder / "train", "--index", folder / "index", "--fps", "8", *SMALL)
    frames = walk(view, 30, start=13)
    for i in range(12, 17):
        frames[i] = frame(view, 20 + 6 * (i - 12), runs=True)[0]
    write_video(folder / "gate.mkv", frames)
    return folder


def test_an_index_is_built_of_videos(watched):
    names = [image.path for image in Index.open(watched / "index").manifest.images]
    assert len(names) == 2 * 32
    assert names[:2] == [f"{watched}/train/1.avi#000000", f"{watched}/train/1.avi#000003"]
    assert names[-1] == f"{watched}/train/2.mp4#000093"


def test_a_video_is_scored_frame_by_frame(watched, tmp_path):
    out = tmp_path / "out"
    cv2.imwrite(str(tmp_path / "still.png"), street()[..., ::-1])
    ended = done(
        "query",
        watched / "index",
        tmp_path / "still.png",
        watched / "gate.mkv",
        "--out",
        out,
        "--worst",
        "3",
        "--explain",
        "--json",
    )
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [
        str(tmp_path / "still.png"),
        *(f"{watched}/gate.mkv#{i:06d}" for i in range(30)),
    ]
    scores = np.array([float(row["score"]) for row in rows[1:]])
    worst = sorted(np.argsort(scores)[-3:])
    assert set(worst) <= set(range(12, 17))
    assert min(scores[12:17]) > 1.5 * np.median(scores)
    spade = Spade.load(watched / "index")
    expected = spade.predict(read_frames(watched / "gate.mkv"))
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-6)
    stems = [f"gate/{i:06d}" for i in worst]
    for kind, suffix in (("maps", "tiff"), ("overlays", "png"), ("explain", "json")):
        files = sorted(
            str(path.relative_to(out / kind).with_suffix(""))
            for path in (out / kind).rglob(f"*.{suffix}")
        )
        assert files == [*stems, "still"]
    values = tifffile.imread(out / "maps" / f"{stems[0]}.tiff")
    assert values.shape == SIZE
    np.testing.assert_allclose(values, expected.maps[worst[0]], rtol=1e-4, atol=1e-5)
    picture = cv2.imread(str(out / "timelines" / "gate.png"))
    assert picture.shape == (320, 1200, 3)
    printed = json.loads(ended.stdout)["images"]
    assert [row["map"] is not None for row in printed[1:]] == [i in worst for i in range(30)]


def test_a_truncated_video_and_a_broken_one_are_named(watched, tmp_path):
    data = (watched / "gate.mkv").read_bytes()
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "cut.mkv").write_bytes(data[: len(data) // 2])
    (folder / "text.mp4").write_text("no")
    ended = done(
        "query",
        watched / "index",
        folder,
        "--out",
        tmp_path / "out",
        "--fps",
        "12",
        "--worst",
        "0",
        status=1,
    )
    lines = problems(ended)
    assert len(lines) == 2 and "cut.mkv: is cut short" in lines[0] and "text.mp4" in lines[1]
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = [int(row["path"][-6:]) for row in rows[:-1]]
    assert numbers == list(range(0, 2 * len(numbers), 2)) and len(numbers) > 3
    assert rows[-1]["path"].endswith("text.mp4") and rows[-1]["verdict"] == "ERROR"
    assert not (tmp_path / "out" / "maps").exists()


def test_a_damaged_video_is_named_and_what_is_whole_is_scored(watched, tmp_path):
    path = damage(Path(shutil.copy(watched / "train/1.avi", tmp_path)), 5)
    ended = done(
        "query", watched / "index", path, "--out", tmp_path / "out", "--worst", "0", status=1
    )
    (line,) = problems(ended)
    assert f"{path}: is damaged: 95 of 96 frames are whole" in line
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        numbers = [int(row["path"][-6:]) for row in csv.DictReader(file)]
    assert numbers == [*range(5), *range(6, 96)]


def test_a_folder_of_nothing_but_text_is_refused(watched, tmp_path):
    (tmp_path / "notes.txt").write_text("no")
    one_line(run("query", watched / "index", tmp_path, "--out", tmp_path.parent / "o"), "videos")


def test_a_folder_without_videos_is_a_list_and_with_them_a_stream(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), numbered(1)[0])
    assert find_sources(tmp_path, 1.0, pytest.fail) == [tmp_path / "a.png"]
    write_video(tmp_path / "b.avi", numbered(40))
    still, *frames = find_sources(tmp_path, 5.0, pytest.fail)
    assert still == tmp_path / "a.png" and 1 < len(frames) < 40
    (tmp_path / "none").mkdir()
    with pytest.raises(SpadeError, match="holds no images"):
        find_sources(tmp_path / "none", 1.0, pytest.fail)


def test_help_answers_without_opencv():
    code = (
        "import sys; sys.modules['cv2'] = None; sys.argv = ['spade-faiss', 'query', '-h']\n"
        "from spade_faiss.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0 and "--worst" in ended.stdout, ended.stderr


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_a_video_may_be_left_in_the_middle(tmp_path, codec):
    path = encode(tmp_path / "a.mkv", numbered(24), codec)
    for count in range(1, 12):
        frames = read_frames(path)
        for _ in range(count):
            next(frames)
        frames.close()  # type: ignore[attr-defined]
