import numpy as np
import pytest
from scipy import ndimage

from spade_faiss import Spade
from spade_faiss.verdict import find_regions, judge_result
from tests.conftest import texture, with_hole


@pytest.fixture(scope="module")
def spade(tiny):
    return Spade(tiny, quantile=0.9).fit(texture("brick", 8))


@pytest.fixture(scope="module")
def holed(spade):
    image = with_hole(with_hole(texture("brick", 1, seed=4)[0]), x=200, y=60, radius=12)
    return next(spade.query([image]))


def test_regions_are_the_connected_places_over_the_threshold(spade, holed):
    limit = spade.pixel_threshold
    regions = find_regions(holed, spade.index_, limit)
    labels, count = ndimage.label(holed.map > limit, np.ones((3, 3)))
    assert len(regions) == count >= 2
    assert [r.peak for r in regions] == sorted((r.peak for r in regions), reverse=True)
    assert sorted(r.area for r in regions) == sorted(np.bincount(labels.ravel())[1:])
    for region in regions:
        left, top, right, bottom = region.box
        x, y = region.peak_at
        assert left <= x < right and top <= y < bottom
        inside = labels == labels[y, x]
        assert holed.map[inside].max() == np.float32(region.peak) == holed.map[y, x]
        rows, cols = np.nonzero(inside)
        assert region.box == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)


def test_matches_lead_to_the_patch_that_the_search_found(spade, holed):
    region = find_regions(holed, spade.index_, spade.pixel_threshold)[0]
    assert sorted(match.level for match in region.matches) == [1, 2, 3]
    for match in region.matches:
        level = spade.index_.manifest.levels[match.level - 1]
        cell = 224 / level.width
        column, line = ((np.array(match.query_box[:2]) - 16) / cell).round().astype(int)
        x, y = region.peak_at
        assert match.query_box[0] <= x + 0.5 <= match.query_box[2]
        assert match.query_box[1] <= y + 0.5 <= match.query_box[3]
        row = (
            match.row * (level.height * level.width) + match.patch[1] * level.width + match.patch[0]
        )
        assert row == holed.matches[match.level - 1][line, column]
        assert match.image == spade.index_.manifest.images[match.row].path
        assert match.box[:2] == pytest.approx(np.array(match.patch) * cell + 16, abs=0.1)


def test_a_finding_says_what_the_detector_says(spade, holed):
    finding = judge_result(spade, holed)
    assert (finding.score, finding.verdict) == (holed.peak, "NG")
    assert (finding.threshold, finding.pixel_threshold) == (spade.image_threshold,) * 2
    assert list(finding.regions) == find_regions(holed, spade.index_, spade.pixel_threshold)
    assert finding.review is None and judge_result(spade, holed, regions=False).regions == ()


def test_a_finding_of_an_image_to_be_reviewed_has_the_places_from_the_mark_on(spade, holed):
    detector = spade.with_options()
    detector.image_threshold, detector.review = 2 * holed.peak, 0.99 * holed.peak
    finding = judge_result(detector, holed)
    assert (finding.verdict, finding.review) == ("REVIEW", detector.review)
    assert finding.regions and min(one.peak for one in finding.regions) >= detector.review
