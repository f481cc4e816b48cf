import math
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import numpy as np
import pytest

from spade_faiss import Spade, SpadeError, open_detector
from spade_faiss.images import Frame
from spade_faiss.service import Limits, LiveIndex
from spade_faiss.service.limits import Admission, Refusal
from spade_faiss.verdict import find_regions
from tests.conftest import texture
from tests.service.serving import form, png, read_picture, serving
from tests.waiting import wait_for

TOKEN = "a-token-of-some-length"


def why(answer, status):
    """Check that a request was refused with one line, and return it."""
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert isinstance(detail, str) and detail and "\n" not in detail
    return detail


def batches(client):
    text = client.get("/metrics").text
    return {
        name: float(re.search(rf"^spade_faiss_batch_images_{name} (\S+)", text, re.M)[1])
        for name in ("count", "sum")
    }


def answered(client):
    """Return how many queries there have been, whatever their answers."""
    text = client.get("/metrics").text
    return sum(
        map(
            float,
            re.findall(
                r'^spade_faiss_requests_total\{path="/v1/query",status="\d+"\} (\S+)', text, re.M
            ),
        )
    )


def test_requests_at_once_are_batched_and_answered_as_if_alone(service, index, tiny, parts):
    spade = Spade.load(index, backbone=tiny)
    alone = [next(spade.query([image])) for image in parts]
    before = batches(service.client)

    def ask(i):
        answer = service.client.post("/v1/query?maps=tiff", files=form(png(parts[i])))
        assert answer.status_code == 200
        return i, answer.json()["images"][0]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, [*range(8)] * 3))
    after = batches(service.client)
    assert after["sum"] - before["sum"] == 24
    assert after["count"] - before["count"] < 16
    for i, answer in answers:
        expected = alone[i]
        values = read_picture(answer["map"])
        assert values.dtype == np.float32 and values.shape == parts[i].shape[:2]
        np.testing.assert_allclose(values, expected.map, rtol=1e-5, atol=1e-5)
        assert answer["score"] == pytest.approx(expected.peak, rel=1e-6)
        assert answer["descriptor_score"] == pytest.approx(expected.descriptor_score, rel=1e-5)
        assert answer["mean_score"] == pytest.approx(expected.mean_score, rel=1e-5)
        assert answer["threshold"] == spade.image_threshold
        assert answer["verdict"] == ("NG" if expected.peak > spade.image_threshold else "OK")
        regions = find_regions(expected, spade.index_, spade.pixel_threshold)
        assert [one["box"] for one in answer["regions"]] == [list(one.box) for one in regions]
        for one, region in zip(answer["regions"], regions, strict=True):
            assert [(m["level"], m["image"], tuple(m["box"])) for m in one["matches"]] == [
                (m.level, m.image, m.box) for m in region.matches
            ]
    verdicts = {answer["verdict"] for _, answer in answers}
    assert verdicts == {"OK", "NG"}


def test_images_of_a_request_keep_their_order_and_names(service, parts):
    files = [("images", (f"part {i}.png", png(image))) for i, image in enumerate(parts)]
    answer = service.client.post("/v1/query", files=files)
    images = answer.json()["images"]
    assert [one["name"] for one in images] == [f"part {i}.png" for i in range(8)]
    assert [(one["height"], one["width"]) for one in images] == [v.shape[:2] for v in parts]
    assert [one["verdict"] for one in images] == ["OK", "NG"] * 4
    assert all(one["map"] is None and one["photo"] is None for one in images)
    assert answer.json()["generation"] == service.live.detector.index_.manifest.generation


def test_an_image_that_was_hardly_seen_is_noted(service, parts):
    strip = np.resize(parts[0], (64, 1280, 3))
    answer = service.client.post("/v1/query", files=form(png(parts[0]), png(strip))).json()
    assert [image["notes"] for image in answer["images"]] == [
        [],
        ["seen only in part: 3.8 % of 1280x64 pixels"],
    ]


def test_paths_that_are_no_unicode_are_told(tiny, tmp_path, caplog):
    good = [
        Frame(f"latin\udce9/{i}.png", image[:64, :64])
        for i, image in enumerate(texture("gravel", 3))
    ]
    good.append(Frame("latin\udce9/3.png", good[0].image))  # which a note tells
    Spade(tiny, resize=64, crop=64, engine="faiss").fit(good, tmp_path / "index")
    with serving(tmp_path / "index", tiny, detector={"threshold": 1}) as running:
        index = running.client.get("/v1/index").json()
        bad = good[0].image.copy()
        bad[24:40, 24:40] = 0
        (image,) = running.client.post("/v1/query", files=form(png(bad))).json()["images"]
        again = form(png(good[0].image))
        (same,) = running.client.post("/v1/query", files=again).json()["images"]
    assert image["regions"][0]["matches"][0]["image"].startswith(r"latin\udce9/")
    copies = r"latin\udce9/0.png, latin\udce9/3.png"
    assert any(note.endswith(copies) for note in index["notes"])
    assert any(r"latin\udce9/" in note for note in same["notes"])
    assert r"latin\udce9/" in caplog.text and caplog.text.encode()  # what is logged, too


