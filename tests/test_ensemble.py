import json

import numpy as np
import pytest
import torch

from spade_faiss import Spade, SpadeError
from spade_faiss.datasets import make_demo
from spade_faiss.ensemble import Ensemble
from spade_faiss.features import Backbone
from spade_faiss.features.resnet import RESNETS
from tests.conftest import texture, with_hole
from tests.test_cli import LITE, done, one_line, run


def alone(lite, train, new, **settings):
    """Return one member's standardised map, from detectors that were each fitted without one."""
    maps = []
    for i in range(len(train)):
        rest = train[:i] + train[i + 1:]
        maps.append(next(Spade(lite, **settings).fit(rest, calibrate=False).query([train[i]])))
    values = np.stack([one.input_map for one in maps]).astype(np.float64)
    result = next(Spade(lite, **settings).fit(train, calibrate=False).query(new))
    return (result.input_map - values.mean()) / values.std()


def test_one_member_gives_its_standardised_map(lite):
    train, new = texture("brick", 4), [with_hole(texture("brick", 1, seed=5)[0])]
    ensemble = Ensemble([Spade(lite, batch_size=4)]).fit(train)
    result = next(ensemble.query(new))
    np.testing.assert_allclose(result.input_map, alone(lite, train, new), rtol=1e-2, atol=2e-2)
    np.testing.assert_allclose(result.map[16:-16, 16:-16], result.input_map, rtol=1e-6)


def test_networks_and_views_are_averaged(lite):
    torch.manual_seed(0)
    random = Backbone("resnet18", RESNETS["resnet18"](), (0.5,) * 3, (0.5,) * 3, "0" * 64,
                      torch.device("cpu"))
    train, new = texture("grass", 4), [with_hole(texture("grass", 1, seed=5)[0])]
    ensemble = Ensemble.of([lite, random], ["flip", "scale"], preset="best")
    seen = [(one.network.name, one.mirror, one.crop) for one in ensemble.members]
    assert seen == [(name, mirror, crop) for name in ("efficientnet_lite0", "resnet18")
                    for mirror, crop in [(False, 224), (True, 224), (False, 280)]]
    ensemble.fit(train)
    prediction = ensemble.predict(new)
    worst = np.unravel_index(prediction.maps[0].argmax(), prediction.maps[0].shape)
    assert np.hypot(worst[0] - 130, worst[1] - 120) < 20
    flipped = Ensemble([Spade(lite, mirror=True), Spade(lite)]).fit(train)
    parts = [Ensemble([member]).fit(train) for member in flipped.members]
    mean = np.mean([next(part.query(new)).input_map for part in parts], axis=0)
    np.testing.assert_allclose(next(flipped.query(new)).input_map, mean, rtol=1e-3, atol=1e-3)


def test_a_mirrored_view_of_mirrored_images_is_the_mirrored_map(lite):
    train, new = texture("gravel", 3), texture("gravel", 1, seed=5)
    mirrored = Spade(lite, mirror=True).fit([image[:, ::-1] for image in train])
    found = next(mirrored.query([new[0][:, ::-1]])).map
    np.testing.assert_allclose(found[:, ::-1], next(Spade(lite).fit(train).query(new)).map,
                               rtol=1e-3, atol=1e-4)


def test_broken_images_are_named_once_and_left_out(lite, gravel_folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    problems = []
    ensemble = Ensemble.of([lite], ["flip"])
    paths = [*sorted(gravel_folder.iterdir())[:3], broken]
    ensemble.fit(paths, on_error=lambda *problem: problems.append(problem))
    assert len(problems) == 1 and len(ensemble.index_) == 3
    results = list(ensemble.query(paths, lambda *problem: problems.append(problem)))
    assert len(problems) == 2 and len(results) == 3


def test_what_an_ensemble_cannot_do_is_said(lite):
    with pytest.raises(SpadeError, match="member"):
        Ensemble([])
    with pytest.raises(SpadeError, match="choose one of flip, scale"):
        Ensemble.of([lite], ["sideways"])
    ensemble = Ensemble([Spade(lite)])
    with pytest.raises(SpadeError, match="fit"):
        next(ensemble.query(texture("brick", 1)))
    with pytest.raises(SpadeError, match="two good images"):
        ensemble.fit(texture("brick", 1))
    with pytest.raises(SpadeError, match="pass a list"):
        ensemble.fit(iter(texture("brick", 2)))


def test_evaluate_takes_views(tmp_path):
    make_demo(tmp_path / "data", n_train=4, n_good=2, n_defects=1)
    done("evaluate", "mvtec", tmp_path / "data", "--category", "brick", "--views", "flip",
         "--out", tmp_path / "out", *LITE)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["mirror"] for one in results["config"]["members"]] == [False, True]
    assert results["categories"]["brick"]["pixel_rocauc"] > 0.85
    one_line(run("evaluate", "mvtec", tmp_path / "data", "--views", "up", "--out",
                 tmp_path / "out", *LITE), "unknown view 'up'")
