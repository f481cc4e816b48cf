import json

import cv2
import numpy as np
import pytest

from spade_faiss import Spade, SpadeError
from spade_faiss.datasets import load_mvtec, make_demo
from spade_faiss.detector.presets import PRESETS
from spade_faiss.evaluation import evaluate_category
from spade_faiss.features.scale import Spread
from spade_faiss.index import Index
from spade_faiss.index.layout import Layout
from spade_faiss.maps.contrast import SHARE, contrast, contrast_unit, normal_distances
from tests.command import TINY, done, one_line, run
from tests.conftest import texture, with_hole
from tests.detector.test_detector import in_float64, oracle
from tests.maps.test_smoothing import oracle_map


def whole(distances, own, n):
    """Normal distances by brute force, of distances [n, Q, n, G] from each patch to each."""
    rows = []
    for i in range(n):
        near = distances[i].min(-1)  # [Q, n]
        near[:, i] = np.inf
        first = near.argmin(1)
        rows.append(np.stack([near.min(1), first, np.sort(near, 1)[:, 1]], 1))
    return np.concatenate(rows)


def test_spread_equals_numpy_and_survives_a_large_mean():
    rng = np.random.default_rng(0)
    rows = (rng.normal(0, [1, 2, 5], (500, 3)) + 1e4).astype(np.float32)
    spread = Spread()
    for part in np.split(rows, [3, 100, 101]):
        spread.add(part)
    np.testing.assert_allclose(spread.std(), rows.astype(np.float64).std(0), rtol=1e-9)
    np.testing.assert_allclose(spread.factors(), 1 / (spread.std() * 3**0.5), rtol=1e-6)
    np.testing.assert_allclose(spread.factors(0.5), 1 / (spread.std() * 3) ** 0.5, rtol=1e-6)


def test_channels_that_never_vary_are_left_alone():
    spread = Spread()
    spread.add(np.ones((4, 5), np.float32))
    assert np.array_equal(spread.factors(), np.ones(5))
    spread.add(np.array([[1, 1, 1, 1, 3]], np.float32))
    assert np.isfinite(spread.factors()).all()


def test_normal_distances_and_contrast_say_what_they_say():
    distances = np.array([[1, 2, 3], [1, 2, 3]], np.float32)
    none = (np.empty(0, np.int64),) * 8
    own = normal_distances(distances, np.array([[4, 4, 7], [4, 4, 4]]), none)
    assert own.tolist() == [[1, 4, 3], [1, 4, 3]]
    copies = (*none[:4], np.array([6]), none[5], np.array([4]), none[7])
    images = np.array([[4, 6, 7], [7, 4, 6]])
    assert normal_distances(distances, images, none).tolist() == [[1, 4, 2], [1, 7, 2]]
    assert normal_distances(distances, images, copies).tolist() == [[1, 4, 3], [1, 7, 2]]
    far = np.array([[5, 0.1]], np.float32)
    match = np.array([[0, 1]])
    for without, normal in (([], 1), ([4], 3), ([7], 1), ([7, 4], 3)):
        for share, unit in ((0.5, 1), (SHARE, 4)):
            found = contrast(
                far,
                match,
                own,
                Layout((1, 2), (1, 2), ((0, 0),)),
                share=share,
                around=0,
                unit=unit,
                without=without,
            )
            np.testing.assert_allclose(found, [[(5 - share * normal) / unit, 0]], rtol=1e-6)


def test_normal_distances_around_a_match_count_with_its_own():
    grid = Layout((3, 4), (3, 4), ((0, 0),))
    own = np.zeros((24, 3), np.float32)
    own[:, 0], own[:, 1], own[:, 2] = 1, 5, 2
    own[[13, 20], 0] = 10  # in the second image, [3, 4]: at (0, 1) and (2, 0)
    own[17, 1] = 0  # at (1, 1), which image 0 made nearer
    far = np.full((3, 4), 50, np.float32)
    match = np.full((3, 4), 0)
    match[0, 0], match[0, 1], match[1, 2] = 12, 17, 23
    found = 50 - contrast(far, match, own, grid, share=1, around=1)
    # A corner counts four times, and what is beside it twice; the rest once.
    expected = [(7 + 2 * 10) / 9, (7 + 2 * 10) / 9, 1, 1]
    assert found[[0, 0, 1, 2], [0, 1, 2, 3]] == pytest.approx(expected, rel=1e-5)
    without = 50 - contrast(far, match, own, grid, share=1, around=1, without=[0])
    assert without[0, 1] == pytest.approx((6 + 2 * 10 + 2) / 9, rel=1e-5)
    batch = contrast(
        np.stack([far, far + 1]), np.stack([match, match]), own, grid, share=1, around=1
    )
    np.testing.assert_allclose(50 - batch[0], found, rtol=1e-5)
    np.testing.assert_allclose(51 - batch[1], found, rtol=1e-5)


