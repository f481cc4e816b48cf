"""Pictures seen in tiles: what is found of them, against plain arithmetic in float64."""

import cv2
import numpy as np
import pytest
from skimage import data

from spade_faiss import Spade
from spade_faiss.detector.leave_one_out import LeftOut, map_scores, nearest_others
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
    monkeypatch.setattr("spade_faiss.detector.fit.suits_elsewhere", lambda _: elsewhere)
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
        assert np.array_equal(one.map, two.map) and one.mean_score == two.mean_score
        assert whole.image_threshold == tiled.image_threshold
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
