import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.detector.query import find_training_image
from spade_faiss.images import Framing
from spade_faiss.index import Index
from tests.conftest import texture, with_hole
from tests.maps.test_smoothing import oracle_map
from tests.tiny import Tiny


def oracle(features, good, k, kappa, size, sigma=4.0):
    """SPADE of one image in float64, written from the paper: (descriptor score, levels, map)."""
    descriptor, levels = features
    far = ((good[0] - descriptor) ** 2).sum(1)
    near = np.argsort(far, kind="stable")[:k]
    distances = []
    for level, gallery in zip(levels, good[1], strict=True):
        pool = gallery[near].reshape(-1, gallery.shape[-1])
        rows = level.reshape(-1, level.shape[-1])
        all_pairs = (rows**2).sum(1)[:, None] - 2 * rows @ pool.T + (pool**2).sum(1)
        all_pairs = np.sqrt(np.partition(all_pairs, kappa - 1, axis=1)[:, :kappa])
        distances.append(all_pairs.mean(1).reshape(level.shape[:2]))
    return far[near].mean(), distances, oracle_map(distances, size, sigma)


def in_float64(tiny, images):
    framing = Framing(256, (224, 224), True)
    features = tiny(np.stack([framing.apply(image) for image in images]))
    return (
        features.descriptors.numpy().astype(np.float64),
        [level.numpy().astype(np.float64) for level in features.levels],
    )


@pytest.mark.parametrize("k, kappa", [(50, 1), (3, 1), (4, 3)])
def test_maps_equal_a_float64_brute_force(tiny, k, kappa):
    train = texture("brick", 7)
    test = [with_hole(texture("brick", 1, seed=5)[0]), texture("gravel", 1)[0]]
    # One batch for both, so that the features are the same to the last bit.
    good, new = in_float64(tiny, train), in_float64(tiny, test)
    spade = Spade(tiny, k, kappa, batch_size=7).fit(train, calibrate=False)
    for i, result in enumerate(spade.query(test)):
        score, distances, expected = oracle(
            (new[0][i], [level[i] for level in new[1]]), good, k, kappa, (224, 224)
        )
        assert result.descriptor_score == pytest.approx(score, rel=1e-4)
        for found, level in zip(result.distances, distances, strict=True):
            np.testing.assert_allclose(found, level, rtol=1e-4)
        np.testing.assert_allclose(result.input_map, expected, rtol=1e-4)
        np.testing.assert_allclose(result.map[16:-16, 16:-16], expected, rtol=1e-4)


def test_matches_are_the_nearest_patches(tiny):
    train = texture("grass", 4)
    spade = Spade(tiny, batch_size=4).fit(train, calibrate=False)
    new = texture("grass", 1, seed=3)
    result = next(spade.query(new))
    features = in_float64(tiny, new)[1]
    for level, found, near, gallery in zip(
        features, result.matches, result.distances, spade.index_.levels, strict=True
    ):
        true = ((level[0] - gallery[found].astype(np.float64)) ** 2).sum(-1)
        np.testing.assert_allclose(near, np.sqrt(true), rtol=1e-4)


def test_a_training_image_is_no_anomaly_and_a_hole_is_found(tiny):
    train = texture("brick", 8)
    spade = Spade(tiny, quantile=0.9).fit(train)  # of eight images, 0.995 asks for a lot
    assert spade.predict(train[:1]).maps[0].max() < 1e-3 * spade.pixel_threshold
    new = texture("brick", 2, seed=4)
    prediction = spade.predict([new[0], with_hole(new[1])])
    assert prediction.scores.dtype == np.float32 and prediction.scores.shape == (2,)
    assert prediction.scores[0] < spade.image_threshold < prediction.scores[1]
    worst = np.unravel_index(prediction.maps[1].argmax(), prediction.maps[1].shape)
    assert np.hypot(worst[0] - 130, worst[1] - 120) < 20
    assert [m.shape for m in prediction.maps] == [(256, 256)] * 2
    assert all(m.dtype == np.float32 for m in prediction.maps)


