"""Images judged by their maps' power mean, and indices that say by what theirs are judged."""

import json
import shutil

import cv2
import numpy as np
import pytest

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.detector.average import shifts_of
from spade_faiss.index import Manifest, read_manifest
from spade_faiss.index.manifest import ENSEMBLE, MANIFEST
from spade_faiss.index.record import write_record
from spade_faiss.verdict import judge_result
from spade_faiss.verdict.threshold import good_threshold
from tests.conftest import texture, with_hole

SMALL = {"resize": 64, "crop": 64, "quantile": 0.8}
GOOD = texture("gravel", 6)
NEW = [*texture("gravel", 3, seed=3), *map(with_hole, texture("gravel", 2, seed=4))]


def oracle(values):
    """Return a map's power mean."""
    return float((np.asarray(values, np.float64) ** 8).mean() ** (1 / 8))


@pytest.fixture(scope="module")
def indices(tiny, tmp_path_factory):
    """Indices, and ensembles, that are judged by maps' means, and by their maxima."""
    folder = tmp_path_factory.mktemp("means")
    Spade(tiny, score="mean", **SMALL).fit(GOOD, folder / "mean")
    Spade(tiny, **SMALL).fit(GOOD, folder / "map")
    Ensemble.of([tiny], ["flip"], score="mean", **SMALL).fit(GOOD, folder / "means")
    Ensemble.of([tiny], ["flip"], **SMALL).fit(GOOD, folder / "maps")
    return folder


@pytest.fixture
def copied(indices, tmp_path):
    return lambda name: shutil.copytree(indices / name, tmp_path / name)


def opened(folder, tiny, **options):
    return open_detector(folder, networks=[tiny], **options)


def without(folder, *parts):
    """Have an index, or ensemble, look as a program wrote it that knew of no means."""
    name = MANIFEST if (folder / MANIFEST).exists() else ENSEMBLE
    record = json.loads((folder / name).read_text())
    del record["sha256"]
    for part in parts:
        record[part].pop("mean_threshold")
        for scored in (record[part], record[part].get("good"), record[part].get("defects")):
            if scored:
                scored.pop("means", None)
    write_record(folder / name, record)


def test_the_score_is_the_power_mean_of_what_the_network_saw(indices, tiny):
    spade = opened(indices / "mean", tiny)
    assert spade.score == "mean"  # as the index says
    results = list(spade.query(NEW))
    expected = [oracle(one.input_map) for one in results]
    assert [spade.score_of(one) for one in results] == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(spade.predict(NEW).scores, expected, rtol=1e-6)
    for one in results:
        assert one.input_map.mean() < one.mean_score < one.input_map.max()
        found = judge_result(spade, one)
        assert found.score == one.mean_score and found.threshold == spade.image_threshold
    other = spade.recompute_maps(results[0], levels=(1, 2))
    assert other.mean_score == pytest.approx(oracle(other.input_map)) != results[0].mean_score


def test_thresholds_are_drawn_from_such_scores_and_places_by_peaks(indices, tiny):
    spade = opened(indices / "mean", tiny)
    made = spade.calibration
    values = [oracle(one) for _, one in spade.leave_one_out()]
    assert made.means == pytest.approx(values, rel=1e-6)
    assert spade.image_threshold == made.mean_threshold == good_threshold(made.means, 0.8)
    assert spade.pixel_threshold == made.pixel_threshold == good_threshold(made.peaks, 0.8)
    spade.image_threshold = 100.0
    spade.review = 0.0
    limit = spade.pixel_threshold
    assert limit == made.pixel_threshold
    assert spade.verdict_of(1.0) == "REVIEW" and spade.limits.places_from(1.0, 2 * limit) == limit
    # Where no pixel is over it, what the score was compared with shows what is meant.
    assert -1e-300 < spade.limits.places_from(1.0, limit) < 0
    spade.review, spade.image_threshold = None, 0.5 * limit
    assert spade.verdict_of(0.6 * limit) == "NG"
    assert spade.limits.places_from(0.6 * limit, 0.9 * limit) == 0.5 * limit
    assert spade.limits.places_from(0.6 * limit, 1.1 * limit) == limit
    assert spade.limits.places_from(0.4 * limit, 0.9 * limit) == limit
    wide = spade.with_options(score="map")
    assert wide.image_threshold == wide.pixel_threshold == made.pixel_threshold


