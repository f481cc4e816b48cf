"""Thresholds and marks of review that a person sets: here, on the command line, in the index."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.index import EnsembleManifest, Manifest
from spade_faiss.index.ensemble import ENSEMBLE_FORMAT
from spade_faiss.index.manifest import ENSEMBLE, FORMAT, MANIFEST
from spade_faiss.index.record import read_record
from spade_faiss.verdict import find_regions
from spade_faiss.verdict.rates import observed_rate
from tests.command import TINY, done, one_line, run
from tests.conftest import texture, with_hole

SMALL = {"resize": 64, "crop": 64, "quantile": 0.8}
GOOD = texture("gravel", 6)
NEW = [*texture("gravel", 4, seed=3), *map(with_hole, texture("gravel", 2, seed=4))]
"""Four good ones and two with a hole, none of the index."""


@pytest.fixture(scope="module")
def indices(tiny, tmp_path_factory):
    """An index and an ensemble."""
    folder = tmp_path_factory.mktemp("by hand")
    Spade(tiny, **SMALL).fit(GOOD, folder / "one")
    Ensemble.of([tiny], ["flip"], **SMALL).fit(GOOD, folder / "two")
    return folder


@pytest.fixture(params=["one", "two"])
def index(request, indices, tmp_path):
    return shutil.copytree(indices / request.param, tmp_path / "index")


@pytest.fixture
def single(indices, tmp_path):
    return shutil.copytree(indices / "one", tmp_path / "index")


@pytest.fixture
def images(tmp_path):
    for i, image in enumerate(NEW):
        path = tmp_path / "new" / ("good" if i < 4 else "hole") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])
    return tmp_path / "new"


def between(scores, at):
    """Return a value between two neighbours of some scores, the `at`-th and the next."""
    ordered = np.sort(np.asarray(scores, float))
    return float(ordered[at : at + 2].mean())


def rows_of(folder):
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "score", "threshold", "verdict"]
    return rows


def opened(folder, tiny, **options):
    return open_detector(folder, networks=[tiny], **options)


# In Python --------------------------------------------------------------------------------


def test_a_threshold_is_set_and_given_back(index, tiny):
    spade = opened(index, tiny)
    drawn, by_map = spade.image_threshold, spade.pixel_threshold
    assert drawn == by_map and not spade.by_hand and spade.review is None
    spade.image_threshold, other = 1.5 * drawn, spade
    assert spade.image_threshold == spade.pixel_threshold == 1.5 * drawn and spade.by_hand
    spade.review = drawn
    said = [other.verdict_of(score) for score in (0.9 * drawn, drawn, 1.5 * drawn, 1.6 * drawn)]
    assert said == ["OK", "REVIEW", "REVIEW", "NG"] and spade.notes == ()
    with pytest.raises(SpadeError, match="below the threshold"):
        spade.review = 2 * drawn
    spade.image_threshold = spade.review = None
    assert spade.image_threshold == drawn and not spade.by_hand and spade.review is None


def test_each_kind_of_score_has_its_own(single, tiny):
    spade = Spade.load(single, backbone=tiny, score="descriptor")
    by_map, by_descriptor = spade.pixel_threshold, spade.image_threshold
    spade.image_threshold = 0.5 * by_descriptor
    assert spade.image_threshold == 0.5 * by_descriptor and spade.pixel_threshold == by_map
    copy = spade.with_options(score="map")
    assert copy.image_threshold == by_map
    copy.image_threshold = 7.0
    assert spade.pixel_threshold == by_map and copy.pixel_threshold == 7.0


def test_only_an_ensemble_s_threshold_may_be_below_0(indices, tiny):
    spade, ensemble = (opened(indices / name, tiny) for name in ("one", "two"))
    with pytest.raises(SpadeError, match="0 or more"):
        spade.image_threshold = -0.5
    ensemble.image_threshold, ensemble.review = -0.5, -2
    assert ensemble.verdict_of(-1) == "REVIEW" and ensemble.verdict_of(-0.4) == "NG"
    for value in (float("nan"), float("inf"), -float("inf")):
        for one in (spade, ensemble):
            with pytest.raises(SpadeError, match="finite"):
                one.image_threshold = value


def test_it_may_be_set_before_there_is_an_index(tiny):
    spade = Spade(tiny, **SMALL)
    spade.image_threshold, spade.review = 40.0, 30.0
    spade.fit(GOOD[:2])
    assert (spade.image_threshold, spade.review) == (40.0, 30.0)
    spade.image_threshold = None
    assert spade.image_threshold == spade.calibration.pixel_threshold


def test_outlined_regions_agree_with_the_verdict(single, tiny):
    spade = Spade.load(single, backbone=tiny)
    results = list(spade.query(NEW))
    for limit in (between([one.peak for one in results], at) for at in range(5)):
        spade.image_threshold = limit
        for result in results:
            regions = find_regions(result, spade.index_, spade.pixel_threshold)
            assert bool(regions) == (spade.verdict_of(result.peak) == "NG")
    spade.image_threshold = max(one.peak for one in results)  # which is itself not over it
    spade.review = spade.image_threshold / 2
    for result in results:
        places = find_regions(
            result, spade.index_, spade.limits.places_from(result.peak, result.peak)
        )
        assert bool(places) == (spade.verdict_of(result.peak) == "REVIEW")


# Kept in the index ------------------------------------------------------------------------


def test_what_is_kept_counts_wherever_the_index_is_opened(index, tiny):
    spade = opened(index, tiny)
    drawn = spade.image_threshold
    peaks = [one.peak for one in spade.query(NEW)]
    limit = between(peaks, 3)
    spade.image_threshold, spade.review = limit, limit - 0.5
    report = spade.keep_threshold(NEW[:4], NEW[4:])
    good, bad = ([value > limit for value in some] for some in (peaks[:4], peaks[4:]))
    assert report.present.threshold == drawn and report.chosen.threshold == limit
    # No image chose it, so the rates are those that were seen.
    assert report.chosen.false_alarms == observed_rate(sum(good), 4) and report.wished is None
    assert report.chosen.found == observed_rate(sum(bad), 2) and report.review == limit - 0.5
    assert "expect" not in report.text() and "before" in report.text()
    again = opened(index, tiny)
    assert (again.image_threshold, again.review, again.by_hand) == (limit, limit - 0.5, True)
    (kept,) = again.manifest.by_hand
    assert (kept.good.over, kept.good.n, kept.defects.n) == (sum(good), 4, 2)
    # Another is used for once; a quantile draws anew; None returns to the drawn one.
    assert opened(index, tiny, threshold=limit + 1).image_threshold == limit + 1
    anew = opened(index, tiny, quantile=0.5)
    assert anew.image_threshold != limit and "is not used here" in anew.notes[0]
    again.image_threshold = None
    assert again.keep_threshold().chosen.threshold == drawn == again.image_threshold
    left = opened(index, tiny)
    assert (left.image_threshold, left.by_hand, left.review) == (drawn, False, limit - 0.5)
    left.review = None
    left.keep_threshold()
    assert opened(index, tiny).manifest.by_hand == ()


def test_older_programs_refuse_what_they_would_not_see(index, tiny):
    name, model, form = (
        (MANIFEST, Manifest, FORMAT)
        if (index / MANIFEST).exists()
        else (ENSEMBLE, EnsembleManifest, ENSEMBLE_FORMAT)
    )
    before = json.loads((index / name).read_text())
    assert before["version"] == 1 and "by_hand" not in before
    spade = opened(index, tiny)
    spade.image_threshold = 40.0
    spade.keep_threshold()
    with pytest.raises(SpadeError, match="is of version 2 and this program reads versions 1;"):
        read_record(model, index / name, form, (1,))
    assert opened(index, tiny).image_threshold == 40.0


def test_it_stays_when_the_index_changes_and_that_is_said(index, tiny):
    spade = opened(index, tiny)
    spade.image_threshold = 40.0
    spade.keep_threshold()
    assert spade.notes == opened(index, tiny).notes == ()
    spade.remove(["image 5"])
    assert spade.image_threshold == 40.0 == opened(index, tiny).image_threshold
    (note,) = opened(index, tiny).notes
    assert "the threshold 40 was set by hand before images were added or removed" in note
    assert "`image_threshold=None`" in note
    spade.image_threshold = 41.0  # for once, and then for the index as it is now
    assert spade.notes == ()
    spade.keep_threshold()
    assert opened(index, tiny).notes == ()


def test_other_settings_are_named(single, tiny):
    spade = Spade.load(single, backbone=tiny)
    spade.image_threshold = 40.0
    spade.keep_threshold()
    assert Spade.load(single, backbone=tiny, k=6).notes == ()  # all that there are, too
    (note,) = Spade.load(single, backbone=tiny, k=2).notes
    assert "by other settings (K = 50" in note


def test_images_that_choose_a_threshold_end_the_one_set_by_hand(single, tiny):
    spade = Spade.load(single, backbone=tiny)
    spade.image_threshold, spade.review = 90.0, 1.0
    spade.keep_threshold()
    report = spade.calibrate(NEW[:4], false_alarms=0.5)
    assert report.present.threshold == 90 and report.chosen.threshold < 90
    assert any("threshold 90 that was set by hand no longer counts" in one for one in report.notes)
    again = Spade.load(single, backbone=tiny)
    assert again.image_threshold == report.chosen.threshold and not again.by_hand
    assert again.review == 1.0


def test_a_mark_that_does_nothing_is_named(single, tiny):
    spade = Spade.load(single, backbone=tiny)
    spade.review = 0.5 * spade.image_threshold
    spade.keep_threshold()
    low = opened(single, tiny, threshold=0.25 * spade.image_threshold)
    assert "it is not below the threshold" in low.notes[0] and len(low.notes) == 1
    assert low.verdict_of(0.3 * spade.image_threshold) == "NG"


def test_an_index_that_changed_meanwhile_keeps_what_it_has(single, tiny):
    mine, other = (Spade.load(single, backbone=tiny) for _ in range(2))
    other.remove(["image 0"])
    mine.image_threshold = 40.0
    with pytest.raises(SpadeError, match="changed meanwhile"):
        mine.keep_threshold()
    assert Manifest.read(single) == other.index_.manifest


# On the command line ----------------------------------------------------------------------


def test_the_command_judges_by_what_it_is_given(index, images, tmp_path):
    first = done("query", index, images, "--out", tmp_path / "a", "--json")
    scores = [row["score"] for row in json.loads(first.stdout)["images"]]
    limit, low = between(scores, 3), between(scores, 1)
    ended = done(
        "query",
        index,
        images,
        "--out",
        tmp_path / "b",
        "--threshold",
        limit,
        "--review",
        low,
        "--explain",
    )
    rows = rows_of(tmp_path / "b")
    expected = ["NG" if one > limit else "REVIEW" if one >= low else "OK" for one in scores]
    assert [row["verdict"] for row in rows] == expected
    assert {row["threshold"] for row in rows} == {f"{limit:.9g}"}
    assert "6 images: 2 NG, 2 REVIEW, 2 OK" in ended.stdout and not ended.stderr
    assert all(
        (tmp_path / "b" / "maps" / f"{row['path'].split('new/')[1][:-4]}.tiff").exists()
        for row in rows
    )
    for row in rows:
        path = tmp_path / "b" / "explain" / f"{row['path'].split('new/')[1][:-4]}.json"
        record = json.loads(path.read_text())
        assert (record["verdict"], record["review"]) == (row["verdict"], low)
        assert bool(record["regions"]) == (row["verdict"] != "OK")


def test_a_wrong_call_says_why_in_one_line(single, images, tmp_path):
    for options, why in (
        (("--threshold", "nan"), "finite"),
        (("--threshold", "inf"), "finite"),
        (("--threshold", "-1"), "0 or more"),
        (("--review", "1e9"), "below the threshold"),
        (("--threshold", "40", "--review", "40"), "below the threshold"),
        (("--threshold", "40", "--quantile", "0.9"), "give one of the two"),
    ):
        one_line(run("query", single, images, "--out", tmp_path / "out", *options), why)
        assert not (tmp_path / "out").exists()
    for arguments, why in (
        ((), "no good images"),
        (("--threshold", "x"), "or 'auto'"),
        (("--review", "x"), "'none'"),
        ((images, "--threshold", "40", "--false-alarms", "0.1"), "--false-alarms"),
        ((images, "--threshold", "auto"), "take no images"),
        ((images, "--review", "40"), "take no images"),
        (("--threshold", "-40"), "0 or more"),
        (("--review", "1e9"), "below the threshold"),
    ):
        one_line(run("calibrate", single, *arguments), why)
    assert Manifest.read(single).by_hand == ()


def test_calibrate_keeps_a_threshold_and_info_says_so(index, images, tmp_path):
    scores = [
        row["score"]
        for row in json.loads(
            done("query", index, images, "--out", tmp_path / "a", "--json").stdout
        )["images"]
    ]
    limit = between(scores, 3)
    ended = done(
        "calibrate",
        index,
        images / "good",
        "--defects",
        images / "hole",
        "--threshold",
        limit,
        "--review",
        limit - 1,
        "--json",
    )
    report = json.loads(ended.stdout)
    wrong = sum(score > limit for score in scores[:4])
    assert report["chosen"]["threshold"] == limit and report["review"] == limit - 1
    assert (report["chosen"]["false_alarms"]["count"], report["good"]) == (wrong, 4)
    said = done("info", index).stdout
    assert f"map: threshold {limit:.4g} instead, review from {limit - 1:.4g}" in said
    assert f"{wrong} of 4 good images over it" in said
    (kept,) = json.loads(done("info", index, "--json").stdout)["by_hand"]
    assert kept["threshold"] == limit and kept["created"] in said
    done("query", index, images, "--out", tmp_path / "b")
    rows = rows_of(tmp_path / "b")
    assert {row["threshold"] for row in rows} == {f"{limit:.9g}"}
    assert sum(row["verdict"] == "NG" for row in rows) == 2
    assert "as drawn" in done("calibrate", index, "--threshold", "auto", "--review", "none").stdout
    done("query", index, images, "--out", tmp_path / "c")
    assert [row["threshold"] for row in rows_of(tmp_path / "c")] == [
        row["threshold"] for row in rows_of(tmp_path / "a")
    ]
    assert "by hand" not in done("info", index).stdout


def test_each_line_is_judged_by_it(indices, images, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(images / "good", tmp_path / "parts" / name)
    ended = done(
        "query",
        indices,
        tmp_path / "parts",
        "--each",
        "--out",
        tmp_path / "out",
        "--threshold",
        "0.001",
    )
    assert ended.stdout.count("NG, ") == 2
    for name in ("one", "two"):
        assert {row["threshold"] for row in rows_of(tmp_path / "out" / name)} == {"0.001"}


def test_every_command_gives_the_notes(single, images, tmp_path, tiny):
    spade = Spade.load(single, backbone=tiny)
    spade.image_threshold = 40.0
    spade.keep_threshold()
    cv2.imwrite(str(tmp_path / "more.png"), texture("gravel", 1, seed=9)[0])
    for arguments in (
        ("remove", single, "image 5"),
        ("add", single, tmp_path / "more.png"),
        ("info", single),
        ("query", single, images / "hole", "--out", tmp_path / "out", "--report"),
    ):
        ended = done(*arguments, "--json")
        (note,) = json.loads(ended.stdout)["notes"]
        assert "was set by hand before images were added or removed" in note
        assert "(calibrate --threshold VALUE IMAGE…)" in note
        assert "(calibrate --threshold auto)" in note
        assert ended.stderr == f"spade-faiss: note: {note}\n"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "was set by hand before images were added or removed" in page.split("<main>")[0]


def test_build_gives_the_notes_of_each_index(images, tmp_path):
    for more, counts in (((), [("", 4)]), (("--each",), [("good: ", 4), ("hole: ", 2)])):
        ended = done(
            "build",
            images if more else images / "good",
            "--index",
            tmp_path / f"index{len(more)}",
            *TINY,
            *("--resize", "64", "--crop", "64", "-k", "9", "--json"),
            *more,
        )
        notes = json.loads(ended.stdout)["notes"]
        assert ended.stderr.splitlines() == [f"spade-faiss: note: {one}" for one in notes]
        for line, images_there in counts:
            own = [note for note in notes if note.startswith(line)]
            assert f"{line}K = 9 is more than the index's {images_there} images" in own[0]
            assert f"{line}the threshold rests on {images_there} good images" in own[1]
        assert len(notes) == 2 * len(counts)