def test_the_training_image_of_the_same_pixels_is_found_among_some(tiny):
    """Wherever it is among these: rounding may put its like before it."""
    index = Spade(tiny, resize=64, crop=64).fit(texture("gravel", 4), calibrate=False).index_
    own = np.array(index.crops[2])
    assert find_training_image(index, own, np.array([0, 3, 2])) == "image 2"
    assert find_training_image(index, own, np.array([0, 3])) is None
    own[0, 0, 0] ^= 1  # far from the middle
    assert find_training_image(index, own, np.arange(4)) is None


def test_calibration_is_leave_one_out(tiny):
    train = texture("gravel", 5)
    spade = Spade(tiny, k=2, batch_size=5).fit(train)
    made = spade.index_.manifest.calibration
    for i in range(5):
        alone = Spade(tiny, k=2, batch_size=5).fit(train[:i] + train[i + 1 :], calibrate=False)
        result = next(alone.query([train[i]]))
        # The network's own rounding differs with the batch, and distances here are small.
        assert made.peaks[i] == pytest.approx(result.peak, rel=2e-3)
        assert made.descriptor_scores[i] == pytest.approx(result.descriptor_score, rel=2e-3)


def test_duplicates_do_not_count_as_themselves(tiny):
    image = texture("gravel", 1)[0]
    made = Spade(tiny).fit([image, image, image]).index_.manifest.calibration
    assert made.peaks == pytest.approx((0, 0, 0), abs=1e-2)


def test_sizes_and_kinds_of_input(tiny, tmp_path):
    train = texture("brick", 4)
    paths = []
    for i, image in enumerate(train):
        paths.append(tmp_path / f"{i}.png")
        cv2.imwrite(str(paths[-1]), image[..., ::-1])
    from_arrays = Spade(tiny).fit(train)
    from_paths = Spade(tiny).fit(paths)
    from_folder = Spade(tiny).fit(str(tmp_path))
    new = [cv2.resize(train[0], (300, 400)), train[1][..., 0], train[2][:100, :40]]
    expected = from_arrays.predict(new)
    assert [m.shape for m in expected.maps] == [(400, 300), (256, 256), (100, 40)]
    for other in (from_paths, from_folder):
        assert np.array_equal(other.predict(new).scores, expected.scores)


def test_the_whole_frame_shows_a_defect_at_the_edge(tiny):
    train = [
        np.concatenate([a, b], 1)
        for a, b in zip(texture("brick", 6), texture("brick", 6, seed=1), strict=True)
    ]
    new = with_hole(train[0].copy(), x=4, y=8, radius=10)
    cropped = Spade(tiny).fit(train).predict([new])
    whole = Spade(tiny, crop=None).fit(train)
    seen = whole.predict([new])
    assert whole.index_.manifest.framing.width == 512
    assert np.unravel_index(seen.maps[0].argmax(), (256, 512)) < (40, 40)
    assert seen.maps[0][:24, :24].max() > 10 * max(cropped.maps[0][:24, :24].max(), 1e-6)


def test_save_and_load_give_the_same_scores(tiny, tmp_path):
    spade = Spade(tiny, k=3).fit(texture("grass", 5))
    new = texture("grass", 2, seed=7)
    expected = spade.predict(new)
    spade.save(tmp_path / "kept")
    loaded = Spade.load(tmp_path / "kept")
    assert (loaded.k, loaded.image_threshold) == (3, spade.image_threshold)
    assert np.array_equal(loaded.predict(new).scores, expected.scores)
    loaded.save(tmp_path / "kept")  # onto itself: nothing to do
    assert len(Index.open(tmp_path / "kept")) == 5


