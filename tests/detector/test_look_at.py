"""Another region for an index that is there: as if it had been built with it."""

import numpy as np
import pytest

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.detector import generation as fitting
from spade_faiss.images.roi import Roi
from spade_faiss.images.video.read import with_motion
from spade_faiss.index.manifest import DataFile, Manifest
from tests.conftest import contents, texture, with_hole
from tests.images.test_motion import frames

SMALL = {"resize": 96, "crop": 96, "quantile": 0.8, "batch_size": 4}
GOOD = texture("gravel", 5)
NEW = [*texture("gravel", 2, seed=3), *map(with_hole, texture("gravel", 2, seed=4))]


def left_of(x, side=256):
    mask = np.zeros((side, side), bool)
    mask[:, :x] = True
    return mask


LEFT, WIDE = left_of(130), left_of(200, 64)[:, :64]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preset": "best", "mirror": True},
        {"tile": 64, "crop": None, "resize": 160, "score": "mean"},
        {"coreset": 0.5},
    ],
)
def test_it_equals_an_index_that_was_built_with_the_region(tiny, settings, tmp_path):
    settings = SMALL | settings
    fitted = {
        name: Spade(tiny, region=region, **settings).fit(GOOD)
        for name, region in (("none", None), ("left", Roi(LEFT)))
    }
    spade = Spade(tiny, region=~LEFT, **settings).fit(GOOD, tmp_path / "index")
    for name, region in (("left", LEFT), ("none", None), ("left", Roi(LEFT))):
        assert spade.look_at(region)
        here, there = spade.index_, fitted[name].index_
        np.testing.assert_array_equal(here.descriptors, there.descriptors)
        for own, other in zip(here.levels, there.levels, strict=True):
            np.testing.assert_array_equal(own, other)
        np.testing.assert_array_equal(here.wide, there.wide)
        same = {"framing", "images", "scales", "contrast", "calibration", "elsewhere", "score"}
        assert here.manifest.model_dump(include=same) == there.manifest.model_dump(include=same)
        assert spade.image_threshold == fitted[name].image_threshold
        opened = open_detector(tmp_path / "index", networks=[tiny])
        assert opened.settings.region == spade.settings.region == fitted[name].settings.region
        for one in (spade, opened):
            np.testing.assert_allclose(
                one.predict(NEW).scores, fitted[name].predict(NEW).scores, rtol=1e-6
            )
    generation = spade.manifest.generation
    assert not spade.look_at(LEFT)
    assert spade.manifest.generation == Manifest.read(tmp_path / "index").generation == generation


def test_an_ensemble_looks_elsewhere_in_all_its_members(tiny, tmp_path):
    ensemble = Ensemble.of([tiny], ["flip", "scale"], **SMALL).fit(GOOD, tmp_path / "index")
    whole = ensemble.image_threshold
    assert ensemble.look_at(LEFT) and not ensemble.look_at(LEFT)
    built = Ensemble.of([tiny], ["flip", "scale"], region=LEFT, **SMALL).fit(GOOD)
    assert ensemble.image_threshold == built.image_threshold != whole
    opened = open_detector(tmp_path / "index", networks=[tiny])
    assert all(one.settings.region == Roi(LEFT) for one in opened.members)
    np.testing.assert_allclose(opened.predict(NEW).scores, built.predict(NEW).scores, rtol=1e-6)


def test_what_was_set_by_hand_is_kept_and_what_was_calibrated_goes(tiny, tmp_path):
    spade = Spade(tiny, **SMALL).fit(GOOD, tmp_path / "index")
    spade.calibrate(texture("gravel", 5, seed=6))
    spade.look_at(LEFT)
    assert spade.calibration_set is None and spade.calibration is not None
    spade.image_threshold = 3.5
    spade.keep_threshold()
    spade.look_at(None)
    assert (
        spade.image_threshold
        == 3.5
        == open_detector(tmp_path / "index", networks=[tiny]).image_threshold
    )
    spade.add(texture("gravel", 1, seed=9))  # of the same framing
    assert len(spade.index_) == 6


def test_if_it_ends_early_the_index_is_as_before(tiny, tmp_path, monkeypatch):
    spade = Spade(tiny, **SMALL).fit(GOOD, tmp_path / "index")
    before = contents(tmp_path / "index")

    def ended(*_, **__):
        raise KeyboardInterrupt

    for late in ("suits_elsewhere", "calibration_of"):
        monkeypatch.setattr(fitting, late, ended)
        with pytest.raises(KeyboardInterrupt):
            spade.look_at(LEFT)
        monkeypatch.undo()
        (new,) = contents(tmp_path / "index").keys() - before.keys() or {None}
        assert new is None or new.name == "verified.json"
        assert before.items() <= contents(tmp_path / "index").items()
        assert spade.settings.region is None and spade.predict(NEW[:1]).scores[0] > 0


def test_what_cannot_be_is_one_line(tiny, tmp_path):
    folder = tmp_path / "index"
    spade = Spade(tiny, preset="best", **SMALL).fit(GOOD, folder)
    before = contents(folder)
    thin = np.zeros((256, 256), bool)
    thin[:, 90] = True
    for region, line in (
        (left_of(200, 400)[:256], "^the region is 400x256 pixels and the picture 256x256, which"),
        (np.zeros((256, 256), bool), "^the region: the region is empty: nothing of it is white"),
        (
            thin,
            "^the region is too small: nothing of it is left of 256x256 pixels when the network",
        ),
    ):
        with pytest.raises(SpadeError, match=line):
            spade.look_at(region)
    assert before.items() <= contents(folder).items()
    # An index of an older version has a margin and lacks its pixels.
    crops = folder / spade.manifest.generation / "crops.u8"
    np.ascontiguousarray(spade.index_.crops).tofile(crops)
    spade.manifest.extended(crops=DataFile.of(crops)).write(folder)
    with pytest.raises(
        SpadeError, match="was made by an older version, which did not keep the mar"
    ):
        open_detector(folder, networks=[tiny]).look_at(LEFT)
    moving = list(with_motion(frames(6, 10)))
    video = Spade(tiny, preset="video", resize=64, crop=None).fit(moving, calibrate=False)
    with pytest.raises(SpadeError, match="looks at motion and keeps no frames before its images"):
        video.look_at(left_of(64, 128)[:96])
