"""The service tells Prometheus whether images still look like those of the calibration."""

import gc
import re
import shutil
import weakref
from math import isnan

import numpy as np
import pytest

from spade_faiss import Spade, open_detector
from spade_faiss.service import IndexFolder, drifting
from tests.conftest import texture
from tests.service.serving import form, png, running, serving
from tests.waiting import wait_for

BATCH = 16


@pytest.fixture
def batches(monkeypatch):
    monkeypatch.setattr(drifting, "BATCH", BATCH)


@pytest.fixture(scope="module")
def calibrated(index, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated") / "index"
    shutil.copytree(index, folder)
    Spade.load(folder, backbone=tiny).calibrate(texture("gravel", 24, seed=5), false_alarms=0.2)
    return folder


def value(client, name):
    [found] = re.findall(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.M)
    return float(found)


def send(client, images, place="/v1"):
    client.post(f"{place}/query", files=form(*map(png, images))).raise_for_status()


def test_a_batch_of_other_light_is_warned_of_and_one_like_the_calibrations_is_not(
    calibrated, tiny, batches
):
    with serving(calibrated, tiny) as service:
        good = texture("gravel", 2 * BATCH, seed=9)
        darker = [(0.8 * image).astype(np.uint8) for image in good[BATCH:]]
        send(service.client, good[: BATCH - 1])
        assert isnan(value(service.client, "spade_faiss_drift_warned"))
        send(service.client, good[BATCH - 1 : BATCH])
        assert value(service.client, "spade_faiss_drift_warned") == 0
        apart = value(service.client, "spade_faiss_drift_apart")
        send(service.client, darker)
        assert value(service.client, "spade_faiss_drift_warned") == 1
        assert value(service.client, "spade_faiss_drift_apart") > max(apart, 2 / 3)


def test_an_index_that_takes_its_place_begins_anew(calibrated, tiny, batches, tmp_path):
    folder = tmp_path / "index"
    shutil.copytree(calibrated, folder)
    with serving(folder, tiny, every=0.05) as service:
        send(service.client, [image // 2 for image in texture("gravel", BATCH, seed=9)])
        assert value(service.client, "spade_faiss_drift_warned") == 1
        before = weakref.ref(service.live.detector)
        spade = Spade.load(folder, backbone=tiny)
        spade.image_threshold = 100 * spade.image_threshold
        spade.keep_threshold()
        wait_for(lambda: service.live.detector is not before())
        wait_for(lambda: gc.collect() >= 0 and before() is None)  # it is not kept for the next
        send(service.client, texture("gravel", 1))
        assert isnan(value(service.client, "spade_faiss_drift_warned"))


def test_without_a_calibration_nothing_is_told(index, tiny, batches):
    with serving(index, tiny) as service:
        send(service.client, texture("gravel", BATCH, seed=9))
        assert isnan(value(service.client, "spade_faiss_drift_warned"))
        assert isnan(value(service.client, "spade_faiss_drift_apart"))


def test_scores_are_counted_as_shares_of_their_thresholds(service, index, parts):
    answer = service.client.post("/v1/query", files=form(png(parts[1]))).json()["images"][0]
    before = value(service.client, "spade_faiss_score_share_sum")
    send(service.client, parts[1:2])
    after = value(service.client, "spade_faiss_score_share_sum")
    assert after - before == pytest.approx(answer["score"] / answer["threshold"])


def test_each_of_several_indices_has_its_own(calibrated, index, tiny, batches, tmp_path):
    shutil.copytree(calibrated, tmp_path / "calibrated")
    shutil.copytree(index, tmp_path / "other")

    def opener(folder, networks):
        return open_detector(folder, networks=networks or (tiny,))

    with running(IndexFolder(tmp_path, opener)) as several:
        darker = [image // 2 for image in texture("gravel", BATCH, seed=9)]
        for name in ("calibrated", "other"):
            send(several.client, darker, f"/v1/indices/{name}")
        told = [
            value(several.client, f'spade_faiss_drift_warned{{index="{name}"}}')
            for name in ("calibrated", "other")
        ]
        assert told[0] == 1 and isnan(told[1])
        shares = 'spade_faiss_score_share_count{index="other"}'
        assert value(several.client, shares) == BATCH