def equal_but_for_batches(one, two):
    """Compare calibrations of equal images whose features came from other batches."""
    return all(
        np.allclose(getattr(one, name), getattr(two, name), rtol=2e-3)
        for name in ("peaks", "descriptor_scores", "pixel_threshold", "descriptor_threshold")
    )


def test_add_and_remove_equal_a_fresh_build(tiny, gravel_folder, tmp_path):
    paths = sorted(gravel_folder.iterdir())
    fresh = Spade(tiny, k=3).fit(paths, tmp_path / "fresh")
    grown = Spade(tiny, k=3).fit(paths[:6], tmp_path / "grown")
    assert grown.add(paths[6:]) == 4
    assert [v.path for v in grown.index_.manifest.images] == [str(path) for path in paths]
    assert equal_but_for_batches(
        grown.index_.manifest.calibration, fresh.index_.manifest.calibration
    )
    six = Spade(tiny, k=3).fit(paths[:6], tmp_path / "six").index_.manifest.calibration
    assert grown.remove([str(paths[6]), *(path.name for path in paths[7:])]) == 4
    back = grown.index_.manifest.calibration
    # Neighbours are what they were before: so are the figures, to the last bit.
    assert (back.peaks, back.pixel_threshold) == (six.peaks, six.pixel_threshold)
    assert np.allclose(back.descriptor_scores, six.descriptor_scores, rtol=1e-5)
    assert Index.open(tmp_path / "grown").manifest == grown.index_.manifest
    problems = []
    assert grown.add([paths[0]], lambda *problem: problems.append(problem)) == 0
    assert "already" in problems[0][1]
    with pytest.raises(SpadeError, match="not in the index"):
        grown.remove(["nothing.png"])
    with pytest.raises(SpadeError, match="empty"):
        grown.remove([str(path) for path in paths[:6]])


def test_arrays_that_are_added_have_names_of_their_own(tiny, gravel_folder, tmp_path):
    """In an index, where the next call would else begin at 0 again; of several kinds of image."""
    path = sorted(gravel_folder.iterdir())[0]
    images = [one[:64, :64] for one in texture("gravel", 8)]
    for spade in (
        Spade(tiny, resize=64, crop=64),
        Ensemble.of([tiny], ["flip"], resize=64, crop=64),
    ):
        spade.fit(images[:2], tmp_path / type(spade).__name__)
        assert spade.add(images[2]) == 1
        encoded = cv2.imencode(".png", images[3][..., ::-1])[1].tobytes()
        assert spade.add([path, encoded, Image.fromarray(images[4])]) == 3
        for member in spade.members:
            names = [one.path for one in member.index_.manifest.images]
            assert names == ["image 0", "image 1", "image 2", str(path), "image 3", "image 4"]
        for number in (0, 1, 2):
            assert np.array_equal(spade.index_.crops[number], images[number])
        for number in (3, 4):  # behind the one that has a path
            assert np.array_equal(spade.index_.crops[number + 1], images[number])
        assert spade.remove(["image 1", "image 4"]) == 2 and spade.add(images[5:7]) == 2
        names = [one.path for one in spade.index_.manifest.images]
        assert names == ["image 0", "image 2", str(path), "image 3", "image 4", "image 5"]
        assert [one.name for one in spade.query(images[:2])] == ["image 0", "image 1"]
        problems, gone = {}, path.with_name("no.png")
        assert spade.add([gone, images[0][0], images[7]], problems.__setitem__) == 1
        assert [*problems] == [str(gone), "image 6"]

        assert spade.index_.manifest.images[-1].path == "image 7"


def test_images_of_one_name_are_added_once_and_not_removed_by_it(tiny, gravel_folder, tmp_path):
    first, second, *_ = sorted(gravel_folder.iterdir())
    spade, problems = Spade(tiny).fit([first, first]), []
    assert spade.add([second, str(second)], lambda *one: problems.append(one)) == 1
    assert problems == [(str(second), "is given twice; it is added once")]
    with pytest.raises(SpadeError, match="is the name of 2 images of the index, which cannot be"):
        spade.remove([first.name])