@pytest.mark.parametrize("name", ["map", "maps"])
def test_an_index_by_maxima_is_as_older_programs_know_it(indices, copied, tiny, name):
    manifest = read_manifest(indices / name)
    file = MANIFEST if isinstance(manifest, Manifest) else ENSEMBLE
    assert manifest.version == 1 and "means" not in (indices / name / file).read_text()
    detector = opened(indices / name, tiny)
    assert detector.score == "map" and detector.calibration.means == ()
    other = detector.with_options(score="mean")
    assert other.image_threshold is None and other.verdict_of(5.0) == ""
    assert other.pixel_threshold == detector.pixel_threshold
    assert other.notes == (
        "no threshold, so no verdicts: the good images have no scores for `score='mean'`, and have "
        "to be scored anew: call draw_thresholds",
    )
    other.draw_thresholds()
    assert other.notes == () and other.calibration.peaks == detector.calibration.peaks
    by_mean = opened(indices / f"mean{name[3:]}", tiny)
    assert other.image_threshold == by_mean.image_threshold
    loaded = opened(copied(name), tiny, score="mean")  # which draws what is missing
    assert loaded.image_threshold == other.image_threshold
    threshold = opened(indices / name, tiny, score="mean", threshold=1.0)
    assert threshold.image_threshold == 1.0 and threshold.calibration.means == ()


def test_the_index_says_what_its_images_are_judged_by(indices, copied, tiny, tmp_path):
    manifest = Manifest.read(indices / "mean")
    assert (manifest.score, manifest.version) == ("mean", 2)
    record = json.loads((indices / "mean" / MANIFEST).read_text())
    assert record["score"] == "mean" and len(record["calibration"]["means"]) == 6
    assert opened(indices / "mean", tiny, score="descriptor").score == "descriptor"
    by_descriptor = Spade(tiny, score="descriptor", **SMALL).fit(GOOD)
    assert by_descriptor.manifest.score == "descriptor" and by_descriptor.calibration.means == ()
    # It stays with a change, whatever changed it was judged by.
    folder = copied("mean")
    path = str(tmp_path / "more.png")
    cv2.imwrite(path, NEW[0][..., ::-1])
    opened(folder, tiny, score="map").add([path])
    assert Manifest.read(folder).score == "mean"
    again = opened(folder, tiny)
    anew = Spade(tiny, score="mean", **SMALL).fit([*GOOD, NEW[0]])
    assert again.calibration.means == pytest.approx(anew.calibration.means, rel=1e-6)
    again.remove([path])
    before = Manifest.read(indices / "mean").calibration
    assert again.calibration.means == pytest.approx(before.means, rel=1e-6)
    with pytest.raises(SpadeError, match="unknown score 'peak': choose one of map, descriptor, me"):
        Spade(tiny, score="peak")


def test_what_is_unchanged_is_taken_over_with_its_means(copied, tiny, monkeypatch):
    from spade_faiss.detector import leave_one_out

    folder, scored = copied("mean"), []
    original = leave_one_out.map_scores

    def counted(pipeline, images, others, *, exact):
        scored.extend(images.tolist())
        return original(pipeline, images, others, exact=exact)

    monkeypatch.setattr(leave_one_out, "map_scores", counted)
    spade = Spade.load(folder, backbone=tiny, k=1)
    assert len(scored) == 6  # by another K
    before = spade.fit(GOOD, folder).calibration.means
    others, _ = leave_one_out.nearest_others(spade.pipeline, np.arange(6))
    nearest = [int(one[0, 0]) for one in others]
    gone = min(range(6), key=lambda i: (nearest.count(i), i))  # on which the fewest scores rest
    scored.clear()
    spade.remove([f"image {gone}"])
    left = [i for i in range(6) if i != gone]
    assert scored == [at for at, i in enumerate(left) if nearest[i] == gone] and len(scored) < 5
    same = [i for i in left if nearest[i] != gone]
    assert [spade.calibration.means[left.index(i)] for i in same] == [before[i] for i in same]


@pytest.mark.parametrize("name", ["map", "mean", "means"])
def test_calibrate_keeps_such_scores_whatever_images_are_judged_by(copied, tiny, name):
    folder = copied(name)
    detector = opened(folder, tiny)
    report = detector.calibrate(NEW[:3], NEW[3:], false_alarms=0.2)
    assert report.score == detector.score
    held = opened(folder, tiny).calibration_set
    results = list(detector.query(NEW[:3]))
    assert held.good.means == pytest.approx([one.mean_score for one in results])
    by_mean = opened(folder, tiny, score="mean")
    assert by_mean.image_threshold == held.mean_threshold > max(held.good.means)
    assert by_mean.pixel_threshold == held.pixel_threshold
    moved = by_mean.drift([one.mean_score for one in results], held.good.descriptor_scores)
    assert not moved.warned and moved.over == 0


