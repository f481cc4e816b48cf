"""What images are judged by: `build --score` chooses it, and other commands go on with it."""

import csv
import json

import cv2
import numpy as np
import pytest

from spade_faiss import Ensemble, Spade
from tests.command import TINY, done, run
from tests.conftest import texture, with_hole

SMALL = ("--resize", "64", "--crop", "64", *TINY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of good images and of others, and an index that is judged by maps' power means."""
    folder = tmp_path_factory.mktemp("score")
    kinds = {
        "good": texture("gravel", 6),
        "more": texture("gravel", 3, seed=3),
        "hole": list(map(with_hole, texture("gravel", 2, seed=4))),
    }
    for kind, images in kinds.items():
        (folder / kind).mkdir()
        for i, image in enumerate(images):
            cv2.imwrite(str(folder / kind / f"{i}.png"), image[..., ::-1])
    done("build", folder / "good", "--index", folder / "index", "--score", "mean", *SMALL)
    return folder


def scores_of(folder):
    with (folder / "scores.csv").open(newline="") as file:
        return {row["path"]: float(row["score"]) for row in csv.DictReader(file)}


def query(folder, out, *options):
    ended = done("query", folder / "index", folder / "hole", "--out", out, "--report", *options)
    return scores_of(out), ended


def test_a_query_is_judged_as_the_index_was_built(folder, tiny, tmp_path):
    spade = Spade.load(folder / "index", backbone=tiny)
    paths = sorted((folder / "hole").iterdir())
    results = {one.name: one for one in spade.query(paths)}
    scores, _ = query(folder, tmp_path)
    assert spade.score == "mean" and set(scores) == set(results)
    for name, one in results.items():
        power = (one.input_map.astype(np.float64) ** 8).mean() ** (1 / 8)
        assert scores[name] == pytest.approx(power, rel=1e-5)
    page = (tmp_path / "report.html").read_text()
    assert "map&#39;s power mean" in page and "6 good, leave-one-out" in page
    peaks, _ = query(folder, tmp_path, "--score", "map")
    assert peaks == pytest.approx({name: one.peak for name, one in results.items()}, rel=1e-5)
    assert "map maximum" in (tmp_path / "report.html").read_text()
    assert "power mean" not in (tmp_path / "report.html").read_text()


def test_info_says_what_images_are_judged_by(folder, tmp_path):
    lines = done("info", folder / "index").stdout.splitlines()
    record = json.loads(done("info", folder / "index", "--json").stdout)
    assert "judged by   mean" in lines and record["score"] == "mean"
    (line,) = [line for line in lines if line.startswith("thresholds")]
    assert f", mean {record['calibration']['mean_threshold']:.4g} (aim" in line
    done("build", folder / "good", "--index", tmp_path / "index", "--score", "map", *SMALL)
    lines = done("info", tmp_path / "index").stdout
    assert "judged by" not in lines and "mean" not in lines
    both = ("--views", "flip", "--score", "mean")
    done("build", folder / "good", "--index", tmp_path / "two", *both, *SMALL)
    lines = done("info", tmp_path / "two").stdout.splitlines()
    assert lines.count("judged by   mean") == 1
    assert Ensemble.load(tmp_path / "two").score == "mean"


def test_calibrate_and_a_threshold_by_hand_are_of_that_score(folder, tiny, tmp_path):
    done("build", folder / "good", "--index", tmp_path / "index", "--score", "mean", *SMALL)
    call = ("calibrate", tmp_path / "index")
    report = json.loads(done(*call, folder / "more", "--json").stdout)
    spade = Spade.load(tmp_path / "index", backbone=tiny)
    held = spade.calibration_set
    assert report["score"] == "mean" and report["chosen"]["threshold"] == held.mean_threshold
    (line,) = [
        line for line in done("info", tmp_path / "index").stdout.splitlines() if "defects" in line
    ]
    assert f", mean {held.mean_threshold:.4g} (" in line
    done(*call, "--threshold", "123")
    assert "mean: threshold 123 instead" in done("info", tmp_path / "index").stdout
    by_map = Spade.load(tmp_path / "index", backbone=tiny, score="map")
    assert by_map.image_threshold == held.pixel_threshold
    assert Spade.load(tmp_path / "index", backbone=tiny).image_threshold == 123


def test_an_index_by_maxima_is_scored_anew_for_another_score(folder, tmp_path):
    for name in ("map", "mean"):
        call = ("build", folder / "good", "--index", tmp_path / name / "index", "--score", name)
        done(*call, *SMALL)
        (tmp_path / name / "hole").symlink_to(folder / "hole")
    anew, ended = query(tmp_path / "map", tmp_path / "out", "--score", "mean")
    first, other = query(tmp_path / "mean", tmp_path / "out")
    assert list(anew.values()) == list(first.values()) and ended.stderr == other.stderr
    verdicts = [
        [line.split()[:2] for line in text.splitlines()] for text in (ended.stdout, other.stdout)
    ]
    assert verdicts[0] == verdicts[1] and verdicts[0][0][0] in ("NG", "OK")


def test_an_evaluation_is_judged_by_it(folder, tmp_path):
    call = ("evaluate", "folder", "--train", folder / "good", "--good", folder / "more")
    options = ("--bad", folder / "hole", "--out", tmp_path, "--score", "mean", "--report", "--json")
    [record] = json.loads(done(*call, *options, *SMALL).stdout)["categories"].values()
    assert record["confusion"]["score"] == "mean"
    assert "The threshold of the map's power mean is" in (tmp_path / "table.md").read_text()
    assert 'data-view="overlay" data-by="mean">' in (tmp_path / "report.html").read_text()


def test_a_score_that_there_is_not_is_refused(folder, tmp_path):
    ended = run("build", folder / "good", "--index", tmp_path / "index", "--score", "peak", *SMALL)
    assert ended.returncode == 2 and "'map', 'descriptor', 'mean'" in ended.stderr
    assert not (tmp_path / "index").exists()
