"""Detectors keep to scikit-learn's conventions, check what they are given, and can be sent."""

import copy
import gc
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

import spade_faiss
from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from tests.conftest import texture, with_hole

TRAIN = texture("gravel", 6)
NEW = [texture("gravel", 1, seed=9)[0], with_hole(texture("gravel", 1, seed=8)[0])]
SMALL = {"resize": 64, "crop": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("indices")


@pytest.fixture(scope="module")
def spade(tiny, folder):
    return Spade(tiny, k=3, **SMALL).fit(TRAIN, folder / "one")


@pytest.fixture(scope="module")
def ensemble(tiny, folder):
    return Ensemble.of([tiny], ["flip"], **SMALL).fit(TRAIN, folder / "both")


def test_parameters_are_those_that_were_given(tiny):
    mask = np.ones((8, 8), bool)
    mask[:4] = False
    given = {"k": 7, "sigma": 4.0, "preset": "best", "region": mask, "quantile": 0.9}
    spade = Spade(tiny, **given)
    params = spade.get_params()
    assert all(params[name] is value for name, value in given.items())
    assert params["backbone"] is tiny and params["contrast"] is None and spade.settings.contrast
    assert Spade(**params).settings == spade.settings
    assert Spade(**params).get_params(deep=False) == params | {"region": mask}
    assert spade.set_params(preset="paper", k=8) is spade
    assert (spade.k, spade.settings.contrast, spade.score, spade.sigma) == (8, False, "map", 4.0)
    assert spade.get_params()["preset"] == "paper" and spade.get_params()["k"] == 8


def test_an_opened_index_says_by_which_parameters_it_was_made(tiny, spade, folder):
    opened = Spade.load(folder / "one", backbone=tiny)
    assert Spade(**opened.get_params()).settings == opened.settings
    assert (opened.get_params()["k"], opened.get_params()["crop"]) == (3, 64)
    own = Spade(tiny, preset="best", sigma=3.0, **SMALL).fit(TRAIN[:3])
    params = Spade.load(own.folder, backbone=tiny).get_params()
    assert (params["preset"], params["sigma"], params["contrast"]) == ("best", 3.0, None)
    opened.image_threshold = 7.0
    opened._use_quantile(0.75)  # as a calibration does
    assert opened.get_params()["quantile"] == 0.75


@pytest.mark.parametrize("call", ["with_options", "set_params"])
def test_unknown_names_and_wrong_kinds_are_refused(tiny, spade, ensemble, call):
    own = spade.with_options()
    before = own.get_params()
    with pytest.raises(TypeError, match=r"no parameter 'kk'; is it 'k'"):
        getattr(own, call)(kk=3)
    with pytest.raises(TypeError, match=r"no parameter 'zebra'$"):
        getattr(own, call)(zebra=3)
    with pytest.raises(TypeError, match="no parameter 'kapa'; is it 'kappa'"):
        ensemble.with_options(kapa=3)
    for name, wrong, why in (
        ("k", "3", "k = 3 must be a whole number"),
        ("k", True, "k = True must be a whole number"),
        ("crop", 9.5, "crop = 9.5 must be a whole number of pixels"),
        ("sigma", "4", "sigma = '4' must be a number"),
        ("quantile", True, "quantile = True must be a number"),
        ("mirror", "no", "mirror = 'no' must be True or False"),
        ("progress", None, "progress = None must be True or False"),
        ("device", 0, "device = 0 must be a text"),
        ("device", "gpu", "`device='gpu'` is none that torch has: give auto, cpu, cuda"),
        ("device", "", "`device=''` is none that torch has"),
        ("device", "cuda:0,gpu", "`device='cuda:0,gpu'` is none that torch has"),
        ("device", "meta", "`device='meta'` is none that torch has"),
        ("engine", "fast", "unknown engine 'fast'"),
        ("store", "int8", "unknown store 'int8'"),
        ("backbone", "vgg", "unknown backbone 'vgg': choose one of"),
        ("backbone", "timm:", "unknown backbone 'timm:': choose one of"),
        ("weights", 3, "weights = 3 must be a path"),
        ("backbone", None, "backbone = None must be a network or its name"),
        ("score", ["map"], r"unknown score \['map'\]"),
        ("preset", "worst", "unknown preset 'worst'"),
    ):
        with pytest.raises(SpadeError, match=why):
            getattr(own, call)(**{name: wrong})
        with pytest.raises(SpadeError, match=why):
            Spade(**{"backbone": tiny, name: wrong})
    assert own.get_params() == before and own.index_ is spade.index_


def test_an_ensemble_and_an_index_that_is_opened_refuse_them_too(tiny, ensemble, folder):
    for name, wrong, why in (
        ("device", "gpu", "none that torch has"),
        ("engine", "fast", "engine"),
    ):
        for refused in (
            lambda **given: ensemble.with_options(**given),
            lambda **given: Ensemble.of([tiny], **given),
            lambda **given: open_detector(folder / "one", **given),
            lambda **given: open_detector(folder / "both", **given),
        ):
            with pytest.raises(SpadeError, match=why):
                refused(**{name: wrong})
    with pytest.raises(SpadeError, match="unknown backbone 'vgg'"):
        Spade.load(folder / "one", backbone="vgg")


def test_whether_a_device_is_here_is_not_looked_at_before_it_is_used(spade, monkeypatch):
    """For that CUDA would start, in a process that may hand the work to others."""
    for name in ("_lazy_init", "is_available", "device_count"):
        monkeypatch.setattr(torch.cuda, name, lambda: pytest.fail("CUDA was asked"))
    for device in ("auto", "cpu", "cuda", "cuda:7", "cuda:0, cuda:1", "all"):
        assert spade.with_options(device=device).settings.device == device


def test_an_index_does_not_go_with_parameters_that_would_have_made_another(spade):
    for name, value in (("crop", 32), ("mirror", True), ("averaged", True), ("preset", "best")):
        other = spade.with_options(**{name: value})
        assert repr(other).endswith(": not fitted>") and other.image_threshold is None
        with pytest.raises(SpadeError, match="no index yet: fit"):
            other.predict(NEW)
        assert other.fit(TRAIN[:2]).predict(NEW).scores.shape == (2,)
    for name, value in (("k", 2), ("sigma", 1), ("score", "mean"), ("batch_size", 1)):
        assert spade.with_options(**{name: value}).index_ is spade.index_
    own = spade.with_options()
    assert own.set_params(k=2, crop=32).set_params(k=5).fit(TRAIN[:2]).settings.crop == 32


def test_scikit_learn_clones_detectors_and_takes_their_scores(spade, ensemble):
    for detector in (spade, ensemble):
        own = detector.with_options()
        own.image_threshold = 3.0
        other = clone(own)
        assert repr(other).endswith(": not fitted>") and other.network is detector.network
        assert [one.settings for one in other.members] == [one.settings for one in detector.members]
        other.fit(TRAIN)
        assert other.image_threshold == detector.image_threshold
        assert np.array_equal(other.score_samples(NEW), -detector.predict(NEW).scores)
        assert other.score_samples(NEW).argmin() == 1
    assert clone(clone(spade)).get_params() == spade.get_params()


def test_an_ensemble_s_parameters_are_its_members_and_theirs(tiny):
    both = Ensemble.of([tiny], ["flip"], **SMALL)
    assert both.get_params(deep=False) == {"members": both.members}
    params = both.get_params()
    assert params["member_2"] is both.members[1] and params["member_2__mirror"] is True
    assert params["member_1__backbone"] is tiny and "member_3" not in params
    assert params.keys() - {"members", "member_1", "member_2"} == {
        f"member_{number}__{name}" for number in (1, 2) for name in Spade(tiny).get_params()
    }
    like = Ensemble(**both.get_params(deep=False))
    assert [one.settings for one in like.members] == [one.settings for one in both.members]
    assert like.set_params(**params) is like and repr(like) == repr(both)
    like.set_params(k=3, member_2__resize=80, member_1__engine="faiss")
    chosen = [(one.k, one.settings.resize, one.settings.engine) for one in like.members]
    assert chosen == [(3, 64, "faiss"), (3, 80, "auto")] and both.k == 50
    other = Spade(tiny, k=3, crop=32, resize=64)
    like.set_params(member_2=other, member_2__crop=48)
    assert [one.settings.crop for one in like.members] == [64, 48]
    like.set_params(members=[other], kappa=2)
    assert len(like.members) == 1 and (like.settings.crop, like.kappa) == (32, 2)
    assert list(clone(like).get_params()) == list(like.get_params())


def test_an_ensemble_that_is_fitted_keeps_its_index_or_says_that_it_has_none(ensemble, folder):
    own = ensemble.with_options()
    assert own.set_params(k=2, member_1__batch_size=1).index_ is ensemble.index_
    before = own.get_params()
    for wrong, kind, why in (
        ({"kk": 3}, TypeError, "no parameter 'kk'; is it 'k'"),
        ({"member_3__k": 3}, TypeError, "no parameter 'member_3__k'"),
        ({"member_1__kk": 3}, TypeError, "no parameter 'kk'; is it 'k'"),
        ({"member_1": 3}, SpadeError, "member_1 = 3 must be a Spade"),
        ({"members": []}, SpadeError, "needs a member or more"),
        ({"member_2__device": "gpu"}, SpadeError, "none that torch has"),
        (
            {"k": 3, "member_2__k": 4},
            SpadeError,
            "the same k, and have 3 and 4: give all of them one",
        ),
    ):
        with pytest.raises(kind, match=why):
            own.set_params(**wrong)
        assert own.get_params() == before and own.k == 2
    for change in (
        {"crop": 32},
        {"member_2__crop": 32},
        {"member_2": ensemble.members[0]},
        {"members": ensemble.members},
    ):
        other = ensemble.with_options(**change)
        assert repr(other).endswith(": not fitted>") and other.image_threshold is None
        with pytest.raises(SpadeError, match=r"not fitted yet|no index yet"):
            other.predict(NEW)
    fitted = other.fit(TRAIN, folder / "other")
    assert np.array_equal(fitted.predict(NEW).scores, ensemble.predict(NEW).scores)


@pytest.mark.parametrize("differ", [{"k": 3}, {"kappa": 2}, {"sigma": 1.0}, {"preset": "video"}])
def test_members_that_an_ensemble_could_not_open_again_as_they_were_are_refused(tiny, differ):
    """The ensemble keeps one K, kappa and sigma: opened again, all members had the first one's."""
    name = next(iter(differ)).replace("preset", "sigma")
    with pytest.raises(SpadeError, match=f"members must have the same {name}, and have .* and "):
        Ensemble([Spade(tiny), Spade(tiny, **differ)])
    assert Ensemble([Spade(tiny, **differ)] * 2).members


def test_what_a_detector_holds_is_said(spade, ensemble, folder, tiny):
    limit = f"{spade.image_threshold:.4g}"
    assert repr(spade) == (
        f"<Spade tiny, k=3, resize=64, crop=64: 6 good images in {folder / 'one'}, "
        f"threshold {limit}>"
    )
    assert repr(ensemble).startswith("<Ensemble of 2: tiny, resize=64, crop=64; tiny, resize=64, ")
    assert repr(Spade(tiny)) == "<Spade tiny: not fitted>"
    assert repr(Spade()) == "<Spade wide_resnet50_2: not fitted>"
    assert repr(Ensemble([Spade(tiny)])) == "<Ensemble of 1: tiny: not fitted>"
    own = Spade(tiny, **SMALL).fit(TRAIN[:2], calibrate=False)
    assert repr(own).endswith(": 2 good images in a temporary index, no threshold>")


def same(one, other):
    """Say whether two detectors say the same."""
    first, second = one.predict(NEW), other.predict(NEW)
    return (
        np.array_equal(first.scores, second.scores)
        and first.verdicts == second.verdicts
        and [one.limits for one in first] == [one.limits for one in second]
        and [one.regions for one in first] == [one.regions for one in second]
    )


def test_a_pickled_detector_opens_its_index_anew(spade, ensemble):
    for detector in (spade, ensemble, spade.with_options(k=2), ensemble.with_options(k=2)):
        own = detector.with_options()
        own.draw_missing_thresholds()
        own.image_threshold = own.image_threshold + 1
        sent = pickle.loads(pickle.dumps(own))
        assert sent.index_ is not own.index_ and same(own, sent)
        assert sent.image_threshold == own.image_threshold
        assert [one.get_params().keys() for one in sent.members] == [
            one.get_params().keys() for one in own.members
        ]
    unfitted = pickle.loads(pickle.dumps(clone(ensemble)))
    assert repr(unfitted) == repr(clone(ensemble))
    networks = {id(one.pipeline.lazy_network) for one in unfitted.members}
    assert len(networks) == 1 and same(unfitted.fit(TRAIN), ensemble)


def test_a_detector_finds_the_index_as_it_is_when_it_arrives(tiny, tmp_path):
    own = Spade(tiny, **SMALL).fit(TRAIN[:4], tmp_path / "index")
    both = Ensemble([Spade(tiny, **SMALL)]).fit(TRAIN[:4], tmp_path / "both")
    data = [pickle.dumps(one) for one in (own, both)]
    for detector in (own, both):
        detector.add([texture("gravel", 1, seed=5)[0]])
    for detector, sent in zip((own, both), map(pickle.loads, data), strict=True):
        assert len(sent.index_) == 5 and same(sent, detector)


def test_a_temporary_index_is_there_as_long_as_the_first_detector(tiny):
    own = Spade(tiny, **SMALL).fit(TRAIN[:3])
    both = Ensemble([Spade(tiny, **SMALL)]).fit(TRAIN[:3])
    data = [pickle.dumps(own), pickle.dumps(both)]
    for detector, sending in zip((own, both), data, strict=True):
        sent = pickle.loads(sending)
        assert same(sent, detector)
        del sent
        gc.collect()
        assert detector.folder.is_dir()  # which is not the copy's to remove
    kept = [copy.deepcopy(own), copy.copy(both)]
    scores = [one.predict(NEW).scores for one in (own, both)]
    del own, both, detector
    gc.collect()
    for one, before in zip(kept, scores, strict=True):  # copies share it
        assert np.array_equal(one.predict(NEW).scores, before)
        assert one.add([NEW[0]]) == 1
    del kept, one
    gc.collect()
    for sending in data:
        with pytest.raises(SpadeError, match=r"was a temporary one.*folder as its `index`"):
            pickle.loads(sending)


_ELSEWHERE = """
import pickle, sys
from tests.tiny import register
register()
detectors, images = pickle.load(sys.stdin.buffer)
found = [list(one.query(images)) for one in detectors]
pickle.dump([[(one.verdict, one.score(), one.regions) for one in own] for own in found],
            sys.stdout.buffer)
"""


@pytest.mark.slow
def test_detectors_work_in_another_process(folder, spade, ensemble, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    # By name, so that the other process loads the network for itself.
    detectors = [open_detector("one", backbone="tiny"), open_detector("both", backbone="tiny")]
    images = [NEW[0], Image.fromarray(NEW[1])]
    data = pickle.dumps((detectors, images))
    assert len(data) < NEW[0].nbytes * 2 + 20_000
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        input=data,
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert not done.returncode, done.stderr.decode()
    for detector, found in zip(detectors, pickle.loads(done.stdout), strict=True):
        own = list(detector.query(images))
        assert [(one.verdict, one.score(), one.regions) for one in own] == found


def test_every_kind_of_image_scores_as_its_file(spade, tmp_path):
    path = tmp_path / "new.png"
    Image.fromarray(NEW[1]).save(path)
    tensor = torch.from_numpy(NEW[1]).permute(2, 0, 1)
    (score,) = spade.predict([path]).scores
    with path.open("rb") as file, Image.open(path) as opened:
        for one in (path, NEW[1], tensor, tensor / 255, opened, path.read_bytes(), file):
            alone = spade.predict(one)
            assert alone.scores.tolist() == [score] and alone.verdicts == ["NG"]
        both = spade.predict([opened, tensor, io.BytesIO(path.read_bytes())])
    assert both.scores.tolist() == [score] * 3
    assert both.names == [str(path), "image 1", "image 2"]
    batch = spade.predict(torch.stack([tensor, tensor]))
    assert batch.scores.tolist() == [score] * 2
    with pytest.raises(SpadeError, match="neither an image nor a list"):
        spade.predict(None)


def test_an_ensemble_goes_through_what_can_be_read_again(tiny):
    files = [io.BytesIO() for _ in TRAIN]
    for file, image in zip(files, TRAIN, strict=True):
        Image.fromarray(image).save(file, "png")
    both = Ensemble.of([tiny], ["flip"], **SMALL).fit(files)
    assert same(both, Ensemble.of([tiny], ["flip"], **SMALL).fit(TRAIN))


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert spade_faiss.__version__ == version("spade-faiss")
