"""The service with an ensemble in the folder."""

import csv
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import numpy as np
import pytest
import tifffile

from spade_faiss import Ensemble, Spade, SpadeError, open_detector
from spade_faiss.index import EnsembleManifest, read_manifest
from spade_faiss.service import LiveIndex
from tests.command import done
from tests.conftest import texture, with_hole
from tests.service.serving import form, png, read_picture, serving
from tests.service.test_process import served
from tests.waiting import wait_for

SMALL = {"resize": 96, "crop": 96}


@pytest.fixture(scope="module")
def ensemble(gravel_folder, tmp_path_factory):
    """An ensemble of EfficientNet-Lite0 and its flipped view, as the command builds it."""
    folder = tmp_path_factory.mktemp("service") / "ensemble"
    done(
        "build",
        gravel_folder,
        "--index",
        folder,
        "--backbone",
        "tiny",
        "--views",
        "flip",
    )
    return folder


@pytest.mark.slow
def test_answers_are_those_of_the_query_command(ensemble, parts, tmp_path):
    images = tmp_path / "new"
    images.mkdir()
    for i, image in enumerate(parts):
        (images / f"{i}.png").write_bytes(png(image))
    done("query", ensemble, images, "--out", tmp_path / "out")
    with (tmp_path / "out" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["verdict"] for row in rows} == {"OK", "NG"}
    with served(ensemble) as (_, url), httpx.Client(base_url=url, timeout=120) as client:
        answer = client.post("/v1/query?maps=tiff", files=form(*map(png, parts))).json()
        alone = client.post("/v1/query?maps=png", files=form(png(parts[3]))).json()
        described = client.get("/v1/index").json()
    manifest = EnsembleManifest.read(ensemble)
    assert answer["generation"] == described["generation"] == manifest.generation
    for row, one in zip(rows, answer["images"], strict=True):
        name = row["path"].rsplit("/", 1)[1]
        assert one["name"] == name and one["verdict"] == row["verdict"]
        assert one["score"] == pytest.approx(float(row["score"]), rel=1e-5)
        assert one["threshold"] == pytest.approx(float(row["threshold"]), rel=1e-8)
        expected = tifffile.imread(tmp_path / "out" / "maps" / name.replace("png", "tiff"))
        np.testing.assert_allclose(read_picture(one["map"]), expected, rtol=1e-4, atol=1e-4)
    exact, grey = read_picture(answer["images"][3]["map"]), alone["images"][0]["map"]
    assert exact.min() < 0 < exact.max()
    difference = np.abs(read_picture(grey) * grey["scale"] - np.maximum(exact, 0))
    assert difference.max() <= 0.51 * grey["scale"] + 1e-4
    assert [(one["backbone"], one["mirrored"]) for one in described["members"]] == [
        ("tiny", False),
        ("tiny", True),
    ]
    assert described["bytes"] == sum(one["bytes"] for one in described["members"])
    assert (described["images"], described["backbone"]) == (10, "tiny")
    assert described["threshold"] == manifest.calibration.mean_threshold
    assert described["levels"] == described["members"][0]["levels"]


def swapped(new, folder):
    """Put a folder in another's place, which then is `new`'s."""
    beside = folder.with_name("old")
    folder.rename(beside)
    new.rename(folder)
    shutil.rmtree(beside)


@pytest.mark.slow
def test_index_and_ensemble_take_each_others_place_without_losing_a_request(tiny, tmp_path):
    """Queries go on all the while, and each is answered by what it names."""
    folder, images = tmp_path / "index", texture("gravel", 6)
    image = with_hole(texture("gravel", 1, seed=8)[0])
    expected = {}
    Spade(tiny, **SMALL).fit(images[:4], folder)

    def know():
        found = open_detector(folder, networks=[tiny])
        assert all(member.network is tiny for member in found.members)
        expected[read_manifest(folder).generation] = next(found.query([image])).peak

    def ensemble():
        Ensemble.of([tiny], ["flip"], **SMALL).fit(images[:4], tmp_path / "new")
        swapped(tmp_path / "new", folder)

    def grown():
        open_detector(folder, networks=[tiny]).add([paths[0]])

    def index():
        Spade(tiny, **SMALL).fit(images, tmp_path / "new")
        swapped(tmp_path / "new", folder)

    paths = [tmp_path / "more.png"]
    cv2.imwrite(str(paths[0]), images[5][..., ::-1])
    know()
    stop, answers = threading.Event(), []
    with serving(folder, tiny, every=0.02) as service, ThreadPoolExecutor(3) as pool:

        def ask():
            while not stop.is_set():
                answer = service.client.post("/v1/query", files=form(png(image)))
                answers.append((answer.status_code, answer.json()))

        clients = [pool.submit(ask) for _ in range(3)]
        try:
            for change in (ensemble, grown, index):
                change()
                know()
                now = [*expected][-1]
                wait_for(lambda now=now: any(one.get("generation") == now for _, one in answers))
                networks = {
                    one.network
                    for one in getattr(service.live.detector, "members", [service.live.detector])
                }
                assert networks == {tiny}  # not loaded again
        finally:
            stop.set()
        for client in clients:
            client.result()
        assert service.client.get("/v1/index").json()["images"] == 6
    assert {status for status, _ in answers} == {200}
    assert {answer["generation"] for _, answer in answers} == set(expected) and len(expected) == 4
    for _, answer in answers:
        assert answer["images"][0]["peak"] == pytest.approx(
            expected[answer["generation"]], rel=1e-4
        )


def test_a_folder_of_both_is_refused_and_the_old_one_stays(tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(LiveIndex, "RETRY", 0.1)
    folder, other = tmp_path / "index", tmp_path / "other"
    Spade(tiny, **SMALL).fit(texture("gravel", 3), folder)
    Ensemble.of([tiny], ["flip"], **SMALL).fit(texture("gravel", 4), other)
    with serving(folder, tiny, every=0.02) as service:
        shutil.copytree(other, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
        wait_for(lambda: 'outcome="refused"' in service.client.get("/metrics").text)
        assert "holds both an index (manifest.json) and an ensemble" in caplog.text
        assert service.client.get("/v1/index").json()["images"] == 3
        with pytest.raises(SpadeError, match="remove the file of the one that is not meant"):
            open_detector(folder)
        (folder / "manifest.json").unlink()
        wait_for(lambda: len(service.client.get("/v1/index").json()["members"]) == 2)
        assert service.client.get("/v1/index").json()["images"] == 4