def test_a_unit_counts_a_part_once_however_often_it_was_shot():
    normal = np.array([[1], [3], [5], [7], [5], [7]], np.float32).repeat(3, 1)
    assert contrast_unit(normal, np.array([1, 0.5, 0.5])) == pytest.approx(4)
    assert contrast_unit(0 * normal, np.ones(3)) == 1


def wide_in_float64(tiny, images):
    """Features of images with a margin of 32 pixels: 16 that the crop cuts off, 16 mirrored."""
    wide = [np.pad(image, ((16, 16), (16, 16), (0, 0)), "symmetric") for image in images]
    features = tiny(np.stack(wide))
    return (
        features.descriptors.numpy().astype(np.float64),
        [level.numpy().astype(np.float64) for level in features.levels],
    )


def levels_of(wide):
    """The levels without the margin of 4, 2 and 1 patches, then averages, patch by patch."""
    cut, means = [], []
    for level, cells, (size, step) in zip(wide, (4, 2, 1), ((4, 2), (4, 2), (3, 1)), strict=True):
        inner = level.shape[1] - 2 * cells
        cut.append(level[:, cells : cells + inner, cells : cells + inner])
        at = [cells - 1 + step * i for i in range(inner // step)]
        rows = [[level[:, y : y + size, x : x + size].mean((1, 2)) for x in at] for y in at]
        means.append(np.stack([np.stack(row, 1) for row in rows], 1))
    return cut + means


def around(values):
    """The mean over each place of [n, h, w] and the eight around it, or the border's again."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), "edge")
    h, w = values.shape[1:]
    return sum(padded[:, y : y + h, x : x + w] for y in range(3) for x in range(3)) / 9


def test_best_equals_a_float64_brute_force(tiny):
    train, new = texture("brick", 4), [with_hole(texture("brick", 1, seed=5)[0])]
    spade = Spade(tiny, preset="best", batch_size=4).fit(train, calibrate=False)
    good, seen = wide_in_float64(tiny, train), wide_in_float64(tiny, new)
    result = next(spade.query(new))
    stored = spade.index_.normal_distances()
    # Descriptors are scaled by less: by the root of the deviations.
    std = good[0].std(0)
    std = np.maximum(std, 0.01 * np.sqrt((std**2).mean()))
    apart = (seen[0][0] - good[0]) ** 2 / std
    assert result.descriptor_score == pytest.approx(apart.mean(), rel=1e-3)
    galleries, queries = levels_of(good[1]), levels_of(seen[1])
    maps = []
    for at, found in enumerate(result.distances):
        gallery, query = galleries[at], queries[at][0]
        channels = gallery.shape[-1]
        std = gallery.reshape(-1, channels).std(0)
        std = np.maximum(std, 0.01 * np.sqrt((std**2).mean())) * channels**0.5
        rows = (gallery / std).reshape(4, -1, channels)
        normal = stored[at].reshape(4, *gallery.shape[1:3], 3)
        if rows.shape[1] <= 49:  # for the brute force over all pairs
            far = np.sqrt(((rows[:, :, None, None] - rows[None, None]) ** 2).sum(-1))
            expected = whole(far, None, 4)
            assert np.allclose(stored[at][:, 0], expected[:, 0], rtol=1e-4)
            assert (stored[at][:, 1] == expected[:, 1]).all()
            # Of a second image the distance is exact, or a little less than that.
            assert (stored[at][:, 2] <= expected[:, 2] * (1 + 1e-4)).all()
            assert (stored[at][:, 2] >= stored[at][:, 0]).all()
        match = rows.reshape(-1, channels)[result.matches[at]]
        true = np.sqrt(((query / std - match) ** 2).sum(-1))
        usual = around(normal[..., 0].astype(np.float64)).reshape(-1)[result.matches[at]]
        true = np.maximum(true - SHARE * usual, 0) / normal[..., 0].mean(dtype=np.float64)
        np.testing.assert_allclose(found, true, rtol=1e-3, atol=1e-4)
        maps.append(true)
    assert [one.shape for one in maps] == [(28, 28), (14, 14), (7, 7), (14, 14), (7, 7), (7, 7)]
    np.testing.assert_allclose(
        result.input_map, oracle_map(maps, (224, 224), 4.0), rtol=1e-3, atol=1e-3
    )


def test_the_paper_is_the_default_and_untouched(tiny):
    train, new = texture("grass", 4), texture("grass", 1, seed=3)
    spade = Spade(tiny, batch_size=4).fit(train)
    manifest = spade.index_.manifest
    assert (manifest.scales, manifest.normal_distances, manifest.mirrored) == (None, None, False)
    good, seen = in_float64(tiny, train), in_float64(tiny, new)
    expected = oracle((seen[0][0], [level[0] for level in seen[1]]), good, 50, 1, (224, 224))
    result = next(spade.query(new))
    np.testing.assert_allclose(result.input_map, expected[2], rtol=1e-4)
    again = next(Spade(tiny, preset="paper", batch_size=4).fit(train).query(new))
    assert np.array_equal(again.map, result.map)


def test_an_index_remembers_its_preset(tiny, tmp_path):
    train, new = texture("gravel", 5), texture("gravel", 2, seed=4)
    spade = Spade(tiny, preset="best").fit(train, tmp_path / "index")
    expected = spade.predict(new)
    loaded = Spade.load(tmp_path / "index")
    assert (loaded.settings.standardise, loaded.settings.contrast, loaded.settings.preset) == (
        True,
        True,
        "best",
    )
    assert np.array_equal(loaded.predict(new).scores, expected.scores)
    assert loaded.image_threshold == spade.image_threshold
    file = tmp_path / "index" / spade.index_.manifest.normal_distances.name
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    with pytest.raises(SpadeError, match=r"usual\.f32 is damaged"):
        Spade.load(tmp_path / "index")


def test_add_and_remove_keep_the_scale_and_renew_normal_distances(tiny, tmp_path):
    paths = make_good(tmp_path, 7)
    spade = Spade(tiny, preset="best", batch_size=7).fit(paths[:5], tmp_path / "index")
    first = spade.index_
    before = [part.copy() for part in first.normal_distances()]
    rows, made = first.levels[2].copy(), first.manifest.calibration
    spade.add(paths[5:])
    now = spade.index_
    assert now.manifest.scales == first.manifest.scales
    assert np.array_equal(now.levels[2][: len(rows)], rows)
    # What was added has the same scale: the same images in one batch, times the factors.
    scale = np.array(now.manifest.scales[3], np.float32)
    raw = Spade(tiny, batch_size=2).fit(paths[5:], calibrate=False)
    np.testing.assert_allclose(
        now.levels[2][len(rows) :], raw.index_.levels[2] * scale, rtol=1e-3, atol=1e-3
    )
    # More images can only bring the nearest one closer.
    for old, new in zip(before, now.normal_distances(), strict=True):
        assert (new[: len(old), 0] <= old[:, 0] * (1 + 1e-5)).all() and not np.array_equal(
            new[: len(old)], old
        )
    spade.remove([str(path) for path in paths[5:]])
    for old, new in zip(before, spade.index_.normal_distances(), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5)
    assert spade.index_.manifest.calibration.peaks == pytest.approx(made.peaks, rel=1e-4)
    assert Index.open(tmp_path / "index").manifest == spade.index_.manifest


def make_good(folder, count):
    paths = []
    for i, image in enumerate(texture("gravel", count)):
        paths.append(folder / f"{i}.png")
        cv2.imwrite(str(paths[-1]), image)
    return paths


def test_good_images_pass_the_threshold_that_contrast_draws(tiny):
    train = texture("gravel", 12)
    spade = Spade(tiny, preset="best", quantile=0.9).fit(train)
    scores = spade.predict(texture("gravel", 8, seed=8)).scores
    assert (scores <= spade.image_threshold).sum() >= 6
    assert spade.predict([with_hole(texture("gravel", 1, seed=8)[0])]).scores > scores.max()


@pytest.mark.parametrize("n", [1, 2])
def test_few_images_are_enough(tiny, n):
    spade = Spade(tiny, preset="best").fit(texture("brick", n))
    assert np.isfinite(spade.predict(texture("brick", 1, seed=2)).maps[0]).all()


@pytest.mark.slow
def test_best_beats_paper_on_small_textures(lite, tmp_path):
    make_demo(tmp_path / "data", 3, n_train=8, n_good=4, n_defects=1)
    paper, best = (
        [
            evaluate_category(Spade(lite, preset=name), category)
            for category in load_mvtec(tmp_path / "data")
        ]
        for name in ("paper", "best")
    )
    assert np.mean([one.pro for one in best]) > np.mean([one.pro for one in paper]) + 0.01
    assert (
        np.mean([one.image_rocauc for one in best])
        > np.mean([one.image_rocauc for one in paper]) + 0.01
    )


def test_the_command_line_learns_by_best_where_it_can(gravel_folder, tmp_path):
    """A coreset needs the paper's preset, and what stands beside its tables is the paper's."""
    for options, name in (((), "best"), (("--coreset", "0.5"), "paper")):
        done("build", gravel_folder, "--index", tmp_path / name, *TINY, *options)
        assert Spade.load(tmp_path / name).settings.preset == name
    good, bad, out = tmp_path / "good", tmp_path / "bad", tmp_path / "out"
    (new,) = texture("gravel", 1, seed=5)
    for folder, image in ((good, new), (bad, with_hole(new))):
        folder.mkdir()
        cv2.imwrite(str(folder / "new.png"), image)
    folders = "--train", gravel_folder, "--good", good, "--bad", bad
    done("evaluate", "folder", *folders, "--out", out, *TINY)
    assert json.loads((out / "results.json").read_text())["config"]["preset"] == "paper"


def test_the_command_line_takes_presets(gravel_folder, tmp_path):
    done("build", gravel_folder, "--index", tmp_path / "index", "--preset", "best", *TINY)
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert manifest["usual"] and len(manifest["scales"]) == 7
    one_line(
        run("build", gravel_folder, "--index", tmp_path / "other", "--preset", "wurst", *TINY),
        "unknown preset 'wurst': choose one of paper, best, video",
    )


def test_settings_of_no_preset_have_no_name():
    for name, parameters in PRESETS.items():
        assert Spade(**parameters).settings.preset == name
        for other, value in parameters.items():
            if other == "score":
                continue
            changed = Spade(**parameters | {other: 2 * value if other == "sigma" else not value})
            assert changed.settings.preset == (name if other == "sigma" else None)


def test_an_index_of_before_is_judged_as_it_was(tiny, tmp_path):
    """Version 0.1 had half of the match's own normal distance, and neither margin nor averages."""
    new = [with_hole(texture("brick", 1, seed=5)[0])]
    paths = make_good(tmp_path, 6)
    train, more = paths[:5], paths[5:]
    before = Spade(tiny, standardise=True, contrast=True).fit(train, tmp_path / "index")
    manifest = before.index_.manifest.model_copy(update={"contrast": None})
    manifest.write(tmp_path / "index")
    assert "contrast" not in json.loads((tmp_path / "index" / "manifest.json").read_text())
    loaded = Spade.load(tmp_path / "index")
    result = next(loaded.query(new))
    plain = next(Spade(tiny, standardise=True).fit(train).query(new))
    for found, distances, matches, normal in zip(
        result.distances,
        plain.distances,
        plain.matches,
        loaded.index_.normal_distances(),
        strict=True,
    ):
        np.testing.assert_allclose(
            found, np.maximum(distances - normal[matches, 0] / 2, 0), rtol=1e-5, atol=1e-6
        )
    # It goes on so when its images change.
    loaded.add(more)
    assert loaded.index_.manifest.contrast is None
    loaded.remove([str(path) for path in more])
    again = next(Spade.load(tmp_path / "index").query(new))
    np.testing.assert_allclose(again.map, result.map, rtol=1e-4, atol=1e-4)


def test_an_unknown_preset_is_named():
    with pytest.raises(SpadeError, match="choose one of paper, best, video"):
        Spade(preset="worst")
