"""Notes come by three roads, from images, results and the index, and are said by one."""

import json

import cv2
import numpy as np
import pytest
import tifffile
import typer

from spade_faiss import SpadeError
from spade_faiss.cli.console import Console, reason
from tests.command import TINY, done
from tests.conftest import texture

SMALL = (*TINY, "--resize", "64", "--crop", "56", "-k", "3", "--engine", "faiss")


@pytest.fixture(scope="module")
def root(tiny, tmp_path_factory):
    """Good images, an index, and new images: one of 11 bits in 16, one hardly seen, one broken."""
    root = tmp_path_factory.mktemp("console")
    views = [image[:64, :64] for image in texture("gravel", 6)]
    for folder, some in (("good", views[:4]), ("new", views[4:])):
        (root / folder).mkdir()
        for i, image in enumerate(some):
            cv2.imwrite(str(root / folder / f"{i}.png"), image)
    done("build", root / "good", "--index", root / "index", *SMALL)
    tifffile.imwrite(root / "new" / "shallow.tiff", views[0].astype(np.uint16) * 8)
    cv2.imwrite(str(root / "new" / "strip.png"), np.zeros((32, 900, 3), np.uint8))
    (root / "new" / "phone.heic").touch()
    (root / "new" / "text.png").write_text("no image")
    return root


def said(ended):
    """Return the notes on standard error, which JSON must hold as they are."""
    mark = "spade-faiss: note: "
    return [line.removeprefix(mark) for line in ended.stderr.splitlines() if line.startswith(mark)]


def test_json_holds_the_notes_that_are_said(root, tmp_path):
    ended = done("query", root / "index", root / "new", "--out", tmp_path / "o", "--json", status=1)
    answer, notes = json.loads(ended.stdout), said(ended)
    assert answer["notes"] == notes and len(notes) == 4
    for words in ("phone.heic", "16-bit samples", "seen only in part", "the threshold rests on"):
        assert sum(words in note for note in notes) == 1
    assert [error["path"] for error in answer["errors"]] == [str(root / "new" / "text.png")]


def test_calibrate_gives_notes_on_images_and_on_the_figures(root, tmp_path):
    ended = done("calibrate", root / "index", root / "new", "--json", status=1)
    answer = json.loads(ended.stdout)
    assert answer["notes"][: len(said(ended))] == said(ended) and len(said(ended)) == 2
    assert any("16-bit samples" in note for note in answer["notes"])
    assert any("the threshold rests on 4 good images" in note for note in answer["notes"])


def test_a_console_says_and_keeps(capsys):
    with Console.open() as console:
        console.problem("a\nb.png", "is broken")
        console.failure("line 1", SpadeError("holds no index"))
        console.note_each(["few images", "one size"], "line 2: ")
        console.warn("moved")
    assert capsys.readouterr().err.splitlines() == [
        r"spade-faiss: a\nb.png: is broken",
        "spade-faiss: line 1: holds no index",
        "spade-faiss: note: line 2: few images",
        "spade-faiss: note: line 2: one size",
        "spade-faiss: warning: moved",
    ]
    assert console.record() == {
        "notes": ["line 2: few images", "line 2: one size"],
        "errors": [
            {"path": "a\nb.png", "error": "is broken"},
            {"path": "line 1", "error": "holds no index"},
        ],
    }


def test_the_status_is_1_with_problems_and_2_where_nothing_was_done():
    console = Console()
    console.exit()
    with pytest.raises(typer.Exit) as nothing:
        console.exit(done=False)
    console.problem("a.png", "is broken")
    with pytest.raises(typer.Exit) as some:
        console.exit()
    assert (nothing.value.exit_code, some.value.exit_code) == (2, 1)


@pytest.mark.parametrize(
    "error, line",
    [
        (SpadeError("holds no index"), "holds no index"),
        (FileNotFoundError(2, "No such file", "a.png"), "a.png: No such file"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError(), "out of memory: lower --batch-size, --resize or -k, or raise --max-memory"),
        (KeyError("k"), "KeyError: 'k' (run again with --debug to see where)"),
        (ValueError("one\ntwo"), "ValueError: one (run again with --debug to see where)"),
    ],
)
def test_an_error_is_one_line(error, line):
    assert reason(error) == line


def test_work_goes_on_where_nobody_reads_what_is_said(monkeypatch):
    def gone(*_, **__):
        raise BrokenPipeError

    monkeypatch.setattr("spade_faiss.cli.console.tqdm.write", gone)
    console = Console()
    console.note("of an image")
    assert console.notes == ["of an image"]
