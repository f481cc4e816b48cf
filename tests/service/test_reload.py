import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest

from spade_faiss import Spade
from spade_faiss.index import read_manifest
from spade_faiss.index.manifest import MANIFEST
from spade_faiss.service import Limits, LiveIndex
from tests.conftest import texture, with_hole
from tests.service.serving import SMALL, form, png, serving, set_threshold
from tests.waiting import wait_for


def digest(folder):
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_an_index_is_replaced_without_losing_a_request(tiny, tmp_path, preset):
    """Queries go on all the while, and each is answered by the index that it names."""
    folder = tmp_path / "index"
    images = texture("gravel", 8)
    Spade(tiny, preset=preset, **SMALL).fit(images[:6], folder)
    image = with_hole(texture("gravel", 1, seed=8)[0])
    expected = {}

    def know():
        spade = Spade.load(folder, backbone=tiny)
        expected[spade.index_.manifest.generation] = next(spade.query([image])).peak

    know()
    stop, answers = threading.Event(), []
    with serving(folder, tiny, every=0.02) as service, ThreadPoolExecutor(3) as pool:

        def ask():
            while not stop.is_set():
                answer = service.client.post("/v1/query", files=form(png(image)))
                answers.append((answer.status_code, answer.json()))

        clients = [pool.submit(ask) for _ in range(3)]
        try:
            for change in (
                lambda: Spade.load(folder, backbone=tiny).add(images[6:]),
                lambda: Spade(tiny, preset=preset, **SMALL).fit(images[3:], folder),
            ):
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
            expected[answer["generation"]], rel=1e-5
        )


def test_every_answer_has_the_thresholds_of_the_index_that_it_names(tiny, tmp_path):
    """While `calibrate` and `add` change the index; a calibration keeps the generation."""
    folder = tmp_path / "index"
    good, image = texture("gravel", 9, seed=3), png(with_hole(texture("gravel", 1, seed=8)[0]))
    Spade(tiny, **SMALL).fit(texture("gravel", 5), folder)
    expected = {}

    def know():
        spade = Spade.load(folder, backbone=tiny)
        expected[digest(folder)] = (spade.image_threshold, spade.index_.manifest.generation)

    know()
    stop, answers = threading.Event(), []
    with (
        serving(folder, tiny, every=60, limits=Limits(batch=2)) as service,
        ThreadPoolExecutor(3) as pool,
    ):

        def ask():
            while not stop.is_set():
                answer = service.client.post("/v1/query", files=form(image, image, image))
                answers.append((answer.status_code, answer.json()))

        clients = [pool.submit(ask) for _ in range(3)]
        try:
            for change in (
                lambda: Spade.load(folder, backbone=tiny).calibrate(good[:3]),
                lambda: Spade.load(folder, backbone=tiny).add(good[3:4]),
                lambda: Spade.load(folder, backbone=tiny).calibrate(good[4:]),
            ):
                change()
                know()
                now = [*expected][-1]
                wait_for(
                    lambda now=now: any(one.get("manifest_sha256") == now for _, one in answers)
                )
        finally:
            stop.set()
        for client in clients:
            client.result()
        calibrated = service.client.get("/v1/index").json()["calibrated"]
    assert {status for status, _ in answers} == {200}
    assert len({threshold for threshold, _ in expected.values()}) == 4
    assert len({generation for _, generation in expected.values()}) == 2
    assert {answer["manifest_sha256"] for _, answer in answers} == set(expected)
    for _, answer in answers:
        threshold, generation = expected[answer["manifest_sha256"]]
        assert answer["generation"] == generation
        assert [one["threshold"] for one in answer["images"]] == [threshold] * 3
    assert calibrated == read_manifest(folder).calibration_set.created


