import json
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.detector import new_detector
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.features.resnet import RESNETS
from spade_faiss.images import given, read_image
from spade_faiss.index import EnsembleManifest
from tests.command import TINY, done, one_line, problems, run
from tests.conftest import texture, with_hole
from tests.tiny import WEIGHTS

SMALL = {"resize": 96, "crop": 96}


def alone(tiny, train, new, **settings):
    """Return one member's standardised map, from detectors that were each fitted without one."""
    maps = []
    for i in range(len(train)):
        rest = train[:i] + train[i + 1 :]
        maps.append(next(Spade(tiny, **settings).fit(rest, calibrate=False).query([train[i]])))
    values = np.stack([one.input_map for one in maps]).astype(np.float64)
    result = next(Spade(tiny, **settings).fit(train, calibrate=False).query(new))
    return (result.input_map - values.mean()) / values.std()


def test_one_member_gives_its_standardised_map(tiny):
    train, new = texture("brick", 4), [with_hole(texture("brick", 1, seed=5)[0])]
    ensemble = Ensemble([Spade(tiny, batch_size=4)]).fit(train)
    result = next(ensemble.query(new))
    np.testing.assert_allclose(result.input_map, alone(tiny, train, new), rtol=1e-2, atol=2e-2)
    np.testing.assert_allclose(result.map[16:-16, 16:-16], result.input_map, rtol=1e-6)


def test_networks_and_views_are_averaged(tiny):
    torch.manual_seed(0)
    random = Backbone(
        "resnet18", RESNETS["resnet18"](), (0.5,) * 3, (0.5,) * 3, "0" * 64, torch.device("cpu")
    )
    train, new = texture("grass", 4), [with_hole(texture("grass", 1, seed=5)[0])]
    ensemble = Ensemble.of([tiny, random], ["flip", "scale"], preset="best", resize=128, crop=112)
    seen = [(one.network.name, one.settings.mirror, one.settings.crop) for one in ensemble.members]
    assert seen == [
        (name, mirror, crop)
        for name in ("tiny", "resnet18")
        for mirror, crop in [(False, 112), (True, 112), (False, 140)]
    ]
    ensemble.fit(train)
    prediction = ensemble.predict(new)
    worst = np.unravel_index(prediction.maps[0].argmax(), prediction.maps[0].shape)
    assert np.hypot(worst[0] - 130, worst[1] - 120) < 20
    flipped = Ensemble([Spade(tiny, mirror=True, **SMALL), Spade(tiny, **SMALL)]).fit(train)
    parts = [Ensemble([member]).fit(train) for member in flipped.members]
    mean = np.mean([next(part.query(new)).input_map for part in parts], axis=0)
    np.testing.assert_allclose(next(flipped.query(new)).input_map, mean, rtol=1e-3, atol=1e-3)


def test_a_mirrored_view_of_mirrored_images_is_the_mirrored_map(tiny):
    train, new = texture("gravel", 3), texture("gravel", 1, seed=5)
    mirrored = Spade(tiny, mirror=True).fit([image[:, ::-1] for image in train])
    found = next(mirrored.query([new[0][:, ::-1]])).map
    np.testing.assert_allclose(
        found[:, ::-1], next(Spade(tiny).fit(train).query(new)).map, rtol=1e-3, atol=1e-4
    )


