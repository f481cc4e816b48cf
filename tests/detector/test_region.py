"""A region: what lies outside changes nothing, is not stored, and is not counted."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.detector.average import average_maps
from spade_faiss.images import Framing
from spade_faiss.images.coverage import looked_at_on
from spade_faiss.images.roi import Roi
from spade_faiss.images.source import Frame
from spade_faiss.index.manifest import MANIFEST
from spade_faiss.index.recall import measure_recall
from spade_faiss.maps import power_mean
from spade_faiss.verdict import judge_result
from tests.conftest import texture, with_hole
from tests.maps.test_smoothing import bilinear, smooth

SIZE = (96, 128)
GOOD = [image[: SIZE[0], : SIZE[1]] for image in texture("gravel", 8)]
NEW = [image[: SIZE[0], : SIZE[1]] for image in texture("gravel", 2, seed=3)]
NEW += [with_hole(image, x=56, y=44, radius=7) for image in NEW]
MASK = cv2.ellipse(np.zeros(SIZE, np.uint8), ((60.0, 48.0), (70.0, 50.0), 20.0), 1, -1) > 0
SMALL = {"resize": 96, "quantile": 0.8}
FRAMINGS = {"crop": {"crop": 64}, "whole": {"crop": None}, "tiles": {"resize": None, "tile": 64}}


def dirty(images, seed=0):
    """Return images with noise wherever the mask does not look."""
    rng = np.random.default_rng(seed)
    return [
        np.where(MASK[..., None], image, rng.integers(0, 256, image.shape, np.uint8))
        for image in images
    ]


def found(detector, images):
    """Return all that is found of images, but for the images themselves."""
    return [
        (
            one.map.tobytes(),
            one.input_map.tobytes(),
            one.peak,
            one.descriptor_score,
            one.mean_score,
            one.neighbours.tolist(),
            [level.tobytes() for level in (*one.distances, *one.matches)],
            judge_result(detector, one),
            one.notes,
        )
        for one in detector.query(images)
    ]


def thresholds(detector):
    return detector.calibration.model_dump()


def frames(images):
    """Return images as a video's frames, each with the one before it."""
    made = []
    for i, image in enumerate(images):
        before = Frame(f"{i} before", images[max(0, i - 1)], seconds=i / 10)
        made.append(Frame(f"frame {i}", image, seconds=(i + 1) / 10, before=before))
    return made


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("preset", ["paper", "best"])
def test_dirt_outside_changes_not_a_bit(tiny, tmp_path, preset, framing):
    options = SMALL | {"preset": preset, "region": MASK} | FRAMINGS[framing]
    clean = Spade(tiny, **options).fit(GOOD, tmp_path / "clean")
    other = Spade(tiny, **options).fit(dirty(GOOD, 1), tmp_path / "dirty")
    assert thresholds(clean) == thresholds(other) and clean.image_threshold is not None
    expected = found(clean, NEW)
    assert found(clean, dirty(NEW, 2)) == expected == found(other, dirty(NEW, 3))
    assert [finding.verdict for *_, finding, _ in expected][2:] == ["NG", "NG"]
    without = Spade(tiny, **options | {"region": None}).fit(GOOD, tmp_path / "all")
    assert found(without, dirty(NEW, 2)) != found(without, NEW)


def test_dirt_outside_moves_nothing(tiny, tmp_path):
    options = SMALL | {"preset": "video", "region": MASK, "crop": None}
    clean = Spade(tiny, **options).fit(frames(GOOD), tmp_path / "clean")
    other = Spade(tiny, **options).fit(frames(dirty(GOOD, 1)), tmp_path / "dirty")
    assert clean.manifest.motion and thresholds(clean) == thresholds(other)
    expected = found(clean, frames(NEW))
    assert found(clean, frames(dirty(NEW, 2))) == expected == found(other, frames(dirty(NEW, 3)))


