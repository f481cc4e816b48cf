"""The region that is looked at: asked for, and changed."""

import io
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from spade_faiss import Ensemble, Spade, open_detector
from spade_faiss.detector.extract import features_of_kept
from spade_faiss.images.roi import Roi
from spade_faiss.index import index_lock
from tests.conftest import texture, with_hole
from tests.service.serving import SMALL, form, png, serving
from tests.waiting import wait_for

GOOD = texture("gravel", 6)
DIRT, HOLE = with_hole(GOOD[0], 200, 60, 18), with_hole(GOOD[0], 80, 128, 18)
"""What is wrong at the right, and in the left half."""
OPTIONS = SMALL | {"quantile": 0.8}


def white(left, side=256):
    mask = np.zeros((side, side), np.uint8)
    mask[:, :left] = 255
    return mask


LEFT = white(140)


def grey_png(mask):
    return cv2.imencode(".png", mask)[1].tobytes()


@pytest.fixture
def folder(tiny, tmp_path):
    Spade(tiny, **OPTIONS).fit(GOOD, tmp_path / "index")
    return tmp_path / "index"


def settled(client):
    """Return what is said of the region once nothing is learnt any more."""
    wait_for(lambda: client.get("/v1/region").json()["state"] != "learning")
    return client.get("/v1/region").json()


def verdicts(client, *images):
    answer = client.post("/v1/query", files=form(*map(png, images))).json()
    return [one["verdict"] for one in answer["images"]]


def test_a_region_is_learnt_while_the_index_before_answers(tiny, folder):
    with serving(folder, tiny, editable=True) as service:
        client = service.client
        before = client.get("/v1/region").json()
        assert before["everything"] and before["polygons"] == [] and before["refused"] is None
        assert (before["state"], before["since"], before["images"]) == ("idle", None, 6)
        assert client.get("/v1/region/mask").status_code == 404
        whole = client.get("/v1/index").json()
        assert verdicts(client, DIRT, HOLE) == ["NG", "NG"]
        answer = client.put("/v1/region", content=grey_png(LEFT))
        assert answer.status_code == 202 and answer.json()["state"] == "learning"
        assert client.get("/readyz").status_code == 200
        after = settled(client)
        assert after["state"] == "idle" and after["problem"] is None and after["since"]
        assert not after["everything"] and (after["width"], after["height"]) == (256, 256)
        (left,) = after["polygons"]
        assert left["looked_at"] and sorted(map(tuple, left["corners"])) == [
            *((0, 0), (0, 256), (140, 0), (140, 256)),
        ]
        # What is said to count does.
        assert verdicts(client, DIRT, HOLE) == ["OK", "NG"]
        assert client.get("/v1/index").json()["outdated"] is None
        kept = np.asarray(Image.open(io.BytesIO(client.get("/v1/region/mask").content)))
        assert np.array_equal(kept, LEFT > 0)
        built = Spade(tiny, region=LEFT > 0, **OPTIONS).fit(GOOD)
        assert client.get("/v1/index").json()["threshold"] == built.image_threshold
        assert client.delete("/v1/region").status_code == 202
        assert settled(client)["everything"] and verdicts(client, DIRT, HOLE) == ["NG", "NG"]
        again = client.get("/v1/index").json()
        assert again["threshold"] == whole["threshold"]
        # The same once more: nothing is made anew.
        client.delete("/v1/region")
        settled(client)
        assert client.get("/v1/index").json()["generation"] == again["generation"]


def test_an_ensemble_and_settings_of_the_service_alone(tiny, tmp_path):
    Ensemble.of([tiny], ["flip"], **OPTIONS).fit(GOOD, tmp_path / "views")
    with serving(tmp_path / "views", tiny, editable=True, detector={"k": 2}) as service:
        service.client.put("/v1/region", content=grey_png(LEFT))
        assert settled(service.client)["problem"] is None
        assert verdicts(service.client, DIRT, HOLE) == ["OK", "NG"]
        assert service.client.get("/v1/index").json()["k"] == 2
    ensemble = open_detector(tmp_path / "views", networks=[tiny])
    assert ensemble.k == 50  # of the index itself: nobody asked to change that
    assert all(one.settings.region == Roi(LEFT > 0) for one in ensemble.members)