def test_a_calibration_of_an_older_version_has_none_and_that_is_said(copied, tiny):
    folder = copied("mean")
    opened(folder, tiny).calibrate(NEW[:3], false_alarms=0.2)
    without(folder, "held_out")
    spade = opened(folder, tiny)
    assert spade.calibration_set.mean_threshold is None
    assert spade.image_threshold == spade.calibration.mean_threshold
    assert spade.pixel_threshold == spade.calibration_set.pixel_threshold
    assert spade.notes[0] == (
        "the calibration has no scores for `score='mean'`, so the threshold is drawn from the "
        "index's own images: calibrate again"
    )
    with pytest.raises(SpadeError, match=r"no scores for `score='mean'`: make it anew with `cal"):
        spade.drift([1.0], [1.0])
    assert not opened(folder, tiny, score="map").notes[1:]
    # Nor do the index's own images.
    without(folder, "calibration")
    unscored = opened(folder, tiny, calibrate=False)
    assert unscored.image_threshold is None and "call draw_thresholds" in unscored.notes[0]
    unscored.add(NEW[4:])  # which scores all of them
    assert len(unscored.calibration.means) == 7 and unscored.image_threshold > 0
    spade = opened(folder, tiny)
    spade.calibrate(NEW[:3], false_alarms=0.2)
    assert spade.image_threshold == spade.calibration_set.mean_threshold


@pytest.mark.parametrize("name", ["map", "maps"])
def test_a_threshold_by_hand_is_of_such_scores_alone(copied, tiny, name):
    folder = copied(name)
    detector = opened(folder, tiny, score="mean")
    drawn, by_map = detector.image_threshold, detector.pixel_threshold
    detector.image_threshold, detector.review = drawn + 1, drawn
    report = detector.keep_threshold(NEW[:3], NEW[3:])
    scores = [one.mean_score for one in detector.query(NEW)]
    assert report.score == "mean" and report.present.threshold == drawn
    assert report.chosen.found.count == sum(score > drawn + 1 for score in scores[3:])
    again = opened(folder, tiny, score="mean")
    assert (again.image_threshold, again.review, again.by_hand) == (drawn + 1, drawn, True)
    assert again.pixel_threshold == by_map
    assert not opened(folder, tiny).by_hand and not opened(folder, tiny, score="descriptor").by_hand
    assert opened(folder, tiny, score="mean", quantile=0.5).image_threshold < drawn
    again.image_threshold = again.review = None
    again.keep_threshold()
    assert again.manifest.by_hand == ()
    assert opened(folder, tiny, score="mean").image_threshold == drawn


def test_an_ensemble_s_is_the_mean_of_its_members_in_the_maps_unit(indices, tiny):
    ensemble = opened(indices / "means", tiny)
    assert ensemble.score == "mean" and read_manifest(indices / "means").version == 2
    parts = [[values for _, values in one.leave_one_out()] for one in ensemble.members]
    units = [(np.mean(maps, dtype=np.float64), np.std(maps, dtype=np.float64)) for maps in parts]

    def joined(maps):
        each = [(oracle(one) - mean) / std for one, (mean, std) in zip(maps, units, strict=True)]
        return np.mean(each)

    good = [joined(maps) for maps in zip(*parts, strict=True)]
    assert ensemble.calibration.means == pytest.approx(good, rel=1e-4)
    shift = np.mean([mean / std for mean, std in units])
    limit = good_threshold(np.array(good) + shift, 0.8) - shift
    assert ensemble.image_threshold == pytest.approx(limit, rel=1e-4)
    queried = [list(one.query(NEW)) for one in ensemble.members]
    expected = [joined([one.input_map for one in each]) for each in zip(*queried, strict=True)]
    results = list(ensemble.query(NEW))
    assert [ensemble.score_of(one) for one in results] == pytest.approx(expected, rel=1e-3)
    for one in results:  # it lies as it does for one member
        assert one.input_map.mean() < one.mean_score
    assert max(expected[:3]) < min(expected[3:])
    alone = Ensemble([Spade(tiny, score="mean", **SMALL)]).fit(GOOD)
    result = next(alone.query(NEW))
    shifts = shifts_of([one.statistics for one in alone.manifest.members])
    assert result.mean_score + shifts["mean"] == pytest.approx(
        oracle(result.input_map + shifts["map"]), rel=1e-4
    )


def test_an_ensemble_of_an_older_version_is_scored_anew(copied, tiny):
    folder = copied("means")
    fitted = opened(folder, tiny)
    without(folder, "calibration")
    old = opened(folder, tiny, calibrate=False)
    assert old.image_threshold is None and "call draw_thresholds" in old.notes[0]
    assert opened(folder, tiny).image_threshold == pytest.approx(fitted.image_threshold)
    scores = [[one.mean_score for one in each.query(NEW)] for each in (old, fitted)]
    assert scores[0] == scores[1]  # for which no more is needed


def test_a_preset_names_the_score(tiny):
    spade = Spade(tiny, preset="best", **SMALL)
    assert (spade.score, spade.settings.preset) == ("mean", "best")
    other = Spade(tiny, preset="best", score="map", **SMALL)
    assert (other.score, other.settings.preset) == ("map", "best")
    assert Spade(tiny, preset="paper").score == "map"
    spade.fit(GOOD)
    assert spade.manifest.score == "mean" and spade.image_threshold > 0
