"""What `info` says of an ensemble is what its file says."""

import json

import cv2
import pytest

from spade_faiss import open_detector
from spade_faiss.index import EnsembleManifest
from tests.command import TINY, done
from tests.conftest import texture


@pytest.fixture(scope="module")
def ensemble(tiny, tmp_path_factory):
    """An ensemble of two views, and good images that are not in it."""
    root = tmp_path_factory.mktemp("info")
    for i, image in enumerate(texture("gravel", 7)):
        folder = root / ("good" if i < 4 else "more")
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"{i}.png"), image[:64, :64])
    build(root, "-k", "3", "--views", "flip")
    return root


def build(root, *options):
    """Index the good images, and return the folder."""
    small = (*TINY, "--resize", "64", "--crop", "56", "--engine", "faiss")
    done("build", root / "good", "--index", root / "index", *small, *options)
    return root / "index"


def notes_of(folder):
    return json.loads(done("info", folder, "--json").stdout)["notes"]


def test_an_ensemble_is_shown_by_the_names_of_its_file(ensemble):
    shown = json.loads(done("info", ensemble / "index", "--json", "--verify").stdout)
    kept = json.loads((ensemble / "index" / "ensemble.json").read_text())
    del kept["sha256"]  # of the file itself
    assert {name: shown[name] for name in kept} == kept
    assert [len(one["images"]) for one in shown["indices"]] == [4, 4]
    assert shown["damaged"] == []


def test_thresholds_that_further_images_chose_are_shown(ensemble):
    lines = done("info", ensemble / "index").stdout.splitlines()
    assert not [line for line in lines if line.startswith("calibrated")]
    done("calibrate", ensemble / "index", ensemble / "more")
    lines = done("info", ensemble / "index").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("calibrated")]
    held = json.loads((ensemble / "index" / "ensemble.json").read_text())["held_out"]
    assert ", 3 images and 0 defects; thresholds now: " in line
    assert f"map {held['pixel_threshold']:.4g}, descriptor " in line


@pytest.mark.parametrize("views", [(), ("--views", "flip")])
def test_the_notes_are_those_that_a_query_gives(ensemble, tiny, tmp_path, views):
    (tmp_path / "good").symlink_to(ensemble / "good")
    folder = build(tmp_path, "-k", "9", *views)
    detector = open_detector(folder, networks=[tiny])
    many, few = notes_of(folder)
    assert (many, few) == detector.notes
    assert many.startswith("K = 9 is more than the index's 4 images")
    assert few.startswith("the threshold rests on 4 good images")
    detector.calibrate([str(path) for path in (ensemble / "more").iterdir()])
    many, few = notes_of(folder)
    assert (many, few) == detector.notes
    assert few.startswith("the threshold rests on 3 good images")
    detector.image_threshold = 1.0
    detector.keep_threshold()
    assert notes_of(folder) == [many, few] == [*detector.notes]  # for maps it is still drawn
    by_map = open_detector(folder, networks=[tiny], score="map")
    by_map.image_threshold = 1.0
    by_map.keep_threshold()
    assert notes_of(folder) == [many] == [*by_map.notes]


def test_an_ensemble_s_thresholds_are_by_today_s_rule(ensemble, tiny, tmp_path):
    (tmp_path / "good").symlink_to(ensemble / "good")
    folder = build(tmp_path, "--views", "flip")
    manifest = EnsembleManifest.read(folder)
    drawn = manifest.calibration
    older = drawn.model_copy(update={"pixel_threshold": drawn.pixel_threshold + 1})
    manifest.model_copy(update={"calibration": older}).write(folder)
    shown = json.loads(done("info", folder, "--json").stdout)
    assert shown["calibration"]["pixel_threshold"] == drawn.pixel_threshold
    assert open_detector(folder, networks=[tiny]).pixel_threshold == drawn.pixel_threshold
    assert f"map {drawn.pixel_threshold:.4g}" in done("info", folder).stdout