def test_what_is_not_done_is_one_line(tiny, index, folder):
    with serving(index, tiny) as service:
        off = "this service does not change its index: start it with `editable=True`"
        for answer in (
            service.client.put("/v1/region", content=grey_png(LEFT)),
            service.client.delete("/v1/region"),
        ):
            assert (answer.status_code, answer.json()["detail"]) == (403, off)
        assert service.client.get("/v1/region").json()["refused"] == off
        missing = service.client.get("/v1/region/picture?image=10")
        assert missing.json()["detail"] == "the index has 10 images, from 0 on"
        answer = service.client.get("/v1/region/mask")
        assert answer.json()["detail"] == "the index has no region: it looks at everything"
    with serving(folder, tiny, editable=True) as service:
        foreign = {"origin": "http://elsewhere"}
        for status, line, body in (
            (422, "the body is empty: send a PNG, or use DELETE to look at everything", None),
            (422, "the picture: the region is empty: nothing of it is white;", 0 * LEFT),
            (422, "the region is 256x128 pixels and the picture 256x256, which is", LEFT[:128]),
            (422, "the region is too small: nothing of it is left of 256x256 pixels", white(1)),
            (415, "the region: is not an image that can be decoded", b"no image"),
            (413, "the region: has more than 32000000 pixels", white(9, 6000)),
        ):
            body = grey_png(body) if isinstance(body, np.ndarray) else body
            answer = service.client.put("/v1/region", content=body)
            assert answer.json()["detail"].startswith(line) and answer.status_code == status
        answer = service.client.put("/v1/region", files=form(grey_png(LEFT)))
        line = "send the picture itself as the body, not a form"
        assert (answer.status_code, answer.json()["detail"]) == (415, line)
        answer = service.client.put("/v1/region", content=grey_png(LEFT), headers=foreign)
        line = "pages of http://elsewhere may not use this: allow them with `allow_origins`"
        assert (answer.status_code, answer.json()["detail"]) == (403, line)
        answer = service.client.delete("/v1/region", headers=foreign)
        assert answer.status_code == 403
        assert service.client.get("/v1/region").json()["since"] is None
        with index_lock(folder):
            service.client.put("/v1/region", content=grey_png(LEFT))
            failed = settled(service.client)
        assert failed["state"] == "failed" and failed["everything"]
        assert failed["problem"] == f"{folder} is being written by another process; wait for it"
        assert verdicts(service.client, DIRT) == ["NG"]
    token = "a-token-of-32-characters-or-more"
    with serving(folder, tiny, editable=True, token=token) as service:
        for path in ("", "/mask", "/picture", "/proposal"):
            assert service.client.get(f"/v1/region{path}").status_code == 401
        assert service.client.put("/v1/region", content=grey_png(LEFT)).status_code == 401
        headers = {"authorization": f"Bearer {token}"}
        answer = service.client.put("/v1/region", content=grey_png(LEFT), headers=headers)
        assert answer.status_code == 202


def test_one_region_at_a_time_and_none_once_the_service_ends(tiny, folder, monkeypatch):
    go_on = threading.Event()

    def slow(*arguments, **options):
        go_on.wait(60)
        return features_of_kept(*arguments, **options)

    monkeypatch.setattr("spade_faiss.detector.generation.features_of_kept", slow)
    generation = Spade.load(folder, backbone=tiny).manifest.generation
    with serving(folder, tiny, editable=True) as service:
        service.client.put("/v1/region", content=grey_png(LEFT))
        wait_for(lambda: "training images" in service.client.get("/v1/region").json()["progress"])
        second = service.client.delete("/v1/region")
        assert second.status_code == 409 and int(second.headers["retry-after"]) > 0
        line = "another region is being learnt; ask again when it counts"
        assert second.json()["detail"] == line
        assert verdicts(service.client, DIRT) == ["NG"]
        service.state.draining = True
        assert service.client.put("/v1/region", content=grey_png(LEFT)).status_code == 503
        threading.Timer(0.5, go_on.set).start()
        start = time.monotonic()
    assert time.monotonic() - start < 30
    kept = Spade.load(folder, backbone=tiny)
    assert kept.manifest.generation == generation and kept.settings.region is None