def test_broken_images_are_named_once_and_left_out(tiny, gravel_folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    problems = []
    ensemble = Ensemble.of([tiny], ["flip"], **SMALL)
    paths = [*sorted(gravel_folder.iterdir())[:3], broken]
    ensemble.fit(paths, on_error=lambda *problem: problems.append(problem))
    assert len(problems) == 1 and len(ensemble.index_) == 3
    results = list(ensemble.query(paths, lambda *problem: problems.append(problem)))
    assert len(problems) == 2 and len(results) == 3


def test_a_new_detector_is_an_ensemble_where_there_is_something_to_average(tiny):
    one = new_detector(["tiny"], weights=[WEIGHTS], k=3)
    assert isinstance(one, Spade) and (one.settings.weights, one.k) == (WEIGHTS, 3)
    for networks, views in ((["tiny"], ["flip"]), (["tiny", tiny], [])):
        both = new_detector(networks, views, k=3)
        assert isinstance(both, Ensemble) and [member.k for member in both.members] == [3, 3]
    with pytest.raises(SpadeError, match="`weights` is given 2 times for one network"):
        new_detector(["tiny"], weights=[WEIGHTS] * 2)


def test_what_an_ensemble_cannot_do_is_said(tiny):
    with pytest.raises(SpadeError, match="member"):
        Ensemble([])
    with pytest.raises(SpadeError, match="choose one of flip, scale"):
        Ensemble.of([tiny], ["sideways"])
    with pytest.raises(SpadeError, match="`weights` is given 1 times for 2 networks"):
        Ensemble.of([tiny, tiny], weights=[WEIGHTS])
    ensemble = Ensemble([Spade(tiny)])
    with pytest.raises(SpadeError, match="fit"):
        next(ensemble.query(texture("brick", 1)))
    with pytest.raises(SpadeError, match="two good images"):
        ensemble.fit(texture("brick", 1))
    with pytest.raises(SpadeError, match="pass a list"):
        ensemble.fit(iter(texture("brick", 2)))


def test_evaluate_takes_views(demo, tmp_path):
    done(
        "evaluate",
        "mvtec",
        demo,
        "--category",
        "brick",
        "--views",
        "flip",
        "--out",
        tmp_path / "out",
        *TINY,
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["mirror"] for one in results["config"]["members"]] == [False, True]
    assert results["categories"]["brick"]["pixel_rocauc"] > 0.75
    one_line(
        run(
            "evaluate",
            "mvtec",
            demo,
            "--views",
            "up",
            "--out",
            tmp_path / "out",
            *TINY,
        ),
        "unknown view 'up'",
    )


def generations(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def whole(folder):
    """Return all that is in a folder, but for locks and notes of what was verified."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (".lock", "verified.json")
    }


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for i, image in enumerate(texture("gravel", 7)):
        cv2.imwrite(str(folder / f"{i}.png"), image)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def kept(tiny, paths, tmp_path_factory):
    """The folder of an ensemble of an image and its mirror image, and what was fitted."""
    folder = tmp_path_factory.mktemp("ensemble") / "index"
    return folder, Ensemble.of([tiny], ["flip"], **SMALL).fit(paths[:5], folder)


@pytest.fixture
def copy(kept, tmp_path):
    return shutil.copytree(kept[0], tmp_path / "copy")


def test_a_kept_ensemble_scores_as_the_fitted_one(kept, tmp_path, monkeypatch):
    folder, fitted = kept
    images = [texture("gravel", 1, seed=8)[0], with_hole(texture("gravel", 1, seed=9)[0])]
    new = [tmp_path / "good.png", tmp_path / "hole.png"]
    for path, image in zip(new, images, strict=True):
        cv2.imwrite(str(path), image[:, :, ::-1])
    expected = fitted.predict(images)
    loaded = open_detector(folder)
    assert [(one.settings.mirror, one.settings.crop, one.sigma) for one in loaded.members] == [
        (False, 96, 4.0),
        (True, 96, 4.0),
    ]
    assert loaded.members[0].index_.manifest.mirrored is False
    decoded = []
    original = read_image

    def counted(path, on_note):
        decoded.append(path)
        return original(path, on_note)

    monkeypatch.setattr(given, "read_image", counted)
    found = loaded.predict(iter(new))
    assert decoded == new
    assert np.array_equal(found.scores, expected.scores)
    assert all(np.array_equal(*both) for both in zip(found.maps, expected.maps, strict=True))
    assert loaded.calibration == fitted.calibration
    assert found.scores[0] < loaded.image_threshold < found.scores[1]
    assert loaded.members[0].network is loaded.members[1].network
    by_descriptor = open_detector(folder, score="descriptor")
    assert by_descriptor.image_threshold == fitted.calibration.descriptor_threshold
    assert by_descriptor.predict(new).scores[1] == pytest.approx(
        list(fitted.query(new))[1].descriptor_score
    )


def test_the_calibration_is_of_the_averaged_maps(tiny, kept):
    folder, fitted = kept
    parts = [[values for _, values in member.leave_one_out()] for member in fitted.members]
    mean = sum((np.array(maps) - np.mean(maps)) / np.std(maps) for maps in parts) / len(parts)
    framing = fitted.index_.manifest.framing.framing()
    peaks = [framing.place(values.astype(np.float32), (256, 256)).max() for values in mean]
    assert fitted.calibration.peaks == pytest.approx(peaks, rel=1e-4)
    assert fitted.calibration.pixel_threshold > max(fitted.calibration.peaks)
    lower = open_detector(folder, quantile=0.8)
    assert lower.pixel_threshold < fitted.pixel_threshold
    fewer = open_detector(folder, k=1)
    anew = Ensemble.of([tiny], ["flip"], k=1, **SMALL).fit(fitted_paths(fitted))
    assert fewer.calibration.without_means() == anew.calibration != fitted.calibration
    new = texture("gravel", 1, seed=8)
    assert np.array_equal(fewer.predict(new).scores, anew.predict(new).scores)


def fitted_paths(ensemble):
    return [image.path for image in ensemble.index_.manifest.images]


def test_add_and_remove_go_through_every_member(tiny, copy, paths):
    new = texture("gravel", 2, seed=8)
    ensemble, problems = open_detector(copy), []
    before = ensemble.predict(new).scores
    report = lambda *problem: problems.append(problem)  # noqa: E731
    assert ensemble.add([*paths[4:], copy / "gone.png"], report) == 2
    assert [name for name, _ in problems] == [str(paths[4]), str(copy / "gone.png")]
    anew = Ensemble.of([tiny], ["flip"], **SMALL).fit(paths)
    for one in (ensemble, open_detector(copy)):
        assert [len(member.index_) for member in one.members] == [7, 7]
        assert one.predict(new).scores == pytest.approx(anew.predict(new).scores, rel=1e-3)
        assert one.pixel_threshold == pytest.approx(anew.pixel_threshold, rel=1e-3)
    assert len(generations(copy)) == 1
    assert ensemble.remove(["5.png", str(paths[6])]) == 2
    assert open_detector(copy).predict(new).scores == pytest.approx(before, rel=1e-3)
    state = whole(copy)
    assert ensemble.add(paths[:2], report) == 0 and ensemble.remove(["no.png"], report) == 0
    with pytest.raises(SpadeError, match="two good images"):
        ensemble.remove(["0.png", "1.png", "2.png", "3.png"])
    assert whole(copy) == state
    other = open_detector(copy)
    other.remove(["0.png"])
    with pytest.raises(SpadeError, match="open it again"):
        ensemble.remove(["1.png"])
    assert len(open_detector(copy).index_) == 4


def test_a_change_that_fails_in_one_member_leaves_all_as_they_were(copy, paths, monkeypatch):
    state, ensemble = whole(copy), open_detector(copy)
    original, calls = Spade.add, []

    def failing(spade, *arguments):
        calls.append(spade.settings.mirror)
        if spade.settings.mirror:
            raise OSError(28, "No space left on device")
        return original(spade, *arguments)

    monkeypatch.setattr(Spade, "add", failing)
    with pytest.raises(SpadeError, match="No space left on device; what was there"):
        ensemble.add(paths[5:])
    assert calls == [False, True] and whole(copy) == state
    assert len(ensemble.predict(texture("gravel", 1)).scores) == 1


def test_a_build_that_is_killed_leaves_the_old_one(copy, paths):
    state = whole(copy)
    code = f"""
import os, signal
from spade_faiss import Ensemble
from spade_faiss.features import load_backbone
from spade_faiss.images import load
from spade_faiss.index import EnsembleManifest
from tests.tiny import register
register()
EnsembleManifest.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
ensemble = Ensemble.of([load_backbone("tiny")], ["flip"], resize=64, crop=64)
ensemble.fit({[str(path) for path in paths[:2]]}, {str(copy)!r})
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert len(generations(copy)) == 2
    ensemble = open_detector(copy)
    assert (len(ensemble.index_), ensemble.settings.crop) == (5, 96)
    assert {name: data for name, data in whole(copy).items() if name in state} == state
    ensemble.remove(["0.png"])
    assert len(generations(copy)) == 1


def test_damage_is_named(copy):
    manifest = EnsembleManifest.read(copy)
    second = copy / manifest.members[1].folder
    (level,) = second.glob("*/level3.faiss")
    for path, why in (
        (level, r"level3\.faiss is damaged"),
        (second / "manifest.json", "is not the one that"),
        (copy / "ensemble.json", "is damaged"),
    ):
        data = path.read_bytes()
        if path == level:
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        else:
            path.write_bytes(
                data.replace(b'"created": "2', b'"created": "1')
                if path.parent == copy
                else data + b"\n"
            )
        with pytest.raises(SpadeError, match=why):
            open_detector(copy)
        if path == level:
            assert "level3.faiss is damaged" in manifest.damaged(copy)[0]
        path.write_bytes(data)
    assert manifest.damaged(copy) == []


def test_an_ensemble_and_an_index_are_told_apart(tiny, copy, paths, tmp_path):
    with pytest.raises(SpadeError, match="holds an ensemble"):
        Spade.load(copy)
    with pytest.raises(SpadeError, match=r"other files \(ensemble\.json\)"):
        Spade(tiny, **SMALL).fit(paths[:2], copy)
    Spade(tiny, **SMALL).fit(paths[:2], tmp_path / "one")
    with pytest.raises(SpadeError, match=r"other files \(manifest\.json\)"):
        Ensemble([Spade(tiny, **SMALL)]).fit(paths[:2], tmp_path / "one")
    assert isinstance(open_detector(tmp_path / "one"), Spade)
    with pytest.raises(SpadeError, match="one network"):
        open_detector(tmp_path / "one", weights=["a", "b"])
    with pytest.raises(SpadeError, match="holds no index"):
        open_detector(tmp_path / "gone")


def test_networks_have_weights_of_their_own(tiny, paths, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "w.pth"
    torch.save(RESNETS["resnet18"]().state_dict(), file)
    fitted = Ensemble.of([tiny, load_backbone("resnet18", file)], **SMALL)
    fitted.fit(paths[:3], tmp_path / "index")
    both = [WEIGHTS, file]
    new = texture("gravel", 1, seed=8)
    expected = fitted.predict(new).scores
    loaded = open_detector(tmp_path / "index", weights=both)
    assert np.array_equal(loaded.predict(new).scores, expected)
    with pytest.raises(SpadeError, match="2 networks"):
        open_detector(tmp_path / "index", weights=[file])
    with pytest.raises(SpadeError, match="does not fit"):
        open_detector(tmp_path / "index", weights=both[::-1]).predict(new)


def test_the_command_line_keeps_ensembles(gravel_folder, tmp_path):
    folder, new = tmp_path / "index", tmp_path / "new"
    new.mkdir()
    for name, image in (
        ("good", texture("gravel", 1, seed=8)[0]),
        ("hole", with_hole(texture("gravel", 1, seed=8)[0])),
    ):
        cv2.imwrite(str(new / f"{name}.png"), image)
    (new / "broken.png").write_bytes(b"no image")
    done("build", gravel_folder, "--index", folder, "--views", "flip", *TINY)
    ended = done(
        "query", folder, new, "--out", tmp_path / "out", "--explain", "--report", "--json", status=1
    )
    assert len(problems(ended)) == 1
    report = (tmp_path / "out" / "report.html").read_text()
    for name, value in (("index", folder), ("members", 2), ("backbone", "tiny")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in report
    one_line(run("query", folder, new, "--out", folder / "out"), "lies in the index")
    rows = {row["path"].rsplit("/", 1)[1]: row for row in json.loads(ended.stdout)["images"]}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "broken.png": "ERROR",
        "good.png": "OK",
        "hole.png": "NG",
    }
    found = json.loads((tmp_path / "out" / "explain" / "hole.json").read_text())
    left, top, right, bottom = found["regions"][0]["box"]
    assert left < 120 < right and top < 130 < bottom and found["regions"][0]["matches"]
    assert (tmp_path / "out" / "scores.csv").exists()
    text = done("info", folder, "--verify").stdout
    assert "of 2 members" in text and "images      10" in text and "all whole" in text
    assert text.count("tiny") == 2 and text.count("mirrored") == 1
    assert json.loads(done("remove", folder, "000.png", "--json").stdout)["images"] == 9
    assert json.loads(done("add", folder, gravel_folder / "000.png", "--json").stdout)["added"] == 1
    one_line(
        run(
            "build",
            gravel_folder,
            "--index",
            tmp_path / "i",
            "--views",
            "flip",
            *TINY,
            "--weights",
            "a",
            "--weights",
            "b",
        ),
        "--weights is given 2 times for one network",
    )
    one_line(run("info", folder, "--recall"), "ensemble", str(folder))
