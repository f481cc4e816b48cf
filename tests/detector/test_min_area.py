"""A least area: hot spots do not count, in scores, thresholds, verdicts and regions alike."""

import json
from dataclasses import replace

import numpy as np
import pytest

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.index.manifest import ENSEMBLE, MANIFEST
from spade_faiss.maps import area_peak, power_mean
from spade_faiss.pictures.drawing import overlay_picture
from spade_faiss.report.cards import card_of
from spade_faiss.verdict import find_regions, judge_result, over, shown_map
from spade_faiss.verdict.threshold import good_threshold
from tests.conftest import texture, with_hole

SMALL = {"resize": 64, "crop": 64, "quantile": 0.8}
AREA = 600
GOOD = texture("gravel", 6)
NEW = [*texture("gravel", 3, seed=3), *map(with_hole, texture("gravel", 2, seed=4))]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """Indices and ensembles with a least area and without."""
    folder = tmp_path_factory.mktemp("area")
    Spade(tiny, **SMALL).fit(GOOD, folder / "all")
    Spade(tiny, score="mean", min_area=AREA, **SMALL).fit(GOOD, folder / "large")
    views = ["flip", "scale"]
    Ensemble.of([tiny], views, **SMALL).fit(GOOD, folder / "alls")
    Ensemble.of([tiny], views, score="mean", min_area=AREA, **SMALL).fit(GOOD, folder / "larges")
    return folder


def opened(folder, tiny, **options):
    return open_detector(folder, networks=[tiny], **options)


def spotted(spade, side, places, value=5.0):
    """Return a result of an image with a map that is high at some patches of the finest level."""
    result = next(spade.query([texture("gravel", 1)[0][:side, :side]]))
    fine, *others = (np.zeros_like(level) for level in result.distances)
    for x, y in places:
        fine[y, x] = value
    return replace(result, distances=(fine, *others))


def judged(spade, result):
    result = spade.recompute_maps(result)
    return result, judge_result(spade, result)


def test_a_hot_spot_is_wrong_but_not_with_a_least_area(folder, tiny):
    # A patch of 8 x 8 pixels of the network's input is 3 x 3 pixels of such an image.
    spade = opened(folder / "all", tiny).with_options(sigma=0)
    spot = spotted(spade, 24, [(4, 4)])
    spade.image_threshold = 0.5 * spade.recompute_maps(spot).peak
    result, finding = judged(spade, spot)
    assert finding.verdict == "NG" and [one.area for one in finding.regions] == [9]
    strict = spade.with_options(min_area=20)
    assert strict.min_area == 20 and strict.image_threshold == spade.image_threshold
    clipped, finding = judged(strict, spot)
    assert finding.verdict == "OK" and finding.regions == () and finding.score < result.peak
    assert finding.score == clipped.map.max() == area_peak(result.map, 20)
    np.testing.assert_array_equal(clipped.map, np.minimum(result.map, clipped.peak))
    np.testing.assert_array_equal(clipped.input_map, np.minimum(result.input_map, clipped.peak))
    both = spotted(spade, 24, [(1, 1), (4, 4), (5, 4), (4, 5), (5, 5), (4, 6), (5, 6)])
    for detector, areas in ((spade, 2), (strict, 1)):
        result, finding = judged(detector, both)
        assert finding.verdict == "NG" and len(finding.regions) == areas
        assert finding.regions[0].area > 20


def test_a_defect_keeps_its_score(folder, tiny):
    everything, strict = (opened(folder / "all", tiny, min_area=area) for area in (None, 100))
    hole = with_hole(texture("gravel", 1, seed=4)[0], radius=13)  # of 530 pixels
    was, now = (next(spade.query([hole])) for spade in (everything, strict))
    assert 0.97 * was.peak < now.peak == area_peak(was.map, 100) < was.peak
    assert now.peak == now.input_map.max() == now.map.max()
    assert now.mean_score == power_mean(np.minimum(was.input_map, np.float32(now.peak)))
    assert now.min_area == 100 and was.min_area is None


