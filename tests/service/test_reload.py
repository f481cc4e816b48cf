import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from spade_faiss import Spade
from spade_faiss.index.manifest import MANIFEST
from spade_faiss.service import LiveIndex
from tests.conftest import texture, with_hole
from tests.service.serving import form, png, serving, wait_for


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_an_index_is_replaced_without_losing_a_request(lite, tmp_path, preset):
    """Queries go on all the while, and each is answered by the index that it names."""
    folder = tmp_path / "index"
    images = texture("gravel", 8)
    Spade(lite, preset=preset).fit(images[:6], folder)
    image = with_hole(texture("gravel", 1, seed=8)[0])
    expected = {}

    def know():
        spade = Spade.load(folder, backbone=lite)
        expected[spade.index_.manifest.generation] = next(spade.query([image])).peak

    know()
    stop, answers = threading.Event(), []
    with serving(folder, lite, every=0.02) as service, ThreadPoolExecutor(3) as pool:
        def ask():
            while not stop.is_set():
                answer = service.client.post("/v1/query", files=form(png(image)))
                answers.append((answer.status_code, answer.json()))

        clients = [pool.submit(ask) for _ in range(3)]
        try:
            for change in (lambda: Spade.load(folder, backbone=lite).add(images[6:]),
                           lambda: Spade(lite, preset=preset).fit(images[3:], folder)):
                change()
                know()
                now = [*expected][-1]
                wait_for(lambda now=now: any(one.get("generation") == now for _, one in answers))
        finally:
            stop.set()
        for client in clients:
            client.result()
        assert 'reloads_total{outcome="served"} 2.0' in service.client.get("/metrics").text
    assert {status for status, _ in answers} == {200}
    seen = [answer["generation"] for _, answer in answers]
    assert set(seen) == set(expected)
    for _, answer in answers:
        assert answer["images"][0]["peak"] == pytest.approx(
            expected[answer["generation"]], rel=1e-5)


def test_new_thresholds_alone_are_served_too(lite, tmp_path):
    spade = Spade(lite).fit(texture("gravel", 4), tmp_path)
    with serving(tmp_path, lite, every=0.02) as service:
        made = spade.index_.manifest.calibration
        changed = spade.index_.manifest.model_copy(update={
            "calibration": made.model_copy(update={"pixel_threshold": 77.5})})
        changed.write(tmp_path)
        wait_for(lambda: service.client.get("/v1/index").json()["threshold"] == 77.5)


def test_what_cannot_be_served_leaves_the_old_index_in_service(lite, tmp_path, monkeypatch):
    monkeypatch.setattr(LiveIndex, "RETRY", 0.1)
    spade = Spade(lite).fit(texture("gravel", 4), tmp_path)
    whole = (tmp_path / MANIFEST).read_bytes()
    image = png(texture("gravel", 1, seed=8)[0])

    def refused():
        text = service.client.get("/metrics").text
        return 'reloads_total{outcome="refused"}' in text

    with serving(tmp_path, lite, every=0.02) as service:
        before = service.client.post("/v1/query", files=form(image)).json()
        (tmp_path / MANIFEST).write_bytes(whole[:100])
        wait_for(refused)
        assert service.client.post("/v1/query", files=form(image)).json() == before
        assert service.client.get("/readyz").status_code == 200
        # A copy whose manifest comes first is tried again until the rest is there.
        other = tmp_path / "other"
        Spade(lite).fit(texture("gravel", 5), other)
        generation = Spade.load(other, backbone=lite).index_.manifest.generation
        (tmp_path / MANIFEST).write_bytes((other / MANIFEST).read_bytes())
        assert service.live.spade.index_.manifest.generation != generation
        (other / generation).rename(tmp_path / generation)
        wait_for(lambda: service.client.get("/v1/index").json()["images"] == 5)
        assert len(spade.index_) == 4
    assert np.isfinite(before["images"][0]["score"])