@pytest.mark.parametrize("views", [["flip"], ["flip", "scale"]])
def test_dirt_outside_changes_no_ensemble(tiny, tmp_path, views):
    options = SMALL | {"region": MASK, "crop": 64}
    clean = Ensemble.of([tiny], views, **options).fit(GOOD, tmp_path / "clean")
    other = Ensemble.of([tiny], views, **options).fit(dirty(GOOD, 1), tmp_path / "dirty")
    assert thresholds(clean) == thresholds(other)
    assert clean._statistics == other._statistics
    expected = found(clean, NEW)
    assert found(clean, dirty(NEW, 2)) == expected == found(other, dirty(NEW, 3))
    again = open_detector(tmp_path / "clean", networks=[tiny])
    assert found(again, NEW) == expected


def test_an_ensemble_is_standardised_by_what_is_looked_at(tiny, tmp_path):
    options = SMALL | {"region": MASK, "crop": None}
    ensemble = Ensemble.of([tiny], ["flip"], **options).fit(GOOD, tmp_path / "index")
    for member, own in zip(ensemble.members, ensemble._statistics, strict=True):
        looked = member.pipeline.framing.looked_at
        seen = np.concatenate([values[looked] for _, values in member.leave_one_out()])
        assert 0 < looked.mean() < 0.6
        assert own.map_mean == pytest.approx(seen.mean(dtype=np.float64), rel=1e-6)
        assert own.map_std == pytest.approx(seen.std(dtype=np.float64), rel=1e-5)
    results = [next(member.query(NEW)) for member in ensemble.members]
    joined = next(ensemble.query(NEW))
    looked = ensemble.pipeline.framing.looked_at
    expected = np.mean(
        [
            (one.input_map.astype(float) - own.map_mean) / own.map_std
            for one, own in zip(results, ensemble._statistics, strict=True)
        ],
        axis=0,
    )
    np.testing.assert_allclose(joined.input_map[looked], expected[looked], atol=1e-4)
    assert not joined.input_map[~looked].any() and not joined.map[~MASK].any()


def test_members_of_other_sizes_are_joined_by_what_is_looked_at():
    # A map that is 5 wherever it is looked at is 5 there in any size, up to the border.
    first = replace(Framing.choose(64, None, SIZE), roi=Roi(MASK))
    second = replace(Framing.choose(96, None, SIZE), roi=Roi(MASK))
    maps = [np.where(one.looked_at, np.float32(5), np.float32(0)) for one in (first, second)]

    class Own:
        map_mean, map_std = 1.0, 2.0

    joined, placed = average_maps(maps, [Own, Own], [first, second], SIZE)
    np.testing.assert_allclose(joined[first.looked_at], 2, rtol=1e-5)
    np.testing.assert_allclose(placed[MASK], 2, rtol=1e-5)
    assert not joined[~first.looked_at].any() and not placed[~MASK].any()
    low = [one * np.float32(0.1) for one in maps]  # all below the mean
    joined, placed = average_maps(low, [Own, Own], [first, second], SIZE)
    assert placed.max() == pytest.approx(-0.25) and joined.max() == pytest.approx(-0.25)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_patches_outside_are_not_stored(tiny, tmp_path, framing):
    options = SMALL | {"preset": "paper"} | FRAMINGS[framing]
    part = Spade(tiny, region=MASK, **options).fit(GOOD, tmp_path / "part")
    whole = Spade(tiny, **options).fit(GOOD, tmp_path / "whole")
    looked = part.pipeline.framing.looked_at
    for layout, rows, every in zip(
        part.index_.layouts, part.index_.levels, whole.index_.levels, strict=True
    ):
        (height, width), cell = layout.grid, looked.shape[0] // layout.grid[0]
        seen = looked.reshape(height, cell, width, cell).any((1, 3))
        np.testing.assert_array_equal(layout.looked_at, seen)
        if framing != "tiles":
            assert len(rows) == len(GOOD) * seen.sum()
        assert len(rows) <= len(every)
    most = 0.9 if framing == "crop" else 0.8
    assert len(part.index_.levels[0]) < most * len(whole.index_.levels[0])
    size = [
        sum(path.stat().st_size for path in (tmp_path / name).rglob("level1.faiss"))
        for name in ("part", "whole")
    ]
    assert size[0] < most * size[1]