def test_maps_as_png_have_a_scale(service, parts):
    maps = {}
    for kind in ("png", "tiff"):
        answer = service.client.post(f"/v1/query?maps={kind}", files=form(png(parts[3])))
        maps[kind] = answer.json()["images"][0]["map"]
    grey, exact = read_picture(maps["png"]), read_picture(maps["tiff"])
    assert grey.dtype.kind in "ui" and grey.max() == 65535
    scale = maps["png"]["scale"]
    assert np.abs(grey * scale - exact).max() <= 0.51 * scale
    assert maps["tiff"]["scale"] is None


def test_pictures_show_the_place_and_the_good_patch(service, parts, index):
    answer = service.client.post("/v1/query?pictures=true", files=form(png(parts[3])))
    image = answer.json()["images"][0]
    photo, overlay = read_picture(image["photo"]), read_picture(image["overlay"])
    assert photo.shape == overlay.shape and max(photo.shape) == 640
    region = image["regions"][0]
    left, top, right, bottom = (round(v * 640 / 256) for v in region["box"])
    difference = np.abs(photo.astype(int) - overlay).mean(axis=2)
    assert difference[top:bottom, left:right].mean() > 40  # painted where it is wrong
    here, good = read_picture(region["here"]), read_picture(region["good"])
    assert here.shape == good.shape
    assert here[60:100, 60:100].mean() < good[60:100, 60:100].mean()  # a dark hole in bright gravel


def test_what_lies_over_an_image_is_drawn_in_its_own_pixels(service, parts):
    files = form(png(parts[3]))
    (image,) = service.client.post("/v1/query?pictures=true", files=files).json()["images"]
    heat = read_picture(image["heat"])
    assert heat.shape == (256, 246, 4) == (image["height"], image["width"], 4)
    pairs = re.findall(r"[\d.]+ [\d.]+", image["outline"])
    points = np.array([pair.split() for pair in pairs], float)
    boxes = np.array([region["box"] for region in image["regions"]], float)
    corners = [*points.min(0), *points.max(0)]
    assert corners == pytest.approx([*boxes[:, :2].min(0), *boxes[:, 2:].max(0)], abs=1)
    assert image["unseen"].startswith("M0 0H246V256H0Z")  # the crop's margin, by the even-odd rule
    x, y = image["regions"][0]["peak_at"]
    assert heat[y, x, 3] > 240 and np.median(heat[..., 3]) < 20
    plain = service.client.post("/v1/query", files=form(png(parts[3]))).json()["images"][0]
    drawn = ("photo", "overlay", "heat", "outline", "unseen")
    assert [plain[name] for name in drawn] == [None] * 5


def test_an_image_is_sent_back_at_its_own_resolution(service, parts):
    large = cv2.resize(parts[1], (1500, 1000))
    for address, size in (("full=true", (1000, 1500)), ("full=false", (427, 640))):
        answer = service.client.post(
            f"/v1/query?pictures=true&{address}", files=form(png(large))
        ).json()
        (image,) = answer["images"]
        assert read_picture(image["photo"]).shape == (*size, 3)
        assert max(read_picture(image["heat"]).shape) == 1280
    assert read_picture(image["overlay"]).shape == (427, 640, 3)


def test_the_index_is_described(service, index):
    answer = service.client.get("/v1/index").json()
    manifest = service.live.detector.index_.manifest
    assert answer["images"] == 10 and answer["generation"] == manifest.generation
    assert answer["threshold"] == manifest.calibration.pixel_threshold
    assert answer["backbone"] == "tiny" and answer["cropped"]
    assert [level["channels"] for level in answer["levels"]] == [8, 16, 64]
    assert answer["min_area"] is None


def test_a_least_area_is_described_and_kept_to(tiny, tmp_path):
    good = [image[:64, :64] for image in texture("gravel", 3)]
    Spade(tiny, resize=64, crop=64, min_area=1000).fit(good, tmp_path / "index")
    bad = good[0].copy()
    bad[16:48, 16:48] = 0
    with serving(tmp_path / "index", tiny, detector={"threshold": 1}) as running:
        assert running.client.get("/v1/index").json()["min_area"] == 1000
        answer = running.client.post("/v1/query?pictures=true", files=form(png(bad)))
    (image,) = answer.json()["images"]
    assert image["regions"] and all(one["area"] >= 1000 for one in image["regions"])
    with serving(tmp_path / "index", tiny, detector={"min_area": 40}) as running:
        assert running.client.get("/v1/index").json()["min_area"] == 40