@pytest.mark.parametrize("name", ["all", "alls"])
def test_an_image_is_wrong_by_its_map_where_a_region_is_listed(folder, tiny, name):
    strict = opened(folder / name, tiny, min_area=AREA, quantile=0.8)
    everything = opened(folder / name, tiny)
    for result, whole in zip(strict.query(NEW), everything.query(NEW), strict=True):
        np.testing.assert_array_equal(result.map, np.minimum(whole.map, np.float32(result.peak)))
        assert result.peak == area_peak(whole.map, AREA) and result.min_area == AREA
        values = np.unique(whole.map)
        limits = [*values[:: len(values) // 40].tolist(), result.peak, whole.peak]
        for limit in [*limits, np.nextafter(result.peak, -np.inf)]:
            regions = find_regions(result, strict.index_, limit)
            assert (result.peak > limit) == bool(regions)
            assert all(one.area >= AREA for one in regions)
            shown = over(shown_map(result, limit), limit)
            assert shown.sum() == sum(one.area for one in regions)
        assert shown_map(whole, limits[0]) is whole.map and shown_map(result, None) is result.map


def test_thresholds_are_drawn_by_the_same_rule(folder, tiny):
    everything, strict = (opened(folder / name, tiny) for name in ("all", "large"))
    assert (strict.min_area, strict.score, everything.min_area) == (AREA, "mean", None)
    whole = [values for _, values in everything.leave_one_out()]
    framing = strict.index_.manifest.framing.framing()
    peaks = [area_peak(framing.place(one, (256, 256)), AREA) for one in whole]
    means = [power_mean(np.minimum(o, np.float32(p))) for o, p in zip(whole, peaks, strict=True)]
    made = strict.calibration
    assert made.peaks == tuple(peaks) and made.means == pytest.approx(means, rel=1e-12)
    assert max(peaks) < max(everything.calibration.peaks)
    assert strict.pixel_threshold == good_threshold(peaks, 0.8)
    assert strict.image_threshold == good_threshold(made.means, 0.8)
    for (_, clipped), one, peak in zip(strict.leave_one_out(), whole, peaks, strict=True):
        np.testing.assert_array_equal(clipped, np.minimum(one, np.float32(peak)))
    # As they are where an index without a least area is opened with one, and the other way round.
    assert opened(folder / "all", tiny, min_area=AREA).calibration.peaks == made.peaks
    wide = opened(folder / "large", tiny, min_area=1)
    assert wide.min_area is None and wide.calibration.peaks == everything.calibration.peaks


def test_an_ensemble_counts_areas_of_its_joined_map(folder, tiny):
    everything, strict = (opened(folder / name, tiny) for name in ("alls", "larges"))
    assert (strict.min_area, strict.score) == (AREA, "mean")
    assert [one.min_area for one in strict.members] == [AREA] * 3
    assert strict._statistics == everything._statistics  # of whole maps
    made = strict.calibration
    for result, whole in zip(strict.query(NEW), everything.query(NEW), strict=True):
        peak = area_peak(whole.map, AREA)
        assert result.peak == peak < whole.peak and result.mean_score < whole.mean_score
    powers = []
    for member, own in zip(strict.members, strict._statistics, strict=True):
        alone = [one.mean_score for one in member.query(NEW)]
        powers.append([(power - own.map_mean) / own.map_std for power in alone])
    expected = np.mean(powers, axis=0)
    np.testing.assert_allclose([one.mean_score for one in strict.query(NEW)], expected, rtol=1e-9)
    assert max(made.peaks) < max(everything.calibration.peaks)
    again = opened(folder / "alls", tiny, min_area=AREA)
    assert again.calibration.peaks == made.peaks and again.calibration.means == made.means


def test_further_images_are_scored_by_it_and_what_is_kept_says_so(tiny, tmp_path):
    spade = Spade(tiny, min_area=AREA, **SMALL).fit(GOOD, tmp_path / "index")
    spade.calibrate(NEW[:3], NEW[3:])
    held = Spade.load(tmp_path / "index", backbone=tiny).calibration_set
    scores = [one.peak for one in spade.query(NEW[:3])]
    assert held.min_area == AREA and sorted(held.good.peaks) == sorted(scores)
    other = spade.with_options(min_area=AREA // 2)
    assert other.calibration_set is None and other.image_threshold is None
    spade.image_threshold = 3.0
    spade.keep_threshold()
    (kept,) = spade.manifest.by_hand
    assert kept.min_area == AREA and not any("by hand" in note for note in spade.notes)
    assert any(f"min_area = {AREA}" in note for note in other.notes)
    spade.add(texture("gravel", 1, seed=9))
    assert spade.manifest.min_area == spade.calibration.min_area == AREA


def test_an_index_without_one_is_as_older_programs_know_it(folder, tiny, tmp_path):
    for name, file in (("all", MANIFEST), ("alls", ENSEMBLE)):
        assert "min_area" not in (folder / name / file).read_text()
        assert json.loads((folder / name / file).read_text())["version"] == 1
    spade = Spade(tiny, min_area=1, **SMALL).fit(GOOD, tmp_path / "index")
    assert "min_area" not in (tmp_path / "index" / MANIFEST).read_text()
    assert spade.manifest.version == 1
    record = json.loads((folder / "large" / MANIFEST).read_text())
    assert record["version"] == 2 and record["min_area"] == AREA


def test_an_image_that_is_smaller_is_noted(folder, tiny):
    for name in ("large", "larges"):
        detector = opened(folder / name, tiny)
        small, large = detector.query([GOOD[0][:24, :24], NEW[0]])
        (note,) = [note for note in small.notes if "least area" in note]
        assert note == f"smaller than the least area that counts: 576 of {AREA} pixels"
        assert not any("least area" in note for note in large.notes)
        assert detector.verdict_of(detector.score_of(small)) == "OK"


@pytest.mark.parametrize("area", [0, -3, 2.5, "20"])
def test_what_is_no_area_is_refused(tiny, area):
    with pytest.raises(SpadeError, match=f"^min_area = {area} must be a whole number, 1 or more$"):
        Spade(tiny, min_area=area)


def test_an_area_that_does_nothing_is_refused(folder, tiny, tmp_path):
    with pytest.raises(SpadeError, match="does nothing to `score='descriptor'`"):
        Spade(tiny, score="descriptor", min_area=20)
    Spade(tiny, score="descriptor", min_area=1)
    with pytest.raises(SpadeError, match="`min_area=65537` is more than the 65536 pixels"):
        Spade(tiny, min_area=65537, **SMALL).fit(GOOD, tmp_path / "index")
    with pytest.raises(SpadeError, match="leave out `min_area`"):
        opened(folder / "large", tiny, score="descriptor")
    by_descriptor = opened(folder / "large", tiny, score="descriptor", min_area=1)
    assert by_descriptor.image_threshold is not None


def test_pictures_outline_what_counts_alone(folder, tiny):
    spade = opened(folder / "all", tiny).with_options(sigma=0)
    both = spotted(spade, 24, [(1, 1), (4, 4), (5, 4), (4, 5), (5, 5), (4, 6), (5, 6)])
    spade.image_threshold = 0.5 * spade.recompute_maps(both).peak
    framing, outlines, pictures = spade.index_.manifest.framing.framing(), [], []
    for detector in (spade, spade.with_options(min_area=20)):
        result, finding = judged(detector, both)
        card = card_of(result, finding, detector.index_, (512, 100_000), str)
        outlines.append(card["paths"]["outline"].count("M"))
        pictures.append(overlay_picture(result, finding, framing))
    assert outlines == [2, 1]
    under_banner = (pictures[0] != pictures[1])[44:].any(-1)
    assert under_banner.any() and not under_banner[:, :448].any()  # the image is as it was
    cell = under_banner[: 448 // 3, 456 : 456 + 448 // 3]  # where the small spot is
    assert cell.sum() > 1000
