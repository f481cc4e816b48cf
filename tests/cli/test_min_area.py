"""A least area: `build --min-area` keeps it in the index, and other commands go on with it."""

import csv
import json

import cv2
import pytest

from spade_faiss import Spade
from tests.command import TINY, done, run
from tests.conftest import texture, with_hole

SMALL = ("--resize", "64", "--crop", "64", "--preset", "paper", *TINY)
AREA = ("--min-area", "400")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of good images and of others, and an index with a least area."""
    folder = tmp_path_factory.mktemp("area")
    kinds = {
        "good": texture("gravel", 5),
        "more": texture("gravel", 3, seed=3),
        "hole": list(map(with_hole, texture("gravel", 2, seed=4))),
    }
    for kind, images in kinds.items():
        (folder / kind).mkdir()
        for i, image in enumerate(images):
            cv2.imwrite(str(folder / kind / f"{i}.png"), image[..., ::-1])
    done("build", folder / "good", "--index", folder / "index", *AREA, *SMALL)
    return folder


def test_a_query_counts_areas_as_the_index_was_built(folder, tiny, tmp_path):
    spade = Spade.load(folder / "index", backbone=tiny)
    assert spade.min_area == 400
    paths = sorted((folder / "hole").iterdir())
    for options, area in (((), 400), (("--min-area", "900"), 900), (("--min-area", "1"), None)):
        call = ("query", folder / "index", folder / "hole", "--out", tmp_path, "--report")
        done(*call, *options)
        detector = Spade.load(folder / "index", backbone=tiny, min_area=area or 1)
        with (tmp_path / "scores.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row, result in zip(rows, detector.query(paths), strict=True):
            assert result.min_area == area
            assert float(row["score"]) == pytest.approx(result.peak, rel=1e-5)
            assert float(row["threshold"]) == pytest.approx(detector.image_threshold, rel=1e-5)
        page = (tmp_path / "report.html").read_text()
        assert (f"{area} pixels" in page) == ("least area" in page) == (area is not None)


def test_info_and_an_evaluation_say_it(folder, tmp_path):
    lines = done("info", folder / "index").stdout.splitlines()
    assert "least area  400 pixels of an image" in lines
    assert json.loads(done("info", folder / "index", "--json").stdout)["min_area"] == 400
    call = ("evaluate", "folder", "--train", folder / "good", "--good", folder / "more")
    options = ("--bad", folder / "hole", "--out", tmp_path, "--report", "--json")
    results = json.loads(done(*call, *options, *AREA, *SMALL).stdout)
    assert results["config"]["min_area"] == 400
    assert "min area" in (tmp_path / "report.html").read_text()
    views = ("--views", "flip", "--index", tmp_path / "two")
    done("build", folder / "good", *views, *AREA, *SMALL)
    lines = done("info", tmp_path / "two").stdout.splitlines()
    assert lines.count("least area  400 pixels of an image") == 1


def test_calibrate_keeps_thresholds_of_it(folder, tiny, tmp_path):
    done("build", folder / "good", "--index", tmp_path / "index", *AREA, *SMALL)
    done("calibrate", tmp_path / "index", folder / "more", "--min-area", "900")
    assert Spade.load(tmp_path / "index", backbone=tiny).calibration_set is None
    spade = Spade.load(tmp_path / "index", backbone=tiny, min_area=900)
    peaks = [one.peak for one in spade.query(folder / "more")]
    assert sorted(spade.calibration_set.good.peaks) == pytest.approx(sorted(peaks), rel=1e-6)


def test_an_area_that_means_nothing_is_refused(folder, tmp_path):
    call = ("build", folder / "good", "--index", tmp_path / "index", *SMALL)
    for options, why in (
        (("--min-area", "0"), "--min-area"),
        (("--min-area", "70000"), "--min-area 70000 is more than the 65536 pixels"),
        ((*AREA, "--score", "descriptor"), "leave out --min-area, or choose the score map or mean"),
    ):
        ended = run(*call, *options)
        assert ended.returncode == 2 and why in ended.stderr
        assert not (tmp_path / "index" / "manifest.json").exists()
