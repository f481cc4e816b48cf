import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spade_faiss.errors import SpadeError
from spade_faiss.images import find_images, read_image
from spade_faiss.images.video import VIDEO_SUFFIXES
from tests.command import unprivileged


def search(*folders, **options):
    """Return the paths found within the folders, the problems by name, and the notes."""
    problems, notes = {}, []
    found = find_images(folders, problems.__setitem__, on_note=notes.append, **options)
    return [str(one.relative) for one in found], problems, notes


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_are_searched_to_any_depth(tmp_path):
    touch(tmp_path, "b/2.png", "a/1.JPG", "3.webp", ".hidden.png", ".git/4.png", "a/c/5.bmp")
    (tmp_path / "x.png").mkdir()
    found, problems, notes = search(tmp_path)
    assert found == ["3.webp", "a/1.JPG", "a/c/5.bmp", "b/2.png"]
    assert list(problems) == [str(tmp_path / "x.png")] and not notes
    with pytest.raises(SpadeError, match="no such"):
        search(tmp_path / "gone.png")


def test_a_folder_below_what_python_recurses_is_searched(tmp_path):
    limit, depth, here = sys.getrecursionlimit(), 300, Path.cwd()
    os.chdir(tmp_path)
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("1.png").touch()
    sys.setrecursionlimit(depth)
    try:
        found, problems, _ = search(tmp_path)
        assert found == ["d/" * depth + "1.png"] and not problems
    finally:  # pytest's own removal would recurse
        sys.setrecursionlimit(limit)
        Path("1.png").unlink()
        for _ in range(depth):
            os.chdir("..")
            Path("d").rmdir()
        os.chdir(here)


def test_an_unreadable_folder_is_named_and_the_rest_is_found(open_folder):
    touch(open_folder, "a/1.png", "locked/2.png", "z/3.png")
    (open_folder / "locked").chmod(0)
    with unprivileged():
        found, problems, _ = search(open_folder)
    assert found == ["a/1.png", "z/3.png"]
    assert problems == {
        str(open_folder / "locked"): "cannot be searched for images: Permission denied"
    }


def test_a_folder_too_deep_to_be_named_is_a_problem(tmp_path, monkeypatch):
    """Deeper than a path may be long: one can go there, step by step, but not name it."""
    name = "d" * 250
    monkeypatch.chdir(tmp_path)
    for _ in range(18):
        Path(name).mkdir()
        os.chdir(name)
    monkeypatch.undo()
    try:
        _, problems, _ = search(tmp_path)
        assert list(problems.values()) == ["cannot be searched for images: File name too long"]
    finally:
        shutil.rmtree(tmp_path / name)  # from folder to folder


def test_links_are_followed_once(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    touch(root, "b/1.png")
    touch(elsewhere, "2.png", "below/3.png")
    (root / "a").symlink_to(root / "b")  # there already, and in its own name
    (root / "b" / "loop").symlink_to(root)
    (root / "c").symlink_to(elsewhere)
    (root / "d").symlink_to(elsewhere / "below")
    (elsewhere / "back").symlink_to(root / "c")
    found, problems, notes = search(root)
    assert found == ["b/1.png", "c/2.png", "c/below/3.png"] and not problems and not notes
    # What is named itself is searched under its own name, wherever it is named.
    assert search(root, elsewhere)[0] == ["b/1.png", "2.png", "below/3.png"]
    (tmp_path / "link").symlink_to(root)
    assert search(tmp_path / "link")[0] == found


def test_a_link_to_an_upper_folder_adds_what_was_not_read(tmp_path):
    touch(tmp_path, "all/beside/1.png", "all/root/2.png")
    (tmp_path / "all" / "root" / "up").symlink_to(tmp_path / "all")
    assert search(tmp_path / "all" / "root")[0] == ["2.png", "up/beside/1.png"]


def test_links_that_lead_nowhere_are_named(tmp_path):
    touch(tmp_path, "1.png")
    (tmp_path / "share").symlink_to(tmp_path / "unmounted")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "gone.txt")
    found, problems, notes = search(tmp_path)
    assert found == ["1.png"] and not notes
    assert {Path(name).name for name in problems} == {"share", "self"}
    assert all(why.startswith("is a link that leads nowhere") for why in problems.values())


def test_what_is_passed_over_is_said_in_one_line(tmp_path):
    touch(
        tmp_path,
        "1.png",
        "README",
        "notes.txt",
        "labels.json",
        "Thumbs.db",
        ".DS_Store",
        "table.csv",
    )
    assert search(tmp_path)[2] == []
    touch(tmp_path, "b.GIF", "a.heic", "sub/c.ppm", "sub/0001", "film.mp4")
    assert search(tmp_path)[2] == [
        f"passed over 5 files of no kind that is read, by the name: {tmp_path}/a.heic, "
        f"{tmp_path}/b.GIF, {tmp_path}/film.mp4 and 2 more; convert or rename what is an image, "
        "if they are to count"
    ]
    (note,) = search(tmp_path, suffixes=VIDEO_SUFFIXES | {".png", ".gif", ".heic", ".ppm"})[2]
    assert note == (
        f"passed over 1 file of no kind that is read, by the name: {tmp_path}/sub/0001;"
        " convert or rename what is an image, if it is to count"
    )
    # In Python, where nobody asked to be told.
    with pytest.warns(UserWarning, match="passed over 5 files"):
        find_images([tmp_path], print)


@pytest.mark.parametrize("suffix, kind", [("jpe", "jpeg"), ("jfif", "jpeg"), ("dib", "bmp")])
def test_other_suffixes_of_what_is_decoded_are_found(tmp_path, suffix, kind):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(path, kind)
    assert search(tmp_path)[0] == [path.name]
    assert (read_image(path) == 99).all()


def test_any_name_is_found(tmp_path):
    names = ["two\nlines.png", "ümlaut.png", os.fsdecode(b"latin\xe9.png"), " .png", "a.b.png"]
    touch(tmp_path, *names)
    assert sorted(search(tmp_path)[0]) == sorted(names)