def test_other_settings_find_their_own_thresholds(tiny, tmp_path):
    train = texture("gravel", 6)
    spade = Spade(tiny).fit(train, tmp_path / "index")
    fewer = Spade.load(tmp_path / "index", k=2)
    direct = Spade(tiny, k=2).fit(train)
    assert fewer.image_threshold == direct.image_threshold != spade.image_threshold
    # From K = 5 on, six images have the same neighbours as with 50.
    assert Spade.load(tmp_path / "index", k=5).image_threshold == spade.image_threshold
    assert Spade.load(tmp_path / "index", quantile=0.9).image_threshold < spade.image_threshold


def test_thresholds_of_other_settings_are_none_until_they_are_drawn(tiny):
    spade = Spade(tiny).fit(texture("gravel", 6))
    other = spade.with_options(k=2)
    assert other.image_threshold is None and other.calibration is None
    assert other.notes == (
        "no threshold, so no verdicts: the good images were scored by other settings",
    )
    assert spade.with_options(k=5).image_threshold == spade.image_threshold
    other.draw_thresholds()
    direct = Spade(tiny, k=2).fit(texture("gravel", 6))
    assert other.image_threshold == direct.image_threshold != spade.image_threshold
    assert other.with_options(quantile=0.6).image_threshold < other.image_threshold
    assert other.with_options(k=3).image_threshold is None


def test_thresholds_that_a_person_set_are_not_drawn(tiny, tmp_path):
    Spade(tiny).fit(texture("gravel", 6), tmp_path / "index")
    by_hand = open_detector(tmp_path / "index", networks=[tiny], k=2, threshold=40.0)
    assert by_hand.image_threshold == 40 and by_hand.calibration is None
    assert not by_hand.stages.seconds
    # The places of an image that is judged by its descriptor still need the map's.
    other = open_detector(
        tmp_path / "index", networks=[tiny], k=2, threshold=40.0, score="descriptor"
    )
    drawn = open_detector(tmp_path / "index", networks=[tiny], k=2)
    assert other.pixel_threshold == drawn.pixel_threshold == drawn.image_threshold is not None
    later = open_detector(tmp_path / "index", networks=[tiny], k=2, calibrate=False)
    assert later.image_threshold is None
    later.draw_missing_thresholds()
    assert later.image_threshold == drawn.image_threshold


def test_settings_check_themselves_whenever_they_are_replaced(tiny, tmp_path):
    spade = Spade(tiny).fit(texture("gravel", 2), tmp_path / "index")
    with pytest.raises(TypeError, match="kapa"):
        spade.with_options(kapa=3)
    for wrong in ({"k": 0}, {"kappa": 0}, {"batch_size": 0}, {"quantile": 0}):
        (name,) = wrong
        with pytest.raises(SpadeError, match=f"{name} = 0"):
            spade.with_options(**wrong)
        with pytest.raises(SpadeError, match=f"{name} = 0"):
            Spade.load(tmp_path / "index", **wrong)
        with pytest.raises(SpadeError, match=f"{name} = 0"):
            Spade(tiny, **wrong)
    with pytest.raises(SpadeError, match="unknown engine 'none'"):
        spade.with_options(engine="none")
    assert spade.k == 50


def test_one_image_gives_no_threshold(tiny):
    spade = Spade(tiny).fit(texture("brick", 1))
    assert spade.image_threshold is None
    assert np.isfinite(spade.predict(texture("brick", 1, seed=2)).scores).all()


def test_another_network_is_refused(tiny, tmp_path):
    from spade_faiss.features import Backbone

    Spade(tiny).fit(texture("brick", 2), tmp_path / "index")
    other = Backbone("tiny", Tiny(), (0.5,) * 3, (0.5,) * 3, "ab" * 32, tiny.device)
    with pytest.raises(SpadeError, match="`weights`"):
        list(Spade.load(tmp_path / "index", backbone=other).query(texture("brick", 1)))


