"""What is odd about a category's index is said wherever its figures are."""

import json
import shutil

import cv2
import pytest

from spade_faiss import Spade
from spade_faiss.datasets import load_folders
from spade_faiss.datasets.demo import render
from spade_faiss.evaluation import evaluate_folder
from tests.evaluation.notes import few

PART = (
    "strips: seen only in part: all 4 images of the index, 25 % of 256x64 pixels; "
    "an index built with `crop=None` sees all of them"
)


@pytest.fixture
def strips(tmp_path):
    """A category of images four times as wide as high, of which two good ones are alike."""
    root = tmp_path / "strips"
    for folder, kind, count in (("train", "train", 4), ("fine", "good", 2), ("ng", "smear", 2)):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            strip = render(0, "gravel", kind, i).image[96:160]
            cv2.imwrite(str(root / folder / f"{i}.png"), strip)
    shutil.copy(root / "train/0.png", root / "train/3.png")
    return load_folders(root / "train", root / "fine", root / "ng")


def evaluate(tiny, category, out, **settings):
    notes = []
    spade = Spade(tiny, resize=64, crop=64, **settings)
    results = evaluate_folder(
        spade, category, out, report=True, on_error=print, on_note=notes.append
    )
    return results, notes


def test_what_is_odd_about_an_index_is_said_once_in_every_face(tiny, strips, tmp_path):
    results, notes = evaluate(tiny, strips, tmp_path / "out")
    first, *odd = notes
    assert "there are no masks" in first and results["notes"] == notes
    train = [str(path) for path in strips.train]
    assert odd == [
        PART,
        "strips: 2 of the index's 4 images show one part, and are not compared with each other: "
        f"{train[0]}, {train[3]}",
        few("strips", 3),
    ]
    table = (tmp_path / "out/table.md").read_text()
    report = (tmp_path / "out/report.html").read_text()
    assert all(table.count(f"Note: {note}.") == 1 for note in notes)
    assert report.count("seen only in part: all 4 images") == 1


def test_a_finished_category_is_noted_again(tiny, strips, tmp_path):
    first, notes = evaluate(tiny, strips, tmp_path / "out")
    assert evaluate(tiny, strips, tmp_path / "out") == (first, notes)
    path = tmp_path / "out/done/strips.json"
    record = json.loads(path.read_text())
    assert record.pop("notes") == notes[1:]
    path.write_text(json.dumps(record))  # as an older version left it
    again, said = evaluate(tiny, strips, tmp_path / "out")
    why = "strips is evaluated anew: an older version did not keep what is odd about its index"
    assert said == [notes[0], why, *notes[1:]] and again["notes"] == notes


def test_a_threshold_that_was_set_rests_on_no_image(tiny, strips, tmp_path):
    spade = Spade(tiny, resize=64, crop=64)
    spade.image_threshold = 3.0
    notes = []
    evaluate_folder(spade, strips, tmp_path, on_error=print, on_note=notes.append)
    assert notes[1] == PART and not any("rests on" in note for note in notes)
