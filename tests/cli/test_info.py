"""What `info` says of an ensemble is what its file says."""

import json

import cv2
import pytest

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
    small = (*TINY, "--resize", "64", "--crop", "56", "-k", "3", "--engine", "faiss")
    done("build", root / "good", "--index", root / "index", *small, "--views", "flip")
    return root


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