def test_maps_are_those_of_an_oracle(tiny, tmp_path):
    spade = Spade(tiny, preset="paper", region=MASK, crop=None, **SMALL)
    spade.fit(GOOD, tmp_path / "index")
    framing = spade.pipeline.framing
    looked = [layout.looked_at for layout in spade.index_.layouts]
    for result in spade.query(NEW):
        mean, weights = (
            smooth(np.mean([bilinear(one.astype(float), framing.size) for one in some], 0), 4.0)
            for some in (result.distances, looked)
        )
        expected = (mean / weights)[framing.looked_at]
        np.testing.assert_allclose(result.input_map[framing.looked_at], expected, rtol=1e-4)
        assert not result.input_map[~framing.looked_at].any()
        # On an image of the input's own size that is the map itself.
        np.testing.assert_array_equal(result.map, result.input_map)
        assert result.mean_score == pytest.approx(power_mean(expected.astype(np.float32)), rel=1e-4)


def test_on_a_larger_image_the_border_is_as_high_as_what_lies_in_it(tiny, tmp_path):
    big = [cv2.resize(one, None, fx=2.3, fy=2.3) for one in GOOD]
    spade = Spade(tiny, preset="paper", region=MASK, crop=None, **SMALL)
    spade.fit(big, tmp_path / "index")
    framing = spade.pipeline.framing
    result = next(spade.query([cv2.resize(NEW[2], None, fx=2.3, fy=2.3)]))
    seen = looked_at_on(framing, result.map.shape)
    assert not result.map[~seen].any()
    level = np.where(framing.looked_at, np.float32(3), np.float32(0))
    placed = framing.place(level, result.map.shape)
    values = np.unique(np.round(placed[seen], 4)).tolist()
    assert values == [3.0]  # nothing fades to what is not looked at


def rebuilt(spade, folder, images):
    return spade.unfitted().fit(images, folder)