def test_health_and_metrics(service, parts):
    assert service.client.get("/healthz").json() == {"status": "ok"}
    assert service.client.get("/readyz").json() == {"status": "ready"}
    service.client.post("/v1/query", files=form(png(parts[1])))
    service.client.post("/v1/query", files=form(b""))
    text = service.client.get("/metrics").text
    for line in (
        r'spade_faiss_requests_total\{path="/v1/query",status="200"\} [1-9]',
        r'spade_faiss_requests_total\{path="/v1/query",status="422"\} [1-9]',
        r'spade_faiss_request_seconds_bucket\{le="0.1",path="/v1/query"\} ',
        r'spade_faiss_verdicts_total\{verdict="NG"\} [1-9]',
        r"spade_faiss_queue_images 0\.0",
        r"spade_faiss_images_in_work 0\.0",
        r"spade_faiss_batch_images_count [1-9]",
    ):
        assert re.search(f"^{line}", text, re.M), line


def test_pages_ask_nothing_of_other_hosts(service):
    for path in (
        "/",
        "/docs",
        "/static/page.js",
        "/static/page.css",
        "/static/docs.css",
        "/static/colours.css",
        "/static/viewer.css",
        "/static/viewer.js",
    ):
        answer = service.client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"(src|href)=\"(https?:)?//|@import|url\((?!#)", answer.text)
        assert not re.search(r"<script>|<style>| style=| on[a-z]+=", answer.text)
    docs = service.client.get("/docs").text
    for word in ("POST /v1/query", "GET /v1/index", "GET /healthz", "Retry-After"):
        assert word in docs
    assert service.client.get("/static/../app.py").status_code == 404
    assert service.client.get("/static/%2e%2e/app.py").status_code == 404


def test_other_hosts_and_other_sites_pages_are_refused(service, parts):
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "",
        "[::1",
        "10.0.0.1",
        "localhost@evil.example",
    ):
        refused = why(service.client.get("/v1/index", headers={"host": host}), 421)
        assert "name" in refused and "`allow_hosts`" in refused
    for host in ("localhost", f"localhost:{service.port}", "127.0.0.1", "[::1]:1", "127.8.8.8"):
        assert service.client.get("/v1/index", headers={"host": host}).status_code == 200
    origin = {"origin": "https://evil.example"}
    why(service.client.post("/v1/query", files=form(png(parts[0])), headers=origin), 403)
    own = {"origin": f"http://127.0.0.1:{service.port}"}
    answer = service.client.post("/v1/query", files=form(png(parts[0])), headers=own)
    assert answer.status_code == 200


