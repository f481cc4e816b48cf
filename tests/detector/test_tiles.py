"""Pictures seen in tiles: what is found of them, against plain arithmetic in float64."""

import itertools
import pickle

import cv2
import numpy as np
import pytest
from skimage import data

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.detector.leave_one_out import LeftOut, map_scores, nearest_others
from spade_faiss.detector.neighbours import other_units
from spade_faiss.images import Frame
from spade_faiss.report import explanation_picture
from spade_faiss.verdict import find_regions
from tests.conftest import with_hole
from tests.maps.test_smoothing import oracle_map

HEIGHT, WIDTH = 200, 260
SEEN = {"tile": 96, "overlap": 32}
CORNERS = [(y, x) for y in (0, 64, 128) for x in (0, 64, 128, 192)]
"""Of tiles of 96 pixels over 200 x 260, which are 224 x 288 with what is mirrored around them."""


def pictures(name, count, seed=0):
    """Return uint8 [200, 260, 3] views of a photograph of a texture, each of another tint."""
    photo = getattr(data, name)()
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        y, x = rng.integers(0, photo.shape[0] - HEIGHT), rng.integers(0, photo.shape[1] - WIDTH)
        tint = rng.uniform(0.85, 1, 3)
        found.append((photo[y : y + HEIGHT, x : x + WIDTH, None] * tint).astype(np.uint8))
    return found


def scenes(count, seed=0):
    """Return pictures of one scene, which differ in light and noise alone."""
    rng = np.random.default_rng(seed)
    scene = pictures("brick", 1, 5)[0].astype(float)
    for at, colour in enumerate(np.random.default_rng(1).integers(0, 256, (20, 3))):
        corner = np.random.default_rng(at).integers(0, (WIDTH - 50, HEIGHT - 50))
        end = corner + np.random.default_rng(at).integers(10, 50, 2)
        cv2.rectangle(scene, corner.tolist(), end.tolist(), colour.tolist(), -1)
    return [
        np.clip(scene * rng.uniform(0.95, 1.05) + rng.normal(0, 3, scene.shape), 0, 255).astype(
            np.uint8
        )
        for _ in range(count)
    ]


def trays(count, seed=0):
    """Return pictures of the same parts on a dark ground, each time in another order."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        tray = rng.integers(0, 12, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        for at, kind in enumerate(rng.permutation(20)):
            y, x = at // 5 * 50 + 25, at % 5 * 52 + 26
            colour = np.random.default_rng(kind).integers(60, 256, 3).tolist()
            angle = float(rng.uniform(0, 180))
            cv2.ellipse(tray, (x, y), (22, 8 + kind % 4 * 4), angle, 0, 360, colour, -1)
        found.append(tray)
    return found


def in_float64(network, images):
    """Return each tile's features, descriptors [n, parts, D] and levels [n, parts, h, w, C]."""
    descriptors, levels = [], []
    for image in images:
        wide = np.pad(image, ((12, 12), (14, 14), (0, 0)), "symmetric")
        tiles = np.stack([wide[y : y + 96, x : x + 96] for y, x in CORNERS])
        features = network(tiles)
        descriptors.append(features.descriptors.numpy().astype(np.float64))
        levels.append([level.numpy().astype(np.float64) for level in features.levels])
    return np.stack(descriptors), [np.stack(own) for own in zip(*levels, strict=True)]


