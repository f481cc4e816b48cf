import csv
import json
import shutil

import cv2
import numpy as np
import pytest

from spade_faiss import Spade, SpadeError
from spade_faiss.datasets.demo import render
from spade_faiss.index import Index, Manifest
from spade_faiss.verdict.rates import expected_rate, observed_rate
from spade_faiss.verdict.threshold import good_threshold
from tests.command import done, one_line, run
from tests.conftest import texture

KINDS = ("hole", "crack", "scratch")
OTHER = "the calibration is of other settings, so thresholds are drawn from the index's own images"


def views(kind, count, seed=0):
    return [render(seed, "gravel", kind, i).image for i in range(count)]


@pytest.fixture(scope="module")
def built(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrate") / "index"
    Spade(tiny, resize=64, crop=64).fit(views("train", 8), folder)
    return folder


@pytest.fixture
def index(built, tmp_path):
    return shutil.copytree(built, tmp_path / "index")


def tried(spade):
    """Try an index on 24 good images and 6 defects; return it, the report, the threshold before."""
    before = spade.image_threshold
    defects = [image for kind in KINDS for image in views(kind, 2)]
    return spade, spade.calibrate(views("good", 24), defects, false_alarms=0.1), before


@pytest.fixture(scope="module")
def calibrated(tiny, built, tmp_path_factory):
    folder = shutil.copytree(built, tmp_path_factory.mktemp("calibrated") / "index")
    return tried(Spade.load(folder, backbone=tiny))


@pytest.fixture(scope="module")
def real(lite, tmp_path_factory):
    """An index of a pretrained network's features, tried."""
    spade = Spade(lite).fit(views("train", 8), tmp_path_factory.mktemp("real") / "index")
    return tried(spade)[0]


def test_the_report_counts_what_a_query_of_the_same_images_says(tiny, built, calibrated):
    report, before = calibrated[1:]
    fresh = Spade.load(built, backbone=tiny)
    good = fresh.predict(views("good", 24)).scores
    bad = fresh.predict([image for kind in KINDS for image in views(kind, 2)]).scores
    assert (report.good, report.defects, report.score, report.wished) == (24, 6, "map", 0.1)
    assert report.present.threshold == before == fresh.image_threshold
    assert report.present.false_alarms == observed_rate(int((good > before).sum()), 24)
    assert report.present.found == observed_rate(int((bad > before).sum()), 6)
    limit = report.chosen.threshold
    assert limit == pytest.approx(good_threshold(good, 0.9), rel=1e-5) and report.needed == 9
    # The 23rd of 24: by exchangeability 2 in 25 are above it, though only 1 in 24 of these is.
    assert report.chosen.false_alarms == expected_rate(1, 24, 0.9)
    assert report.chosen.false_alarms.value == 2 / 25
    assert report.chosen.found == observed_rate(int((bad > limit).sum()), 6)
    assert report.chosen.found.count >= 1
    assert not report.notes and "expect at most 8 %" in report.text()


def test_what_was_chosen_is_used_by_every_later_query(tiny, calibrated):
    spade, report, before = calibrated
    loaded = Spade.load(spade.index_.folder, backbone=tiny)
    assert loaded.image_threshold == loaded.pixel_threshold == report.chosen.threshold != before
    assert loaded.quantile == 0.9 and loaded.calibration_set == spade.calibration_set
    by_descriptor = Spade.load(spade.index_.folder, backbone=tiny, score="descriptor")
    assert by_descriptor.image_threshold == loaded.calibration_set.descriptor_threshold
    assert by_descriptor.pixel_threshold == report.chosen.threshold
    # Another share is drawn from the same scores, other settings from the index's own images.
    half = Spade.load(spade.index_.folder, backbone=tiny, quantile=0.5)
    assert half.image_threshold == good_threshold(loaded.calibration_set.good.peaks, 0.5)
    other = Spade.load(spade.index_.folder, backbone=tiny, k=2)
    assert (
        other.calibration_set is None and other.image_threshold == other.calibration.pixel_threshold
    )
    assert OTHER in other.notes and OTHER not in (*loaded.notes, *half.notes)
    by_descriptor = Spade.load(spade.index_.folder, backbone=tiny, k=2, score="descriptor")
    by_descriptor.image_threshold = 1.0
    assert OTHER in by_descriptor.notes  # the map's threshold is drawn all the same
    other.image_threshold = 1.0
    assert OTHER not in other.notes
    assert Spade.load(
        spade.index_.folder, backbone=tiny, k=99
    ).calibration_set  # more than there are


@pytest.mark.slow
def test_without_scores_of_its_own_other_settings_leave_no_threshold(tiny):
    spade = Spade(tiny, resize=64, crop=64).fit(views("train", 8), calibrate=False)
    spade.calibrate(views("good", 6))
    other = spade.with_options(k=2)
    assert spade.image_threshold is not None and other.image_threshold is None
    assert other.notes == (
        "no threshold, so no verdicts: the good images were scored by other settings",
    )


@pytest.mark.slow
def test_thresholds_hold_the_wished_rate_on_real_scores(real):
    held = real.calibration_set.good
    rng = np.random.default_rng(0)
    for scores in (np.array(held.peaks), np.array(held.descriptor_scores)):
        # Of 19, a rank for 0.2; a log-normal limit for 0.05, whose rank would be the largest score.
        for n, wished, off in ((19, 0.2, 0.01), (19, 0.05, 0.04), (8, 0.05, 0.06)):
            over = []
            for _ in range(6000):
                mixed = rng.permutation(scores)
                limit = good_threshold(mixed[:n], 1 - wished)
                over.append((mixed[n:] > limit).mean())
            # Exact for ranks; the log-normal limit is off by what these scores are off from it.
            assert np.mean(over) <= wished + off


def test_an_index_that_was_never_calibrated_stays_readable_by_older_programs(tiny, index):
    record = json.loads((index / "manifest.json").read_text())
    assert record["version"] == 1 and "held_out" not in record
    spade = Spade.load(index, backbone=tiny)
    spade.calibrate(views("good", 2))
    record = json.loads((index / "manifest.json").read_text())
    assert record["version"] == 2 and len(record["held_out"]["good"]["peaks"]) == 2
    assert Index.open(index).manifest == spade.index_.manifest
    spade.save(index.parent / "copy")
    assert Manifest.read(index.parent / "copy").calibration_set == spade.calibration_set
    # A change's thresholds are its own, for the rate that was wished for last.
    spade.calibrate(views("good", 3), false_alarms=0.2)
    spade.add(views("train", 9)[8:])
    assert spade.calibration_set is None and Manifest.read(index).version == 1
    assert spade.image_threshold == good_threshold(spade.calibration.peaks, 0.8)
    assert spade.calibration.quantile == 0.8


def test_images_that_would_mislead_are_named_and_left_out(tiny, index):
    spade = Spade.load(index, backbone=tiny)
    good, hole = views("good", 3), views("hole", 1)[0]
    problems = []
    report = spade.calibrate(
        [good[0], views("train", 5)[4], good[1], good[0], good[2], np.zeros((4, 4, 3), np.uint8)],
        [hole, good[2]],
        on_error=lambda *problem: problems.append(problem),
    )
    assert (report.good, report.defects) == (2, 1)
    whys = sorted(problems)
    assert whys[0] == (
        "image 1",
        "is given as good and as a defect; it counts as neither; left out",
    )
    assert whys[1] == (
        "image 1",
        "is in the index, as image 4, and says nothing of new ones; left out",
    )
    assert whys[2] == ("image 3", "shows what image 0 shows; it counts once; left out")
    assert whys[3][0] == "image 5" and "4x4" in whys[3][1] and len(whys) == 4
    assert spade.calibration_set.good.names == ("image 0", "image 2")
    with pytest.raises(SpadeError, match="image 0: is in the index, as image 2"):
        spade.calibrate(views("train", 3)[2:])


@pytest.mark.parametrize(
    "images, why",
    [
        ([], "no images"),
        (1, "1 good image to calibrate with.*two or more"),
    ],
)
def test_too_few_good_images_are_refused_and_change_nothing(tiny, index, images, why):
    before = Manifest.read(index)
    with pytest.raises(SpadeError, match=why):
        Spade.load(index, backbone=tiny).calibrate(views("good", images) if images else [])
    assert Manifest.read(index) == before


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_a_rate_is_between_0_and_1(tiny, built, rate):
    with pytest.raises(SpadeError, match="false_alarms"):
        Spade.load(built, backbone=tiny).calibrate([], false_alarms=rate)


def test_notes_say_what_the_figures_are_worth(tiny, index):
    spade = Spade.load(index, backbone=tiny)
    wrong = [image for kind in KINDS for image in views(kind, 1)]
    brick = [image // 3 for image in texture("brick", 3)]
    first = spade.calibrate(brick, wrong, false_alarms=0.05)
    # Another texture, given as good: nothing can know, but it can be noticed.
    assert "3 of 3 images given as good are over the threshold" in first.notes[0]
    assert (
        "rests on 3 good images: it aims at 5 % of false alarms, which takes 19" in (first.notes[1])
    )
    assert first.chosen.false_alarms.value == 1 / 4
    assert first.chosen.threshold > max(spade.calibration_set.good.peaks)
    again = spade.calibrate(brick[:2], false_alarms=0.05)
    assert again.present.false_alarms.count == 0 and again.present.found is None
    assert any("was chosen by 2 of these images" in note for note in again.notes)


def test_an_index_that_changes_meanwhile_keeps_its_thresholds(tiny, index):
    mine, other = Spade.load(index, backbone=tiny), Spade.load(index, backbone=tiny)
    other.remove(["image 0"])
    with pytest.raises(SpadeError, match="changed meanwhile; calibrate it again"):
        mine.calibrate(views("good", 2))
    assert Manifest.read(index) == other.index_.manifest and not other.calibration_set


def blurred(image):
    return cv2.GaussianBlur(image, (0, 0), 1)


def brighter(image):
    return np.clip(image * 1.6, 0, 255).astype(np.uint8)


def lighter(image):
    return np.clip(image * 1.35, 0, 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("change", [None, blurred, brighter, lighter])
def test_drift_of_real_images(real, change):
    spade = real
    count = 60 if change is lighter else 10
    batch = views("good", count, seed=5)
    results = list(spade.query([change(image) for image in batch] if change else batch))
    found = spade.drift(
        [spade.score_of(one) for one in results], [one.descriptor_score for one in results]
    )
    assert found.warned == (change is not None), found
    assert (found.images, found.reference) == (count, 24)
    if change is lighter:  # which neither score alone shows well
        assert max(found.effect, found.score_effect) < found.apart
    if change is blurred:  # which maps hardly notice
        assert found.over <= 3 and found.effect > 0.85 and "farther" in found.text


@pytest.mark.slow
def test_real_batches_that_have_not_changed_are_seldom_warned_of(real):
    from spade_faiss.verdict.drift import LEVEL, detect_drift

    held = real.calibration_set.good
    scores = np.stack([held.peaks, held.descriptor_scores])
    rng = np.random.default_rng(0)
    count = 0
    for _ in range(1500):
        mixed = scores[:, rng.permutation(24)]
        new, old = mixed[:, :8], mixed[:, 8:]
        count += detect_drift(new[0], old[0], np.sort(old[0])[-2], new[1], old[1]).warned
    assert count / 1500 <= 1.6 * LEVEL


def test_drift_needs_a_calibration(tiny, built):
    with pytest.raises(SpadeError, match=r"make one with `calibrate\(images\)`"):
        Spade.load(built, backbone=tiny).drift([1.0], [1.0])


def test_a_gallery_s_calibration_is_of_its_search(tiny, tmp_path):
    spade = Spade(tiny, factory="IVF8,Flat", search_params="nprobe=1").fit(
        views("train", 3), tmp_path / "index"
    )
    spade.calibrate(views("good", 2))
    assert spade.calibration_set.search == "nprobe=1"
    assert Spade.load(tmp_path / "index", backbone=tiny).calibration_set
    assert not Spade.load(tmp_path / "index", backbone=tiny, exact=True).calibration_set
    wider = Spade.load(tmp_path / "index", backbone=tiny, search_params="nprobe=8")
    assert not wider.calibration_set


def test_the_command_line(index, tmp_path):
    for kind, count in (("good", 6), ("hole", 2)):
        (tmp_path / kind).mkdir()
        for i, image in enumerate(views(kind, count)):
            cv2.imwrite(str(tmp_path / kind / f"{i}.png"), image[..., ::-1])
    train = tmp_path / "train.png"
    cv2.imwrite(str(train), views("train", 1)[0][..., ::-1])
    cut = tmp_path / "cut.png"
    cut.write_bytes(train.read_bytes()[:5000])
    good, hole = tmp_path / "good", tmp_path / "hole"
    one_line(run("calibrate", index, hole / "gone.png"), "no such file")
    one_line(run("calibrate", index, good, "--false-alarms", "2"), "false_alarms = 2")
    one_line(run("query", index, good, "--out", tmp_path / "o", "--drift"), "calibrate")
    ended = done(
        "calibrate",
        index,
        good,
        train,
        cut,
        "--defects",
        hole,
        "--false-alarms",
        "0.2",
        "--json",
        status=1,
    )
    report = json.loads(ended.stdout)
    assert (report["good"], report["defects"], report["wished"]) == (6, 2, 0.2)
    errors = {row["path"]: row["error"] for row in report["errors"]}
    assert set(errors) == {str(train), str(cut)}
    assert "is in the index, as image 0" in errors[str(train)]
    assert len(ended.stderr.splitlines()) == 2
    limit = report["chosen"]["threshold"]
    assert f"6 images and 2 defects; thresholds now: map {limit:.4g}" in done("info", index).stdout
    ended = done("query", index, good, "--out", tmp_path / "o", "--drift", "--json")
    drift = json.loads(ended.stdout)["drift"]
    assert (drift["warned"], drift["images"], drift["reference"]) == (False, 6, 6)
    with (tmp_path / "o" / "scores.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert float(row["threshold"]) == pytest.approx(limit, rel=1e-8)
    ended = done("query", index, hole, "--out", tmp_path / "p", "-k", "2")
    assert "of other settings" in ended.stderr and len(ended.stderr.splitlines()) == 1
    ended = done("remove", index, "image 7", "--json")
    assert json.loads(ended.stdout)["calibration_dropped"] is True
    assert "is dropped" in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert (
        json.loads(done("remove", index, "image 6", "--json").stdout)["calibration_dropped"]
        is False
    )


def test_images_that_are_hardly_seen_are_noted(tiny, tmp_path):
    small = [image[:64, :64] for image in texture("gravel", 5)]
    spade = Spade(tiny, resize=64, crop=64, engine="faiss").fit(small[:3], tmp_path / "index")
    strips = [np.resize(image, (64, 640, 3)) for image in small[3:]]
    report = spade.calibrate(strips)
    assert report.notes[-1] == (
        "seen only in part: 2 images, image 0 (10 % of 640x64 pixels), image 1 (10 % of 640x64 "
        "pixels); an index built with `crop=None` sees all of them"
    )
