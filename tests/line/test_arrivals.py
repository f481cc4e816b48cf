"""When a file counts as complete, by looks at a folder and a clock of the test's own."""

import os
import shutil

import pytest

from spade_faiss.line.arrivals import Arrivals
from spade_faiss.line.scan import Look, State, look
from tests.command import unprivileged


def seen(**files):
    return Look({name: State(*state) for name, state in files.items()})


@pytest.fixture
def arrivals():
    return Arrivals(1.0, 10.0, lambda path, state: path == "known" and state == State(1, 1))


def test_a_file_waits_until_it_stays_as_it_is(arrivals):
    assert arrivals.see(seen(a=(10, 1)), 0) == []
    assert arrivals.see(seen(a=(20, 2)), 0.75) == []  # it grows
    assert arrivals.see(seen(a=(20, 3)), 1.5) == []  # it is written over
    assert arrivals.see(seen(a=(20, 3)), 2.25) == []
    assert arrivals.see(seen(a=(20, 3)), 2.5) == ["a"]
    arrivals.judged("a")
    assert arrivals.see(seen(a=(20, 3)), 9) == []
    assert arrivals.see(seen(a=(20, 4)), 10) == []  # it is written again
    assert arrivals.see(seen(a=(20, 4)), 11) == ["a"]


def test_files_come_in_the_order_of_writing(arrivals):
    arrivals.see(seen(c=(1, 5), b=(1, 7), a=(1, 7), known=(1, 1)), 0)
    assert arrivals.see(seen(c=(1, 5), b=(1, 7), a=(1, 7), known=(1, 1)), 1) == ["c", "a", "b"]


def test_a_known_file_that_changed_waits_too(arrivals):
    arrivals.see(seen(known=(1, 2)), 0)
    assert arrivals.see(seen(known=(1, 2)), 1) == ["known"]


def test_a_file_that_cannot_be_decoded_waits_longer(arrivals):
    arrivals.see(seen(a=(10, 1)), 0)
    assert arrivals.see(seen(a=(10, 1)), 1) == ["a"]
    assert not arrivals.cannot_be_read("a", 1, soon=False)
    assert arrivals.see(seen(a=(10, 1)), 9.9) == []
    assert arrivals.see(seen(a=(10, 1)), 10) == ["a"]
    assert arrivals.cannot_be_read("a", 10, soon=False)
    # Before that it went on: then it counts from there.
    arrivals.see(seen(b=(10, 1)), 20)
    arrivals.cannot_be_read("b", 21, soon=False)
    assert arrivals.see(seen(b=(20, 2)), 29) == []
    assert arrivals.see(seen(b=(20, 2)), 30) == ["b"]


def test_a_file_that_is_locked_is_tried_again_soon(arrivals):
    for now in (0, 1, 2):
        assert arrivals.see(seen(a=(10, 1)), now) == (["a"] if now else [])
        assert not now or not arrivals.cannot_be_read("a", now, soon=True)
    assert arrivals.see(seen(a=(10, 1)), 2.5) == []
    assert arrivals.see(seen(a=(10, 1)), 9.5) == ["a"]
    assert not arrivals.cannot_be_read("a", 9.5, soon=True)
    assert arrivals.see(seen(a=(10, 1)), 10) == ["a"]
    assert arrivals.cannot_be_read("a", 10, soon=True)


def test_a_file_that_never_rests_is_told(arrivals):
    for now in range(12):
        arrivals.see(seen(a=(10, now), b=(10, 1)), 0.9 * now)
        assert arrivals.restless(0.9 * now) is None
    assert arrivals.see(seen(a=(10, 99), b=(10, 1)), 11) == ["b"]
    assert arrivals.restless(11) == "a"
    assert arrivals.see(seen(a=(10, 99), b=(10, 1)), 12) == ["b", "a"]
    assert arrivals.restless(12) is None


def test_a_file_that_goes_is_forgotten_but_not_one_in_a_lost_folder(arrivals):
    arrivals.see(seen(**{"sub/a": (1, 1), "b": (1, 1)}), 0)
    lost = Look({}, [("sub", "gone")])
    assert arrivals.see(lost, 5) == [] and len(arrivals) == 1
    assert arrivals.see(seen(**{"sub/a": (1, 1), "b": (1, 1)}), 6) == ["sub/a"]


def test_a_look_finds_images_at_any_depth_and_not_what_is_hidden(tmp_path):
    inside = tmp_path / "in"
    for name in ("a.png", "deep/er/b.JPG", ".hidden.png", ".folder/c.png", "d.part", "notes.txt"):
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        (inside / name).write_bytes(b"1234")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "e.tif").write_bytes(b"")
    (inside / "link").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(inside)
    (inside / "nowhere.png").symlink_to(tmp_path / "none")
    os.mkfifo(inside / "pipe.png")
    found = look(inside)
    assert set(found.files) == {"a.png", "deep/er/b.JPG", "link/e.tif"}
    assert found.files["a.png"].size == 4 and found.passed == ["d.part"] and not found.lost
    shutil.rmtree(inside)
    assert look(inside).lost == [("", "No such file or directory")]


def test_a_folder_that_cannot_be_read_is_lost(open_folder):
    (open_folder / "in" / "locked").mkdir(parents=True)
    for path in (open_folder / "in", open_folder / "in" / "locked"):
        path.chmod(0o777)
    (open_folder / "in" / "a.png").write_bytes(b"")
    (open_folder / "in" / "locked").chmod(0)
    with unprivileged():
        found = look(open_folder / "in")
    assert set(found.files) == {"a.png"} and found.lost == [("locked", "Permission denied")]
    assert found.may_hold("locked/b.png") and not found.may_hold("b.png")