def oracle(features, good, k, kappa, *, elsewhere):
    """SPADE of one image by tiles in float64: (descriptor score, joined levels, map)."""
    descriptors, levels = features
    scores, parts = [], []
    for part, descriptor in enumerate(descriptors):
        far = ((good[0] - descriptor) ** 2).sum(-1)
        if not elsewhere:
            far[:, [at for at in range(len(CORNERS)) if at != part]] = np.inf
        near = np.argsort(far.ravel(), kind="stable")[: min(k, np.isfinite(far).sum())]
        scores.append(far.ravel()[near].mean())
        own = []
        for level, gallery in zip(levels, good[1], strict=True):
            pool = gallery.reshape(-1, *gallery.shape[2:])[near].reshape(-1, gallery.shape[-1])
            rows = level[part].reshape(-1, level.shape[-1])
            pairs = (rows**2).sum(1)[:, None] - 2 * rows @ pool.T + (pool**2).sum(1)
            pairs = np.sqrt(np.maximum(np.partition(pairs, kappa - 1, axis=1)[:, :kappa], 0))
            own.append(pairs.mean(1).reshape(level.shape[1:3]))
        parts.append(own)
    joined = []
    for own in zip(*parts, strict=True):
        side, cell = len(own[0]), 96 // len(own[0])
        inner = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
        weight = np.minimum(inner[:, None], inner)
        total, weights = np.zeros((2, 224 // cell, 288 // cell))
        for (y, x), values in zip(CORNERS, own, strict=True):
            here = np.s_[y // cell : y // cell + side, x // cell : x // cell + side]
            total[here] += values * weight
            weights[here] += weight
        joined.append(total / weights)
    return max(scores), joined, oracle_map(joined, (224, 288), 4)


def with_place(spade, *, elsewhere):
    """Return a detector whose index compares tiles with those of any place, or of their own."""
    index = spade.index_
    index.manifest = index.manifest.extended(elsewhere=elsewhere)
    return spade.with_pipeline(spade.pipeline.on(index))


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("k, kappa", [(50, 1), (3, 1), (4, 3)])
def test_a_query_by_tiles_equals_a_float64_brute_force(tiny, k, kappa, elsewhere):
    train = pictures("brick", 5)
    test = [with_hole(pictures("brick", 1, 5)[0]), pictures("gravel", 1)[0]]
    good, new = in_float64(tiny, train), in_float64(tiny, test)
    spade = Spade(tiny, k, kappa, batch_size=5, **SEEN).fit(train, calibrate=False)
    spade = with_place(spade, elsewhere=elsewhere)
    for i, result in enumerate(spade.query(test)):
        score, joined, expected = oracle(
            (new[0][i], [level[i] for level in new[1]]), good, k, kappa, elsewhere=elsewhere
        )
        assert result.descriptor_score == pytest.approx(score, rel=1e-4)
        for found, level in zip(result.distances, joined, strict=True):
            np.testing.assert_allclose(found, level, rtol=1e-4)
        np.testing.assert_allclose(result.input_map, expected, rtol=1e-4)
        np.testing.assert_allclose(result.map, expected[12:-12, 14:-14], rtol=1e-4)
        assert result.peak == result.map.max() and result.map.shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_matched_patch_is_the_one_whose_distance_is_told(tiny, elsewhere):
    """Where one tile alone looks: there no two distances are joined."""
    spade = Spade(tiny, batch_size=5, **SEEN).fit(pictures("grass", 4), calibrate=False)
    spade = with_place(spade, elsewhere=elsewhere)
    new = pictures("grass", 1, 7)
    result = next(spade.query(new))
    own = in_float64(tiny, new)[1]
    index = spade.index_
    for level, found, near, gallery, layout in zip(
        own, result.matches, result.distances, index.levels, index.layouts, strict=True
    ):
        cell = 96 // layout.part[0]
        for part, (y, x) in enumerate(CORNERS):
            # The middle 32 pixels of a tile, of which neighbours see nothing.
            at = [
                (y + down, x + right)
                for down in range(32, 64, cell)
                for right in range(32, 64, cell)
            ]
            for line, column in at:
                patch = level[0, part, (line - y) // cell, (column - x) // cell]
                there = line // cell, column // cell
                true = np.sqrt(((patch - gallery[found[there]].astype(np.float64)) ** 2).sum())
                assert near[there] == pytest.approx(true, rel=1e-4)
                if not elsewhere:
                    place = layout.place(int(found[there]))
                    corner = layout.corners[part]
                    assert all(
                        0 <= a - b < side
                        for a, b, side in zip(place[1:], corner, layout.part, strict=True)
                    )


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("k, kappa", [(50, 1), (2, 1), (3, 3)])
def test_calibration_is_as_if_each_image_had_not_been_learnt(tiny, k, kappa, elsewhere):
    train = pictures("gravel", 4)
    spade = Spade(tiny, k, kappa, **SEEN).fit(train, calibrate=False)
    spade = with_place(spade, elsewhere=elsewhere)
    images = np.arange(4)
    others, scores = nearest_others(spade.pipeline, images)
    found = map_scores(spade.pipeline, images, others, exact=False)
    features = in_float64(tiny, train)
    for i in range(4):
        rest = [j for j in range(4) if j != i]
        score, _, expected = oracle(
            (features[0][i], [level[i] for level in features[1]]),
            (features[0][rest], [level[rest] for level in features[1]]),
            k,
            kappa,
            elsewhere=elsewhere,
        )
        assert scores[i] == pytest.approx(score, rel=1e-4)
        assert found[i][0] == pytest.approx(expected[12:-12, 14:-14].max(), rel=1e-4)


@pytest.mark.parametrize("preset", ["paper", "best"])
@pytest.mark.parametrize("kappa", [1, 3])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_one_search_found_equals_a_search_for_each(
    tiny, monkeypatch, preset, kappa, elsewhere
):
    """Normal distances and thresholds come of one search; its scores are those of another."""
    monkeypatch.setattr("spade_faiss.detector.generation.suits_elsewhere", lambda _: elsewhere)
    spade = Spade(tiny, 3, kappa, preset=preset, **SEEN).fit(pictures("gravel", 4))
    pipeline, images = spade.pipeline, np.arange(4)
    assert spade.index_.manifest.elsewhere == elsewhere
    left_out = LeftOut(pipeline)
    list(left_out.search())
    others, _ = nearest_others(pipeline, images)
    again = map_scores(pipeline, images, others, exact=True)
    np.testing.assert_allclose(list(left_out.scores(images)), again, rtol=1e-5)
    np.testing.assert_allclose([peak for peak, _ in again], spade.calibration.peaks, rtol=1e-5)
    if preset == "best":
        np.testing.assert_allclose([mean for _, mean in again], spade.calibration.means, rtol=1e-5)
    maps = [values for _, values in spade.leave_one_out()]
    np.testing.assert_allclose(
        [values[12:-12, 14:-14].max() for values in maps], spade.calibration.peaks, rtol=1e-5
    )


def test_one_tile_that_covers_all_is_the_whole_picture(tiny):
    """Of a square of 256 pixels it is what is seen without tiles."""
    square = [np.ascontiguousarray(one[:192, :192]) for one in pictures("brick", 5)]
    new = [with_hole(np.ascontiguousarray(pictures("brick", 1, 9)[0][:192, :192]))]
    for preset in ("paper", "best"):
        whole = Spade(tiny, preset=preset, resize=192, crop=None).fit(square)
        tiled = Spade(tiny, preset=preset, tile=192).fit(square)
        assert tiled.index_.parts == 1 and not tiled.index_.manifest.elsewhere
        one, two = next(whole.query(new)), next(tiled.query(new))
        assert np.array_equal(one.map, two.map)
        assert one.mean_score == pytest.approx(two.mean_score, rel=1e-12)  # summed in another order
        assert whole.image_threshold == pytest.approx(tiled.image_threshold, rel=1e-12)
        assert all(map(np.array_equal, one.matches, two.matches))


def test_fixed_scenes_are_compared_at_their_own_place_and_trays_anywhere(tiny, tmp_path):
    """What is chosen at first stays, whatever comes and goes later."""
    for name, images, others, elsewhere in (
        ("scene", scenes(6), trays(1), False),
        ("tray", trays(6), scenes(1), True),
    ):
        paths = [tmp_path / f"{name} {i}.png" for i in range(7)]
        for path, image in zip(paths, images + others, strict=True):
            cv2.imwrite(str(path), image)
        spade = Spade(tiny, **SEEN).fit(paths[:6], tmp_path / name)
        assert spade.index_.manifest.elsewhere == elsewhere, name
        for change in (lambda: spade.add(paths[6:]), lambda: spade.remove([f"{name} 2.png"])):  # noqa: B023
            assert change() == 1
            assert spade.index_.manifest.elsewhere == elsewhere
            loaded = Spade.load(tmp_path / name, backbone=tiny)
            assert loaded.index_.manifest.elsewhere == elsewhere


def test_one_picture_alone_does_not_say_where_tiles_are_to_be_sought(tiny, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, image in zip(paths, trays(6), strict=True):
        cv2.imwrite(str(path), image)
    spade = Spade(tiny, **SEEN).fit(paths[:1], tmp_path / "index")
    assert not spade.index_.manifest.elsewhere
    spade.add(paths[1:])
    assert spade.index_.manifest.elsewhere


def test_an_image_is_never_compared_with_its_own_tiles(tiny):
    """Not even where all others are its copies, which then are better than nothing."""
    image = trays(1)[0]
    noise = np.random.default_rng(0)
    alike = [np.clip(image + noise.normal(0, 1, image.shape), 0, 255).astype(np.uint8)] * 2
    index = Spade(tiny, **SEEN).fit([image, *alike, image[:, ::-1]]).index_
    for images in (np.arange(4), np.array([2])):
        units, _ = other_units(index, 50, images, elsewhere=True)
        for i, own in zip(images.tolist(), units, strict=True):
            assert own.shape[1] and not (own // index.parts == i).any()


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_make_no_difference(tiny, batch_size):
    train, new = pictures("gravel", 4), [with_hole(one) for one in pictures("gravel", 3, 5)]
    for preset in ("paper", "best"):
        many, few = (
            Spade(tiny, preset=preset, batch_size=size, **SEEN).fit(train)
            for size in (64, batch_size)
        )
        for one, other in zip(many.query(new), few.query(new), strict=True):
            np.testing.assert_allclose(one.map, other.map, rtol=1e-4, atol=1e-4)
            assert one.name == other.name and one.neighbours.tolist() == other.neighbours.tolist()
        assert few.image_threshold == pytest.approx(many.image_threshold, rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 5, 8])
def test_no_more_tiles_are_seen_at_once_than_a_batch_has(tiny, batch_size):
    seen = []
    spade = Spade(tiny, batch_size=batch_size, **SEEN)
    spade.pipeline.lazy_network.take(CountingBackbone(tiny, seen))
    spade.fit(pictures("gravel", 3))
    list(spade.query(pictures("gravel", 2)))
    assert max(shape[0] for shape in seen) == min(batch_size, 12)
    assert {shape[1:3] for shape in seen} == {(96, 96)}
    assert sum(shape[0] for shape in seen) == 5 * 12


class CountingBackbone:
    """A network that notes what it is shown."""

    def __init__(self, network, seen):
        self._network, self._seen = network, seen

    def __call__(self, images):
        self._seen.append(images.shape)
        return self._network(images)

    def __getattr__(self, name):
        return getattr(self._network, name)


@pytest.fixture(scope="module")
def spade(tiny):
    return Spade(tiny, **SEEN).fit(pictures("brick", 5))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "best"])
def test_devices_share_the_patches_of_tiles(tiny, preset):
    train, new = pictures("brick", 4), [with_hole(pictures("brick", 1, 5)[0])]
    one, two = (
        Spade(tiny, preset=preset, device=device, engine="faiss", **SEEN).fit(train)
        for device in ("cpu", "cpu,cpu")
    )
    np.testing.assert_allclose(
        two.predict(new).maps[0], one.predict(new).maps[0], rtol=1e-5, atol=1e-6
    )
    assert two.image_threshold == pytest.approx(one.image_threshold, rel=1e-5)


def test_a_saved_index_is_the_same_and_so_are_its_settings(spade, tmp_path):
    new = pictures("brick", 2, 7)
    spade.save(tmp_path / "kept")
    loaded = Spade.load(tmp_path / "kept", backbone=spade.network)
    assert (loaded.settings.tile, loaded.settings.overlap) == (96, 32)
    assert loaded.index_.manifest == spade.index_.manifest
    assert np.array_equal(loaded.predict(new).scores, spade.predict(new).scores)
    fresh = Spade(spade.network, preset="paper", **SEEN)
    again = pickle.loads(pickle.dumps(fresh.with_options(backbone="tiny").settings))
    assert (again.tile, again.overlap, again.resize) == (96, 32, None)
    # What was cut as it is stays so when another is fitted by its settings.
    refitted = loaded.unfitted().fit(pictures("brick", 2))
    assert refitted.index_.manifest.framing == loaded.index_.manifest.framing


@pytest.mark.slow
def test_float16_and_galleries_find_nearly_the_same(spade):
    train = pictures("brick", 5)
    new = [with_hole(pictures("brick", 1, 5)[0]), pictures("brick", 1, 7)[0]]
    exact = spade.predict(new).maps
    for settings in (
        {"store": "float16"},
        {"factory": "Flat"},
        {"factory": "IVF8,Flat", "search_params": "nprobe=8"},
    ):
        other = Spade(spade.network, **settings, **SEEN).fit(train)
        assert other.index_.parts == 12
        # A gallery has the patches of all tiles.
        whole = with_place(spade.with_options(k=60), elsewhere=True)
        expected = exact if "store" in settings else whole.predict(new).maps
        for found, true in zip(other.predict(new).maps, expected, strict=True):
            np.testing.assert_allclose(found, true, rtol=2e-3)
    coreset = Spade(spade.network, coreset=0.1, **SEEN).fit(train)
    assert (coreset.predict(new).scores >= 0.999 * whole.predict(new).scores).all()
    assert coreset.calibration is not None


def test_neighbours_are_images_and_a_training_image_is_known(spade):
    train, new = pictures("brick", 5), pictures("brick", 1, 7)
    first, other = spade.query([train[3], new[0]])
    assert first.neighbours[0] == 3 and first.training_image == "image 3"
    assert first.peak < 1e-3 * spade.image_threshold
    assert any("image 3" in note for note in first.notes)
    assert other.training_image is None and other.notes == ()
    assert sorted(set(other.neighbours.tolist())) == sorted(other.neighbours.tolist())
    assert set(other.neighbours.tolist()) <= set(range(5))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_good_patch_that_is_shown_is_where_it_was_planted(tiny, elsewhere):
    """A mark of the good image is found again, in another tile's place or in its own."""
    good = [np.full((HEIGHT, WIDTH, 3), 90, np.uint8) for _ in range(3)]
    new = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)

    def mark(image, x, y, colour):
        image[y : y + 32, x : x + 32] = colour
        image[y : y + 32 : 4, x : x + 32] = 255

    # Places in the canvas are multiples of 32: the picture begins at (14, 12) in it.
    there = (192 - 14, 128 - 12) if elsewhere else (64 - 14, 64 - 12)
    mark(good[1], *there, (200, 40, 40))
    mark(new, 64 - 14, 64 - 12, (210, 60, 40))  # is like it, and not the same
    spade = Spade(tiny, sigma=0, batch_size=3, **SEEN).fit(good, calibrate=False)
    spade = with_place(spade, elsewhere=elsewhere)
    (region,) = find_regions(next(spade.query([new])), spade.index_, 1.0)[:1]
    for match in region.matches:
        assert match.row == 1 and match.image == "image 1"
        left, top, right, bottom = match.box
        assert there[0] <= left and right <= there[0] + 32
        assert there[1] <= top and bottom <= there[1] + 32
    picture = explanation_picture(next(spade.query([new])), spade.index_, [region])
    assert picture.ndim == 3 and picture.std() > 0


def test_a_mirror_view_sees_each_tile_mirrored(tiny):
    """Of mirror images, a detector that mirrors finds the mirrored map."""
    train, new = pictures("brick", 4), with_hole(pictures("brick", 1, 5)[0])

    def mirrored(image):
        return np.ascontiguousarray(image[:, ::-1])

    plain = Spade(tiny, **SEEN).fit(train)
    mirror = Spade(tiny, mirror=True, **SEEN).fit(list(map(mirrored, train)))
    mirror = with_place(mirror, elsewhere=plain.index_.manifest.elsewhere)
    one, two = next(plain.query([new])), next(mirror.query([mirrored(new)]))
    np.testing.assert_allclose(two.map[:, ::-1], one.map, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_an_ensemble_of_networks_and_views(tiny, tmp_path):
    train = pictures("brick", 5)
    ensemble = Ensemble.of([tiny, tiny], ["flip"], **SEEN).fit(train, tmp_path / "both")
    assert len(ensemble.members) == 4
    assert all(one.index_.parts == 12 for one in ensemble.members)
    good, bad = ensemble.query([pictures("brick", 1, 7)[0], with_hole(pictures("brick", 1, 5)[0])])
    assert ensemble.score_of(good) < ensemble.image_threshold < ensemble.score_of(bad)
    loaded = open_detector(tmp_path / "both", networks=[tiny, tiny])
    assert loaded.image_threshold == ensemble.image_threshold
    assert loaded.add(pictures("brick", 1, 8)) == 1 and len(loaded.index_) == 6
    with pytest.raises(SpadeError, match="leave out `tile`, or take the view 'flip'"):
        Ensemble.of([tiny], ["scale"], **SEEN)


@pytest.mark.parametrize("score", ["map", "mean"])
def test_thresholds_and_scores_are_those_of_whole_pictures(tiny, score):
    train = pictures("brick", 5)
    spade = Spade(tiny, score=score, min_area=150, quantile=0.8, **SEEN).fit(train)
    held = pictures("brick", 5, 3)
    bad = [with_hole(one) for one in pictures("brick", 2, 4)]
    report = spade.calibrate(held, bad)
    assert report.chosen.threshold == spade.image_threshold
    for result in spade.query(bad):
        assert spade.score_of(result) > spade.image_threshold
        assert (result.map >= result.peak - 1e-4).sum() >= 150
        windows = [
            result.input_map[y : y + 96, x : x + 96]
            for y in range(0, 224 - 95, 8)
            for x in range(0, 288 - 95, 8)
        ]
        most = max((one.astype(np.float64) ** 8).mean() ** (1 / 8) for one in windows)
        assert most <= result.mean_score * (1 + 1e-6) < 1.1 * most


def test_pictures_are_brought_to_the_size_that_is_asked_for(tiny):
    big = [cv2.resize(one, (520, 400)) for one in pictures("brick", 5)]
    spade = Spade(tiny, resize=200, **SEEN).fit(big)
    framing = spade.index_.manifest.framing.framing()
    assert framing.tiles.picture == (200, 260) and spade.index_.parts == 12
    result = next(spade.query([with_hole(big[0], x=240, y=260, radius=32)]))
    assert result.map.shape == (400, 520)
    y, x = np.unravel_index(result.map.argmax(), result.map.shape)
    assert np.hypot(x - 240, y - 260) < 48


def test_bad_tiles_are_told_in_the_words_of_python(tiny):
    train = pictures("brick", 2)
    for settings, why in (
        ({"tile": 224}, "`tile=224` is larger than the picture, 260x200"),
        ({"tile": 80}, "`tile=80` must be a multiple of the network's patches of 32 pixels"),
        ({"tile": 0}, "`tile=0` is too small: choose 28 or more"),
        ({"tile": 96, "overlap": 65}, "`overlap=65` must lie between 0 and 64 pixels"),
        ({"overlap": 32}, "`overlap` is of tiles: give `tile`, too"),
        ({"tile": 96, "crop": 100}, "leave out `crop=100`, or `tile`"),
        ({"tile": 96, "resize": 64}, "`tile=96` is larger than the shorter side, `resize=64`"),
        ({"tile": 96, "resize": 400}, "`resize=400` would enlarge pictures of 260x200"),
        ({"tile": 96.5}, "tile = 96.5 must be a whole number of pixels"),
    ):
        with pytest.raises(SpadeError, match=why):
            Spade(tiny, **settings).fit(train)


def test_a_picture_smaller_than_those_learnt_is_left_out(spade):
    good = pictures("brick", 2, 7)
    told = []
    found = list(spade.query([good[0], good[0][:199], good[1]], lambda *one: told.append(one)))
    assert [one.name for one in found] == ["image 0", "image 2"]
    assert told == [
        (
            "image 1",
            "is 260x199 pixels, and the index looks at 260x200, in tiles: an image enlarged to "
            "that would lack what is learnt; take it as the index's were taken",
        )
    ]
    assert (
        len(
            Spade(spade.network, **SEEN)
            .fit([good[0], good[1], good[0][:100]], on_error=lambda *one: told.append(one))
            .index_
        )
        == 2
    )


def test_motion_is_seen_in_tiles_too(tiny):
    """What moves is one more level: its distances join to those of the whole picture."""

    def frames(seed):
        still = pictures("brick", 6, seed)
        return [
            Frame(f"frame {i}", image, i / 10, before=Frame("before", before, (i - 1) / 10))
            for i, (before, image) in enumerate(itertools.pairwise(still))
        ]

    spade = Spade(tiny, preset="video", **SEEN).fit(frames(1))
    assert spade.index_.manifest.motion and spade.index_.parts == 12
    (result, *_) = spade.query(frames(2))
    layout = spade.index_.layouts[-1]
    assert result.distances[-1].shape == layout.grid
    still = next(spade.query([pictures("brick", 1, 2)[0]]))
    assert any("frame" in note or "moves" in note for note in still.notes)