def test_a_token_guards_what_tells_of_the_index(index, tiny, parts):
    with serving(index, tiny, token=TOKEN, allow_hosts=None) as service:
        for path in ("/v1/index", "/metrics", "/v1/query", "/nowhere"):
            for wrong in (
                {},
                {"authorization": f"Bearer {TOKEN[:-1]}"},
                {"authorization": f"Basic {TOKEN}"},
                {"authorization": "Bearer \xff"},
                {"authorization": f"Bearer {TOKEN}x"},
                {"authorization": TOKEN},
            ):
                answer = service.client.get(
                    path, headers={key: value.encode("latin-1") for key, value in wrong.items()}
                )
                assert "token" in why(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/docs", "/healthz", "/readyz", "/openapi.json", "/static/page.js"):
            assert service.client.get(path).status_code == 200
        right = {"authorization": f"bearer {TOKEN}", "host": "any.example"}
        assert service.client.get("/v1/index", headers=right).status_code == 200
        answer = service.client.post("/v1/query", files=form(png(parts[0])), headers=right)
        assert answer.status_code == 200
        scheme = service.client.get("/openapi.json").json()["components"]["securitySchemes"]
        assert scheme["HTTPBearer"]["scheme"] == "bearer"


@pytest.fixture(scope="module")
def small(index, tiny):
    """A service with little room."""
    limits = Limits(bytes=300_000, images=3, pixels=200_000, queue=3, batch=2)
    with serving(index, tiny, limits) as running:
        yield running


def test_too_many_bytes_pixels_or_images(small, parts):
    image = png(parts[0])
    assert len(image) > 100_000
    assert "3" in why(small.client.post("/v1/query", files=form(*[image[:100]] * 4)), 413)
    assert "300000" in why(small.client.post("/v1/query", files=form(*[image] * 3)), 413)
    black = png(np.zeros((500, 500, 3), np.uint8))
    assert "200000 pixels" in why(small.client.post("/v1/query", files=form(black)), 413)
    assert small.client.post("/v1/query", files=form(image)).status_code == 200


def test_bytes_are_counted_as_they_come(small):
    """A body whose length is not told is refused long before its end."""
    sent = 0

    def endless():
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\n'
        for _ in range(50):
            sent += 20_000
            yield bytes(20_000)

    answer = small.client.post(
        "/v1/query", content=endless(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert "300000 bytes" in why(answer, 413)
    assert sent <= 1_000_000


def test_a_body_that_does_not_come_is_given_up(index, tiny):
    # A service of its own: on a busy machine a body may take half a second that does come.
    with (
        serving(index, tiny, Limits(upload=0.5)) as service,
        socket.create_connection(("127.0.0.1", service.port)) as connection,
    ):
        connection.sendall(
            b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        )
        connection.settimeout(60)
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        wait_for(lambda: "images_in_work 0.0" in service.client.get("/metrics").text)


def test_a_client_that_leaves_takes_no_room(small):
    before = answered(small.client)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", small.port)) as connection:
            connection.sendall(
                b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 999\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
            )
    # Only then does no room taken mean anything: those that come later would take the next test's.
    wait_for(lambda: answered(small.client) == before + 5)
    assert "images_in_work 0.0" in small.client.get("/metrics").text


def test_a_full_queue_says_when_to_try_again(small, parts, monkeypatch):
    go_on = threading.Event()
    query = small.live.detector.query

    def slow(images):
        go_on.wait(60)
        return query(images)

    monkeypatch.setattr(small.live.detector, "query", slow)
    image = png(parts[1])
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(small.client.post, "/v1/query", files=form(image)) for _ in range(3)]
        wait_for(lambda: "images_in_work 3.0" in small.client.get("/metrics").text)
        answer = small.client.post("/v1/query", files=form(image))
        assert "queue" in why(answer, 429) and int(answer.headers["retry-after"]) >= 1
        go_on.set()
        assert [one.result().status_code for one in waiting] == [200] * 3


def test_a_worker_that_fails_is_told_apart_from_a_bad_image(small, parts, monkeypatch):
    def broken(images):
        raise RuntimeError("no memory")

    monkeypatch.setattr(small.live.detector, "query", broken)
    answer = small.client.post("/v1/query", files=form(png(parts[0])))
    assert "log" in why(answer, 500) and "no memory" not in answer.text
    monkeypatch.undo()
    assert small.client.post("/v1/query", files=form(png(parts[0]))).status_code == 200


def test_a_draining_service_says_so(index, tiny, parts):
    with serving(index, tiny) as service:
        service.state.draining = True
        service.state.requests += 1  # something is still in work
        answer = service.client.post("/v1/query", files=form(png(parts[0])))
        assert "shutting down" in why(answer, 503) and int(answer.headers["retry-after"]) >= 1
        assert answer.headers["connection"] == "close"
        assert service.client.get("/healthz").status_code == 200
        why(service.client.get("/readyz"), 503)
        service.state.requests -= 1


def test_admission_gives_its_room_back():
    admission = Admission(Limits(images=2, queue=2, pixels=100))
    with admission.enter(1, 150):
        with pytest.raises(Refusal), admission.enter(2):
            pass
        with pytest.raises(Refusal), admission.enter(1, 51):
            pass
        with admission.enter(1, 50):
            assert (admission.images, admission.pixels) == (2, 200)
    assert (admission.images, admission.pixels) == (0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bytes": 0},
        {"bytes": math.nan},
        {"images": 0},
        {"wait": -1},
        {"wait": math.nan},
        {"queue": 3},
        {"queue": math.inf},
        {"upload": 0},
        {"upload": math.inf},
        {"upload": math.nan},
    ],
)
def test_limits_that_cannot_be(wrong):
    with pytest.raises(SpadeError):
        Limits(**wrong)


@pytest.mark.parametrize("every", [0, math.nan, math.inf])
def test_looks_at_the_folder_are_some_time_apart(index, every):
    with pytest.raises(SpadeError, match="every = "):
        LiveIndex(index, lambda folder, networks: open_detector(folder), every)


def test_wrong_methods_and_places(service):
    assert why(service.client.get("/v1/query"), 405)
    assert why(service.client.get("/v1/nothing"), 404)
    assert "maps" in why(service.client.post("/v1/query?maps=gif", files=form(b"x")), 422)
    answer = httpx.request("BREW", f"http://127.0.0.1:{service.port}/v1/query")
    assert answer.status_code == 405