@pytest.mark.parametrize(
    "more",
    [
        {"preset": "best"},
        {"preset": "paper", "store": "float16"},
        {"preset": "paper", "kappa": 5},
        {"preset": "paper", "mirror": True},
        {"preset": "paper", "coreset": 0.5},
        {"preset": "paper", "factory": "IVF4,Flat", "search_params": "nprobe=4"},
        {"preset": "paper", "device": "cpu,cpu"},
        {"preset": "best", "tile": 64, "crop": None},
    ],
    ids=lambda one: "-".join(map(str, one.values())),
)
def test_an_index_with_a_region_grows_and_shrinks(tiny, tmp_path, more):
    network = "tiny" if "device" in more else tiny
    options = SMALL | {"crop": None, "region": MASK} | more
    files = []
    for i, image in enumerate(GOOD):
        files.append(str(tmp_path / f"{i}.png"))
        cv2.imwrite(files[-1], image[..., ::-1])
    spade = Spade(network, **options).fit(files[:6], tmp_path / "grown")
    rows = [len(level) for level in spade.index_.levels]
    spade.add(files[6:])
    spade.remove([files[6]])
    assert [len(level) // 7 for level in spade.index_.levels] == [n // 6 for n in rows]
    assert spade.settings.region == Roi(MASK)
    expected = found(spade, NEW)
    assert found(spade, dirty(NEW)) == expected
    where = {"device": more["device"]} if "device" in more else {"backbone": tiny}
    opened = Spade.load(tmp_path / "grown", **where)
    assert opened.settings.region == Roi(MASK) and found(opened, NEW) == expected
    if more.keys() == {"preset", "kappa"}:
        fresh = rebuilt(spade, tmp_path / "fresh", [*files[:6], files[7]])
        assert found(fresh, NEW) == expected and thresholds(fresh) == thresholds(spade)
    if "coreset" in more or "factory" in more:
        for one in measure_recall(spade.index_):
            assert 0.3 < one.recall_at_1 <= 1 and one.queries > 0
        assert all((result.map[~MASK] == 0).all() for result in spade.query(NEW))


def test_kappa_is_held_to_the_patches_that_are_looked_at(tiny, tmp_path):
    narrow = np.zeros(SIZE, bool)
    narrow[40:44, 60:64] = True
    spade = Spade(tiny, preset="paper", crop=None, region=narrow, k=1, **SMALL)
    spade.fit(GOOD, tmp_path / "index")
    assert [len(level) for level in spade.index_.levels] == [8, 8, 8]
    with pytest.raises(SpadeError, match="kappa = 2 is more than the patches of 1 images"):
        next(spade.with_options(kappa=2).query(NEW))


def test_further_images_are_scored_by_it(tiny, tmp_path):
    options = SMALL | {"crop": None, "region": MASK}
    spade = Spade(tiny, **options).fit(GOOD, tmp_path / "index")
    spade.calibrate(NEW[:2], NEW[2:])
    known = spade.calibration_set.good.model_dump(exclude={"names"})
    spade.calibrate(dirty(NEW[:2]), dirty(NEW[2:]))
    assert spade.calibration_set.good.model_dump(exclude={"names"}) == known


def test_an_image_that_differs_outside_alone_is_the_training_image(tiny, tmp_path):
    spade = Spade(tiny, crop=None, region=MASK, **SMALL).fit(GOOD, tmp_path / "index")
    (result,) = spade.query(dirty(GOOD[2:3]))
    assert result.training_image == "image 2" and result.peak == 0


def test_the_region_is_kept_by_its_mask_alone(tiny, tmp_path):
    large = cv2.resize(MASK.view(np.uint8), (1280, 960), interpolation=cv2.INTER_NEAREST) > 0
    spade = Spade(tiny, preset="paper", crop=None, region=large, **SMALL)
    spade.fit(GOOD, tmp_path / "index")
    record = json.loads((tmp_path / "index" / MANIFEST).read_text())
    assert record["version"] == 2
    assert Roi.from_text(record["framing"]["region"]) == Roi(large)
    everything = Spade(tiny, preset="paper", crop=None, region=np.ones(SIZE, bool), **SMALL)
    everything.fit(GOOD, tmp_path / "everything")
    without = Spade(tiny, preset="paper", crop=None, **SMALL).fit(GOOD, tmp_path / "without")
    record = json.loads((tmp_path / "without" / MANIFEST).read_text())
    assert record["version"] == 1 and "region" not in record["framing"]
    for one, other in zip(everything.query(NEW), without.query(NEW), strict=True):
        np.testing.assert_array_equal(one.map, other.map)
    assert thresholds(everything) == thresholds(without)


def test_a_part_of_an_image_is_no_note_where_it_was_asked_for(tiny, tmp_path):
    corner = np.zeros(SIZE, bool)
    corner[30:60, 40:90] = True
    spade = Spade(tiny, crop=None, region=corner, **SMALL).fit(GOOD, tmp_path / "index")
    assert not any("in part" in note for note in spade.notes)
    assert next(spade.query(NEW)).notes == ()
    edge = np.zeros(SIZE, bool)
    edge[:, :40] = True  # of which the crop sees a strip
    spade = Spade(tiny, crop=64, region=edge, **SMALL).fit(GOOD, tmp_path / "edge")
    (note,) = [note for note in spade.notes if "in part" in note]
    assert "13 % of the region of 128x96 pixels" in note and "crop=None" in note


def test_the_least_area_is_held_to_the_region(tiny, tmp_path):
    corner = np.zeros(SIZE, bool)
    corner[30:60, 40:90] = True
    options = SMALL | {"crop": None, "region": corner}
    with pytest.raises(SpadeError, match="`min_area=1501` is more than the 1500 pixels"):
        Spade(tiny, min_area=1501, **options).fit(GOOD, tmp_path / "index")
    Spade(tiny, min_area=1500, **options).fit(GOOD, tmp_path / "index")


def test_the_least_area_is_held_to_the_largest_piece(tiny, tmp_path):
    """In two pieces of 600 pixels nothing of 700 can be wrong, though 1200 are looked at."""
    pieces = np.zeros(SIZE, bool)
    pieces[10:30, 10:40] = pieces[60:80, 80:110] = True
    options = SMALL | {"crop": None, "min_area": 700}
    with pytest.raises(SpadeError, match="`min_area=700` is more than the 600 pixels"):
        Spade(tiny, region=pieces, **options).fit(GOOD, tmp_path / "index")
    spade = Spade(tiny, **options).fit(GOOD, tmp_path / "index")
    with pytest.raises(SpadeError, match="`min_area=700` is more than the 600 pixels"):
        spade.look_at(pieces)
    assert spade.settings.region is None


def test_a_piece_that_is_too_narrow_to_be_seen_is_noted(tiny, tmp_path):
    mask = np.zeros(SIZE, bool)
    mask[10:60, 10:60] = True
    wide = Spade(tiny, region=mask, crop=None, resize=48).fit(GOOD, tmp_path / "wide")
    mask[81:83, 10:110] = True
    both = Spade(tiny, region=mask, crop=None, resize=48).fit(GOOD, tmp_path / "both")
    said = "200 pixels of the region lie in pieces that are too narrow"
    assert [any(said in note for note in one.notes) for one in (wide, both)] == [False, True]


def test_kappa_may_be_more_than_the_patches_of_the_other_images(tiny):
    """A query has two images to find patches in, each of them but one."""
    corner = np.zeros(SIZE, bool)
    corner[40:52, 40:52] = True
    for preset in ("paper", "best"):
        spade = Spade(tiny, preset=preset, crop=None, region=corner, resize=96)
        few = min(layout.patches for layout in spade.fit(GOOD[:2]).index_.layouts)
        again = Spade(tiny, preset=preset, crop=None, region=corner, resize=96, kappa=few + 1)
        assert again.fit(GOOD[:2]).predict(NEW[:1]).scores[0] > 0


# What is wrong with a region ------------------------------------------------------------------


def test_a_region_of_another_aspect_is_refused_image_by_image(tiny, tmp_path):
    spade = Spade(tiny, crop=64, region=MASK, **SMALL).fit(GOOD, tmp_path / "index")
    said = []
    images = [NEW[0], NEW[0][:, :100], np.ascontiguousarray(NEW[0][::-1])]
    results = list(spade.query(images, lambda name, why: said.append((name, why))))
    assert [one.position for one in results] == [0, 2]
    ((name, why),) = said
    assert name == "image 1"
    assert why == (
        "the region is 128x96 pixels and the picture 100x96, which is another aspect: give a "
        "region drawn on such a picture"
    )


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_region_of_another_aspect_than_all_images_is_one_error(tiny, tmp_path, framing):
    spade = Spade(tiny, region=MASK.T, **SMALL | FRAMINGS[framing])
    with pytest.raises(SpadeError, match="96x128 pixels and the picture 128x96, which is another"):
        spade.fit(GOOD, tmp_path / "index", on_error=lambda name, why: pytest.fail(why))
    assert not (tmp_path / "index" / MANIFEST).exists()


@pytest.mark.parametrize(
    ("box", "more", "why"),
    [
        ((0, 96, 0, 10), {"crop": 64}, "the crop leaves out: give `crop=None`, or another"),
        ((1, 2, 1, 2), {"crop": None, "resize": 32}, "nothing of it is left on 32x32 pixels"),
        ((0, 0, 0, 0), {}, "the region is empty: nothing of it is white"),
    ],
)
def test_a_region_of_which_nothing_is_seen_is_refused(tiny, tmp_path, box, more, why):
    mask = np.zeros(SIZE, bool)
    mask[box[0] : box[1], box[2] : box[3]] = True
    with pytest.raises(SpadeError, match=why):
        Spade(tiny, region=mask, **SMALL | more).fit(GOOD, tmp_path / "index")


def test_no_region_is_given_to_an_index_that_is_there(tiny, tmp_path):
    Spade(tiny, crop=None, **SMALL).fit(GOOD, tmp_path / "index")
    with pytest.raises(TypeError, match="region is no setting that an index leaves open"):
        Spade.load(tmp_path / "index", backbone=tiny, **{"region": MASK})