@pytest.mark.parametrize(
    "bad, why",
    [
        ([], "no images"),
        ([np.zeros((40, 40, 3), np.int32)], "int32"),
        ([np.zeros((40, 40, 5), np.uint8)], "RGB"),
        (np.zeros((9, 40, 40), np.uint8), r"give a list of images, one image \[H, W, 3\]"),
        ([np.zeros((4, 4, 3), np.uint8)], "4x4"),
        ("no/such/folder", "no such"),
    ],
)
def test_bad_images_are_explained(tiny, bad, why):
    with pytest.raises(SpadeError, match=why):
        Spade(tiny).fit(bad)


@pytest.mark.parametrize(
    "settings",
    [
        {"k": 0},
        {"kappa": 0},
        {"sigma": -1},
        {"quantile": 1},
        {"score": "luck"},
        {"crop": 999},
        {"batch_size": 0},
        {"sigma": float("nan")},
    ],
)
def test_bad_settings_are_explained(settings):
    with pytest.raises(SpadeError):
        Spade(**settings)


@pytest.mark.parametrize("kind", [Spade, lambda network: Ensemble([Spade(network)])])
def test_a_fit_that_fails_leaves_the_temporary_index(tiny, kind):
    detector = kind(tiny).fit(texture("gravel", 2))
    with pytest.raises(SpadeError):
        detector.fit([])
    assert len(open_detector(detector.folder).index_) == 2


def test_predict_before_fit_says_so(tiny):
    with pytest.raises(SpadeError, match="fit"):
        Spade(tiny).predict(texture("brick", 1))


@pytest.mark.parametrize(
    "way",
    [
        {"factory": "Flat"},
        {"factory": "IVF8,Flat", "search_params": "nprobe=8"},
    ],
)
def test_calibration_in_a_whole_gallery_is_leave_one_out(tiny, way):
    train = texture("gravel", 4)
    exact = Spade(tiny, batch_size=4).fit(train).calibration
    whole = Spade(tiny, batch_size=4, **way).fit(train).calibration
    # Every list is probed, and K is more than all images: the patches searched are the same.
    np.testing.assert_allclose(whole.peaks, exact.peaks, rtol=1e-4)
    assert whole.descriptor_scores == exact.descriptor_scores