def test_an_answer_of_an_older_index_says_since_when_and_until_when(tiny, tmp_path, held):
    """And the newer one is opened when it is asked for, not when the folder is looked at next."""
    Spade(tiny, **SMALL).fit(texture("gravel", 3), tmp_path)
    image = form(png(texture("gravel", 1, seed=8)[0]))
    before = digest(tmp_path)
    with serving(tmp_path, tiny, every=3600) as service:
        first = service.client.post("/v1/query", files=image).json()
        assert (first["manifest_sha256"], first["outdated"]) == (before, None)
        held.clear()
        changed = datetime.now(UTC)
        set_threshold(tmp_path, 77.5)
        answer = service.client.post("/v1/query", files=image).json()
        assert answer["images"] == first["images"] and answer["manifest_sha256"] == before
        since, until = (
            datetime.fromisoformat(answer["outdated"][name]) for name in ("since", "until")
        )
        assert changed <= since <= datetime.now(UTC) and since < until
        assert answer["outdated"]["problem"] is None
        described = service.client.get("/v1/index").json()
        assert described["outdated"] == answer["outdated"]
        assert described["manifest_sha256"] == before
        gauge = re.search(
            r"^spade_faiss_index_outdated_seconds (\S+)", service.client.get("/metrics").text, re.M
        )
        assert float(gauge[1]) > 0
        held.set()
        wait_for(lambda: service.client.get("/v1/index").json()["outdated"] is None)
        last = service.client.post("/v1/query", files=image).json()
        assert last["manifest_sha256"] == digest(tmp_path) != before
        assert last["images"][0]["threshold"] == 77.5
        assert last["generation"] == first["generation"]  # the good images are the same
        assert "spade_faiss_index_outdated_seconds 0.0" in service.client.get("/metrics").text


def test_a_request_is_answered_by_one_index_though_its_images_are_of_several_batches(
    tiny, tmp_path, monkeypatch
):
    Spade(tiny, **SMALL).fit(texture("gravel", 3), tmp_path)
    image = png(texture("gravel", 1, seed=8)[0])
    go_on = threading.Event()
    with (
        serving(tmp_path, tiny, limits=Limits(batch=1), every=0.02) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        old = service.live.detector
        threshold, query = old.image_threshold, old.query

        def slow(images):
            go_on.wait(60)
            return query(images)

        monkeypatch.setattr(old, "query", slow)
        waiting = pool.submit(service.client.post, "/v1/query", files=form(image, image, image))
        wait_for(lambda: "batch_images_count 1.0" in service.client.get("/metrics").text)
        set_threshold(tmp_path, 77.5)
        wait_for(lambda: service.live.detector is not old)
        go_on.set()
        answer = waiting.result().json()
        assert [one["threshold"] for one in answer["images"]] == [threshold] * 3
        assert answer["outdated"] is None  # nothing was newer when it came
        after = service.client.post("/v1/query", files=form(image)).json()
        assert after["images"][0]["threshold"] == 77.5


def test_an_index_of_the_same_bytes_is_not_opened_again(tiny, tmp_path):
    Spade(tiny, **SMALL).fit(texture("gravel", 3), tmp_path)
    whole = (tmp_path / MANIFEST).read_bytes()
    with serving(tmp_path, tiny, every=0.02) as service:
        spade = service.live.detector
        (tmp_path / "copy").write_bytes(whole)
        (tmp_path / "copy").replace(tmp_path / MANIFEST)
        wait_for(lambda: service.client.get("/v1/index").json()["outdated"] is None)
        assert service.live.detector is spade
        assert "reloads_total{" not in service.client.get("/metrics").text


def test_what_cannot_be_served_leaves_the_old_index_in_service(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(LiveIndex, "RETRY", 0.1)
    spade = Spade(tiny, **SMALL).fit(texture("gravel", 4), tmp_path)
    whole = (tmp_path / MANIFEST).read_bytes()
    image = png(texture("gravel", 1, seed=8)[0])

    def refused():
        text = service.client.get("/metrics").text
        return 'reloads_total{outcome="refused"}' in text

    with serving(tmp_path, tiny, every=0.02) as service:
        before = service.client.post("/v1/query", files=form(image)).json()
        (tmp_path / MANIFEST).write_bytes(whole[:100])
        wait_for(refused)
        after = service.client.post("/v1/query", files=form(image)).json()
        assert "damaged" in after["outdated"]["problem"]
        own = {name: before[name] for name in ("request_id", "seconds", "outdated")}
        assert {**after, **own} == before
        assert service.client.get("/readyz").status_code == 200
        # A copy whose manifest comes first is tried again until the rest is there.
        other = tmp_path / "other"
        Spade(tiny, **SMALL).fit(texture("gravel", 5), other)
        generation = Spade.load(other, backbone=tiny).index_.manifest.generation
        (tmp_path / MANIFEST).write_bytes((other / MANIFEST).read_bytes())
        assert service.live.detector.index_.manifest.generation != generation
        (other / generation).rename(tmp_path / generation)
        wait_for(lambda: service.client.get("/v1/index").json()["images"] == 5)
        assert service.client.get("/v1/index").json()["outdated"] is None
        assert len(spade.index_) == 4
    assert np.isfinite(before["images"][0]["score"])
