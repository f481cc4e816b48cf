import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from spade_faiss import Spade, SpadeError
from spade_faiss.images import SUFFIXES, Found, find_images
from spade_faiss.images.video import VIDEO_SUFFIXES
from spade_faiss.report import discard_results, write_query
from spade_faiss.report.folder import LIST, ResultFolder, renamed, stems_of
from tests.conftest import texture
from tests.images.video.videos import write_video


@pytest.fixture(scope="module")
def spade(tiny):
    return Spade(tiny, resize=64, crop=56, quantile=0.9, engine="faiss").fit(texture("gravel", 3))


@pytest.fixture
def parts(tmp_path):
    """A folder of two images."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for name, image in zip(("a.png", "b.png"), texture("gravel", 2, seed=1), strict=True):
        cv2.imwrite(str(folder / name), image[:64, :64])
    return folder


def query(spade, folder, out, **options):
    """Query what a folder holds; return the rows and the notes."""
    notes = []
    found = find_images([folder], print, SUFFIXES | VIDEO_SUFFIXES)
    return write_query(spade, found, out, on_note=notes.append, **options), notes


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def stems(*names, longest=255):
    found = [Found(Path(name), Path(name), None) for name in names]
    given = stems_of(found, longest)
    assert len(set(given)) == len(names)
    return [str(stem) for stem in given], renamed(found, given)


def test_files_are_called_as_their_images_but_where_that_is_taken():
    assert stems("a/1.png", "b/1.png", "2.jpg") == (["a/1", "b/1", "2"], None)
    given, note = stems("1.png", "1.jpg", "1.png", "1.jpg.png")
    assert given == ["1", "1.jpg", "1.png", "1.jpg.png"]
    assert note == (
        "files called otherwise than their images, whose names are taken or too long: "
        "maps/1.jpg.tiff of 1.jpg and those of 2 more"
    )


def test_frames_of_a_video_have_a_folder_of_their_own():
    given, note = stems("day.mp4", "day.png", "day/000123.png", "night.mp4")
    assert given == ["day.mp4", "day", "day/000123", "night"]
    assert note.endswith("too long: maps/day.mp4/ of day.mp4")


@pytest.mark.parametrize("letter", ["x", "é", "部", "\udce9"])
def test_long_names_are_shortened_and_stay_different(letter):
    names = [letter * (longest // len(os.fsencode(letter))) for longest in (245, 251)]
    given, _ = stems(*(f"{name}.png" for name in names), f"{names[1]}.jpg", longest=240)
    assert all(len(os.fsencode(f"{name}.tiff")) <= 240 for name in given)
    assert all(name.startswith(letter * 50) for name in given)


def test_images_whose_names_are_as_long_as_can_be_are_done(spade, parts, tmp_path):
    image = cv2.imread(str(parts / "b.png"))
    for name in (f"{'n' * 251}.png", f"{'é' * 125}z.png", f"{'é' * 125}z.jpg"):
        cv2.imwrite(str(parts / name), image)
    rows, notes = query(spade, parts, tmp_path / "out", explain=True, report=True)
    assert len(rows) == 5
    for row in rows:
        assert tifffile.imread(row.map).shape == (64, 64)
        assert cv2.imread(row.overlay) is not None and Path(row.explanation).exists()
    (note,) = notes
    assert "too long" in note and note.endswith("those of 2 more")


def test_what_an_earlier_query_wrote_goes(spade, parts, tmp_path):
    out = tmp_path / "out"
    write_video(parts / "film.mp4", texture("gravel", 3))
    _, notes = query(spade, parts, out, explain=True, report=True, worst=2)
    first = files(out)
    assert not notes and len(first) == 20
    assert {"explain/b.json", "explain/b.png", "report.html", "timelines/film.png"} < first
    (out / "notes.txt").write_text("mine")
    (out / "overlays" / "mine.png").write_text("mine")
    (parts / "film.mp4").unlink()
    (parts / "b.png").unlink()
    _, notes = query(spade, parts, out)
    assert files(out) == {
        "notes.txt",
        "overlays/mine.png",
        "maps/a.tiff",
        "overlays/a.png",
        "scores.csv",
        LIST,
    }
    assert not (out / "timelines").exists() and not (out / "maps" / "film").exists()
    assert notes == [
        f"{out} holds 1 file that this query did not write, such as overlays/mine.png;"
        " remove what is no use to you, or name a new folder"
    ]
    query(spade, parts, out, overlays=False)
    assert files(out) == {"notes.txt", "overlays/mine.png", "maps/a.tiff", "scores.csv", LIST}


def test_results_are_not_queried_into_their_own_folder(spade, parts, tmp_path):
    out = tmp_path / "out"
    query(spade, parts, out)
    before = files(out)
    (parts / "link").symlink_to(out)
    for folder in (out / "overlays", parts):
        with pytest.raises(SpadeError, match="holds results of an earlier query"):
            query(spade, folder, out)
    assert files(out) == before
    query(spade, out / "overlays", tmp_path)  # maps and overlays lie there in folders of their own


def test_results_that_no_list_tells_of_are_named_not_removed(spade, parts, tmp_path):
    out = tmp_path / "out"
    query(spade, parts, out, report=True)
    (out / LIST).unlink()  # as an older version would leave it
    (parts / "b.png").unlink()
    _, notes = query(spade, parts, out)
    assert notes == [
        f"{out} holds 3 files that this query did not write, such as maps/b.tiff; "
        "remove what is no use to you, or name a new folder"
    ]
    assert {"maps/b.tiff", "overlays/b.png", "report.html"} < files(out)


def test_a_query_that_stops_leaves_nothing_of_an_earlier_one(spade, parts, tmp_path):
    out = tmp_path / "out"
    query(spade, parts, out, explain=True, report=True)
    (parts / "b.png").write_bytes(b"no image")
    spade = spade.with_options(batch_size=1)
    with pytest.raises(SpadeError, match=r"b\.png"):
        query(spade, parts, out)
    assert files(out) == {"maps/a.tiff", "overlays/a.png", "scores.csv", LIST}
    with (out / "scores.csv").open(newline="") as file:
        assert [row["verdict"] != "ERROR" for row in csv.DictReader(file)] == [True, False]


def test_what_a_killed_query_wrote_is_known(tmp_path):
    folder = ResultFolder(tmp_path / "out")
    folder.put("maps/a/1.tiff", b"1")
    folder.put("maps/2.tiff", b"2")
    with (folder.path / LIST).open("a") as file:
        file.write('"maps/3')  # killed while it wrote this
    folder = ResultFolder(tmp_path / "out")
    assert len(files(folder.path)) == 3  # nothing goes before something comes
    folder.put("maps/2.tiff", b"new")
    assert folder.finish() is None
    assert files(folder.path) == {"maps/2.tiff", LIST}
    assert (folder.path / LIST).read_text() == '"maps/2.tiff"\n'


def test_only_files_within_the_folder_are_removed(tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    (out / "sub" / "folder").mkdir(parents=True)
    other.mkdir()
    (other / "x").write_text("mine")
    (out / "link").symlink_to(other)
    (out / "kept").write_text("mine")
    names = [
        "../other/x",
        f"{other}/x",
        "link/x",
        "sub/../../other/x",
        "sub/folder",
        "gone",
        "kept/below",
        "",
        ".",
        "a\\u0000b",
    ]
    lines = [f'"{name}"' for name in names]
    (out / LIST).write_text("\n".join([*lines, "17", "[", "{}"]))
    discard_results(out)
    assert (other / "x").exists() and files(out) == {"kept"}
    (out / LIST).write_bytes(b"\xff\xfe")
    discard_results(out)
    assert files(out) == {"kept"}


def test_an_image_whose_files_cannot_be_called_so_is_named_and_the_others_go_on(
    spade, parts, tmp_path
):
    out = tmp_path / "out"
    while len(str(out)) < 3950:
        out = out / ("d" * min(200, 3960 - len(str(out))))
    deep = parts / ("e" * 150)
    deep.mkdir()
    (parts / "a.png").rename(deep / "a.png")
    problems = []
    found = find_images([deep / "..", parts / "b.png"], print)
    rows = write_query(
        spade,
        [found[1], found[0]],
        out,
        explain=True,
        report=True,
        on_error=lambda *problem: problems.append(problem),
    )
    assert [row.score is not None for row in rows] == [True, True]
    assert [row.map is not None for row in rows] == [False, True]
    assert problems == [
        (str(found[1].path), "is scored, but its files cannot be written: File name too long")
    ]
    assert (out / "maps" / "b.tiff").exists()


def test_a_batch_says_what_it_hardly_saw(spade, parts, tmp_path):
    for i, width in enumerate((400, 600, 600, 600)):
        cv2.imwrite(str(parts / f"s{i}.png"), np.resize(texture("gravel", 1)[0], (32, width, 3)))
    _, notes = query(spade, parts, tmp_path / "out", report=True)
    assert notes == [
        f"seen only in part: 4 images, {parts}/s0.png (6.1 % of 400x32 pixels), {parts}/s1.png "
        f"(4.1 % of 600x32 pixels), {parts}/s2.png (4.1 % of 600x32 pixels) and 1 more; an index "
        "built with `crop=None` sees all of them"
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "seen only in part" in page and "(6.1 % of 400x32 pixels)" in page