def test_an_index_that_keeps_too_little_says_so(tiny, index, monkeypatch):
    with serving(index, tiny, editable=True) as service:
        manifest = service.live.detector.index_.manifest
        service.live.detector.index_.manifest = manifest.extended(motion=True)
        try:
            answer = service.client.put("/v1/region", content=grey_png(LEFT))
            line = "keeps no frames before its images, so that it cannot be given another region"
            assert answer.status_code == 409 and line in answer.json()["detail"]
            monkeypatch.setattr("os.access", lambda *_: False)
        finally:
            service.live.detector.index_.manifest = manifest
        answer = service.client.delete("/v1/region")
        assert answer.json()["detail"] == f"{index} cannot be written by the service"


def test_good_images_are_shown_as_far_as_they_are_kept(tiny, service, tmp_path):
    data = service.client.get("/v1/region/picture").content
    shown = np.asarray(Image.open(io.BytesIO(data)), int)
    assert shown.shape == (256, 256, 3)
    good = texture("gravel", 10)
    kept = np.s_[16:240, 16:240]  # but for the crop
    best = min(np.abs(shown[kept] - image[kept]).mean() for image in good)
    assert best < 4 and (np.abs(shown[:14] - 127) < 6).all()
    Spade(tiny, resize=64, crop=None).fit([one[:120, :220] for one in GOOD], tmp_path / "wide")
    with serving(tmp_path / "wide", tiny) as other:
        answer = other.client.get("/v1/region/picture?image=5")
        assert Image.open(io.BytesIO(answer.content)).size == (128, 64)
        said = other.client.get("/v1/region").json()
        assert (said["width"], said["height"]) == (220, 120)


def test_a_region_is_proposed_by_what_the_index_keeps(tiny, tmp_path):
    def on_ground(seed):
        image = np.full((240, 240, 3), 60, np.uint8)
        image[60:180, 50:150] = texture("gravel", 1, seed)[0][:120, :100]
        return image

    Spade(tiny, resize=120, crop=112).fit([on_ground(i) for i in range(6)], tmp_path / "a")
    Spade(tiny, **SMALL).fit(GOOD, tmp_path / "b")
    with serving(tmp_path / "a", tiny) as service:
        proposed = service.client.get("/v1/region/proposal").json()
        mask = np.zeros((proposed["height"], proposed["width"]), np.uint8)
        for one in proposed["polygons"]:
            cv2.fillPoly(mask, [np.array(one["corners"])], int(one["looked_at"]))
        assert mask.shape == (240, 240) and mask[60:180, 50:150].all()
        assert mask.mean() < 0.5 and not mask[:, 190:].any()
    with serving(tmp_path / "b", tiny) as service:
        assert service.client.get("/v1/region/proposal").json()["polygons"] == []


@pytest.mark.parametrize(
    "options",
    [{"crop": 96, "resize": 96}, {"crop": None, "resize": 80}, {"crop": None, "tile": 64}],
)
def test_pictures_that_are_not_square_are_served_by_a_region(tiny, tmp_path, options):
    """What the network sees has another aspect than they have."""
    good = [image[:120, :160] for image in GOOD]
    mask = np.zeros((120, 160), bool)
    mask[20:100, 30:120] = True
    Spade(tiny, quantile=0.8, region=mask, **options).fit(good, tmp_path / "index")
    with serving(tmp_path / "index", tiny, editable=True) as service:
        client = service.client
        assert len(verdicts(client, good[0])) == 1
        square = client.post("/v1/query", files=form(png(GOOD[0][:200, :200])))
        assert square.status_code == 422 and "another aspect" in square.text
        mask[:, :60] = False
        assert client.put("/v1/region", content=grey_png(255 * mask.astype(np.uint8))).is_success
        assert settled(client)["state"] == "idle"
        assert len(verdicts(client, good[0])) == 1