def test_calibration_in_a_coreset_leaves_out_the_image_s_own_rows(tiny):
    train = texture("gravel", 4)
    spade = Spade(tiny, coreset=0.05, batch_size=4).fit(train)
    index, made = spade.index_, spade.calibration
    for image in range(4):
        distances = []
        for level, patches, gallery in zip(
            index.manifest.levels, index.levels, index.galleries, strict=True
        ):
            others = gallery.rows[gallery.rows // (level.height * level.width) != image]
            queries = patches[
                image * (level.height * level.width) : (image + 1) * (level.height * level.width)
            ]
            far = ((queries[:, None].astype(np.float64) - patches[others]) ** 2).sum(2).min(1)
            distances.append(np.sqrt(far).reshape(level.height, level.width))
        assert made.peaks[image] == pytest.approx(
            oracle_map(distances, (224, 224), 4).max(), rel=1e-4
        )


def test_exact_search_in_an_index_with_galleries(tiny, tmp_path):
    train, new = texture("grass", 6), texture("grass", 2, seed=7)
    plain = Spade(tiny, k=3).fit(train)
    Spade(tiny, k=3, coreset=0.01).fit(train, tmp_path / "index")
    loaded = Spade.load(tmp_path / "index", backbone=tiny, exact=True)
    assert np.array_equal(loaded.predict(new).scores, plain.predict(new).scores)
    assert loaded.calibration.peaks == plain.calibration.peaks
    whole = loaded.with_options(exact=False)
    assert (whole.predict(new).scores > 1.05 * plain.predict(new).scores).all()
    assert whole.calibration == whole.index_.manifest.calibration != plain.calibration
    # What is kept is of the galleries, whatever this object searches.
    loaded.add(texture("grass", 1, seed=8))
    kept = Spade.load(tmp_path / "index", backbone=tiny)
    assert min(kept.calibration.peaks) > 1.05 * min(loaded.calibration.peaks)


def test_search_parameters_may_be_others_when_loaded(tiny, tmp_path):
    train, new = texture("grass", 4), texture("grass", 1, seed=7)
    Spade(tiny, factory="IVF64,Flat", search_params="nprobe=1").fit(train, tmp_path / "index")
    narrow = Spade.load(tmp_path / "index", backbone=tiny)
    wide = Spade.load(tmp_path / "index", backbone=tiny, search_params="nprobe=64")
    exact = Spade(tiny).fit(train)
    assert wide.predict(new).scores == pytest.approx(exact.predict(new).scores, rel=1e-4)
    assert wide.predict(new).maps[0].mean() < narrow.predict(new).maps[0].mean()
    np.testing.assert_allclose(wide.calibration.peaks, exact.calibration.peaks, rtol=1e-4)
    assert narrow.calibration == narrow.index_.manifest.calibration
    with pytest.raises(SpadeError, match="efSearch"):
        Spade.load(tmp_path / "index", backbone=tiny, search_params="efSearch=3")
    with pytest.raises(SpadeError, match="is open: load it with these `search_params`"):
        wide.with_options(search_params="nprobe=1")
    again = wide.unfitted().with_options(search_params="nprobe=1")
    assert again.settings.search_params == "nprobe=1"
    assert wide.with_options(k=3, search_params="nprobe=64").k == 3


def test_a_coreset_smaller_than_kappa_is_explained(tiny):
    with pytest.raises(SpadeError, match="`coreset`"):
        Spade(tiny, kappa=9, coreset=0.01).fit(texture("brick", 2))


@pytest.mark.parametrize("kind", ["array", "tensor", "bytearray"])
def test_a_stream_may_use_its_memory_again(tiny, kind):
    """As cameras do: images are decoded while those after them are asked for."""
    images = [image[:64, :64] for image in texture("gravel", 6)]
    spade = Spade(tiny, resize=64, crop=64).fit(images)
    images[0] = with_hole(images[0], 32, 32, 12)
    memory = np.empty_like(images[0])

    def stream():
        for image in images:
            memory[:] = image
            yield torch.from_numpy(memory) if kind == "tensor" else memory

    def files():
        held = bytearray(len(max(map(bmp, images), key=len)))
        for image in images:
            held[:] = bmp(image)
            yield held

    scores = spade.predict(files() if kind == "bytearray" else stream()).scores
    assert scores[0] > 0 and (scores == spade.predict(images).scores).all()


def bmp(image):
    return cv2.imencode(".bmp", image[..., ::-1])[1].tobytes()


@pytest.mark.parametrize(
    "suffix, opener",
    [(".png", Image.open), (".png", lambda path: path.open("rb")), (".gif", Image.open)],
)
def test_a_stream_may_close_the_files_that_it_gives(tiny, tmp_path, suffix, opener):
    images = [image[:64, :64] for image in texture("gravel", 6)]
    spade = Spade(tiny, resize=64, crop=64).fit(images)
    paths = [tmp_path / f"{i}{suffix}" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)

    def stream():
        for path in paths:
            with opener(path) as opened:
                yield opened

    prediction = spade.predict(stream())
    assert prediction.names == [str(path) for path in paths]
    if suffix == ".png":
        assert (prediction.scores == 0).all()
    closed = [*stream()]
    with pytest.raises(SpadeError, match=r"0\.(png|gif): cannot be read"):
        spade.predict(closed)
