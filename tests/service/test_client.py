"""The client, against the service itself and against its OpenAPI description."""

import io
import json
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from pydantic import TypeAdapter

from spade_faiss import Spade, SpadeError, open_detector
from spade_faiss import client as client_module
from spade_faiss.client import Client, ServiceError, read_map
from spade_faiss.service import IndexFolder
from tests.conftest import texture
from tests.service.serving import SMALL, png, running

TOKEN = "a-token-of-some-length"
NOT_OFFERED = {
    "GET /healthz",
    "GET /metrics",
    "GET {base}/region/mask",
    "GET {base}/region/picture",
    "GET {base}/region/proposal",
    "GET {base}/history.csv",
    "GET {base}/history/picture",
    "GET {base}/history/image",
}


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    for name in ("a b", "ü"):
        Spade(tiny, **SMALL).fit(texture("gravel", 3), folder / name)
    return folder


@pytest.fixture(scope="module")
def several(folder):
    def opener(one, networks):
        return open_detector(one, networks=networks)

    with running(IndexFolder(folder, opener), token=TOKEN, editable=True) as service:
        yield service


@pytest.fixture
def client(service):
    with Client(f"http://127.0.0.1:{service.port}") as one:
        yield one


def test_images_of_every_kind_are_answered_alike(client, service, parts, tmp_path):
    pixels = parts[1]
    (tmp_path / "hole.png").write_bytes(png(pixels))
    with (tmp_path / "hole.png").open("rb") as file:
        answer = client.query(
            [tmp_path / "hole.png", str(tmp_path / "hole.png"), png(pixels), file, pixels],
            maps="tiff",
        )
    names = [image.name for image in answer.images]
    assert names == ["hole.png", "hole.png", "image 2", "hole.png", "image 4"]
    maps = [read_map(image.map) for image in answer.images]
    expected = service.live.detector.query([pixels])
    for image, values, one in zip(answer.images, maps, [*expected] * 5, strict=True):
        assert image.verdict == "NG" and image.score == answer.images[0].score
        assert values.dtype == np.float32 and np.array_equal(values, one.map)
    assert client.query(bytearray(png(pixels))).images[0].score == answer.images[0].score
    (small,) = client.query(io.BytesIO(png(pixels)), maps="png").images
    np.testing.assert_allclose(read_map(small.map), maps[0], atol=small.map.scale)
    grey = client.query(np.ascontiguousarray(pixels[..., 0])).images[0]
    assert grey.verdict and grey.photo is None
    (shown,) = client.query(pixels, pictures=True, full=True, request_id="line-3/7").images
    assert (shown.photo.width, shown.photo.height) == (pixels.shape[1], pixels.shape[0])
    answer = client.query(pixels, request_id="line-3/7")
    assert answer.request_id == "line-3/7" and 0 < answer.seconds < 60
    assert client.info().images == 10 and client.ready()


def test_what_is_wrong_is_said(client, parts, tmp_path):
    with pytest.raises(SpadeError, match=r"nothing\.png: No such file"):
        client.query(tmp_path / "nothing.png")
    with pytest.raises(SpadeError, match=r"must be uint8.*float64 \[4, 4\]"):
        client.query(np.zeros((4, 4)))
    with pytest.raises(SpadeError, match=r"a path, a file's content, .* and not a int"):
        client.query([3])
    for id in ("ä", "a\nb"):
        with pytest.raises(SpadeError, match=r"`request_id=.*` has letters that no header holds"):
            client.query(b"x", request_id=id)
    with pytest.raises(ServiceError, match=r"image 0: is empty") as caught:
        client.query(b"", request_id="x")
    assert (caught.value.status, caught.value.request_id) == (422, "x")
    with pytest.raises(ServiceError, match="here is one index, so use '/v1/index'") as caught:
        client.for_index("gravel").info()
    assert caught.value.status == 404
    with pytest.raises(ServiceError, match="editable"):
        client.look_at(None)
    for url in ("127.0.0.1:8000", "ftp://host", "http://", "http://host:port"):
        with pytest.raises(SpadeError, match="`url="):
            Client(url)
    with pytest.raises(SpadeError, match="token"):
        Client("http://host", token="a\nb")
    with Client("http://127.0.0.1:1") as nobody:
        assert not nobody.ready()
        with pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:1 does not answer") as caught:
            nobody.info()
    assert caught.value.status is None


def test_several_indices(several, parts):
    with Client(f"http://127.0.0.1:{several.port}/", token=TOKEN, index="a b") as client:
        assert [one.name for one in client.indices()] == ["a b", "ü"]
        first = client.query(parts[1])
        assert first.images[0].verdict and client.info().images == 3
        other = client.for_index("ü")
        assert other.query(parts[1]).manifest_sha256 != first.manifest_sha256
        assert {one.state for one in client.indices()} == {"open"}
        assert repr(other).endswith("index='ü')")
        with pytest.raises(ServiceError, match=r"there is no index 'none'.*404"):
            client.for_index("none").query(parts[1])
    with (
        Client(f"http://127.0.0.1:{several.port}", token="wrong" * 5) as client,
        pytest.raises(ServiceError, match="token") as caught,
    ):
        client.indices()
    assert caught.value.status == 401


@contextmanager
def answering(*answers):
    """Serve answers in turn, (status, headers, body), and yield the address and who asked."""
    left, asked = [*answers], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append((time.monotonic(), self.path))
            status, headers, body = left.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/below", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_is_refused_for_now_is_sent_again_when_the_service_says(service, parts):
    whole = service.client.post("/v1/query", files=[("images", ("a.png", png(parts[1])))]).content
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    busy = json.dumps({"detail": "the queue is full"}).encode()
    answers = [
        (429, {"Retry-After": "0"}, busy),
        (503, {"Retry-After": "0.3"}, busy),
        (503, {"Retry-After": soon}, busy),
        (200, {}, whole),
    ]
    with answering(*answers) as (url, asked), Client(url) as client:
        assert client.query(parts[1]).images[0].name == "a.png"
    assert [path for _, path in asked] == ["/below/v1/query"] * 4
    assert asked[2][0] - asked[1][0] >= 0.3


@pytest.mark.parametrize(
    "status, headers, said",
    [
        (503, {}, "no room"),  # not for now
        (503, {"Retry-After": "3600"}, "no room"),  # too long
        (503, {"Retry-After": "soon"}, "no room"),
        (500, {"Retry-After": "0"}, "no room"),
        (302, {"Location": "/elsewhere"}, "302"),
    ],
)
def test_what_is_refused_for_good_is_not_sent_again(status, headers, said):
    with answering((status, headers, b'{"detail": "no room"}')) as (url, asked):
        client = Client(url)
        with client, pytest.raises(ServiceError, match=said) as caught:
            client.info()
        assert caught.value.status == status and len(asked) == 1


def test_a_client_waits_no_longer_than_its_patience():
    answers = [(429, {"Retry-After": "0.2"}, b"{}")] * 50
    start = time.monotonic()
    with (
        answering(*answers) as (url, asked),
        Client(url, patience=0.7) as client,
        pytest.raises(ServiceError, match="429"),
    ):
        client.info()
    assert 2 <= len(asked) <= 4 and time.monotonic() - start < 10


@pytest.mark.parametrize("body", [b"<html>a proxy</html>", b"{}", b"[]"])
def test_what_no_service_answers_is_said(body):
    with (
        answering((200, {}, body)) as (url, _),
        Client(url) as client,
        pytest.raises(ServiceError, match="is it a spade-faiss service of this version"),
    ):
        client.info()


def test_the_client_is_as_the_description_of_the_service(service, several, parts):
    """Each of its calls is described; each type that it reads is the one that is described."""
    for one, index in ((service, None), (several, "ü")):
        api = one.client.get("/openapi.json").json()
        asked = []
        with Client(f"http://127.0.0.1:{one.port}", token=TOKEN, index=index) as client:
            client._http.event_hooks["request"].append(asked.append)
            calls = {
                "QueryAnswer": lambda: client.query(parts[0], maps="png", pictures=True, full=True),
                "IndexAnswer": client.info,
                "RegionAnswer": client.region,
                "RegionAnswer ": lambda: client.look_at(None),
                "RegionAnswer  ": lambda: client.look_at(png(parts[0] * 0 + 255)),
                "HistoryAnswer": lambda: client.history(
                    since=datetime.now(UTC), until=datetime.now(UTC), verdict="NG", before=9
                ),
                "PastResult": lambda: client.call_good(1, "Ada"),
                "PastResult ": lambda: client.take_off(1),
                "FeedbackAnswer": client.feedback,
                "FeedbackAnswer ": client.try_adding,
                "FeedbackAnswer  ": lambda: client.add("a", "Bob"),
                "FeedbackAnswer   ": lambda: client.step_back("Bob"),
                "Health": client.ready,
            }
            if index:
                calls["IndicesAnswer"] = client.indices
            tried = set()
            for kind, call in calls.items():
                try:
                    call()
                except ServiceError as error:  # this one may not be edited
                    assert error.status in (403, 409)
                request = asked.pop()
                path = request.url.path.replace("/ü/", "/{name}/")
                described = api["paths"][path][request.method.lower()]
                tried.add(f"{request.method} {path}")
                known = {p["name"] for p in described.get("parameters", ()) if p["in"] == "query"}
                assert set(request.url.params) <= known, path
                success = min(described["responses"])
                content = described["responses"][success]["content"]["application/json"]
                assert content["schema"]["$ref"].endswith(f"/{kind.strip()}"), path
                if kind == "QueryAnswer":
                    assert known == set(request.url.params)
                    assert "multipart/form-data" in described["requestBody"]["content"]
        base = "/v1/indices/{name}" if index else "/v1"
        there = {
            f"{method.upper()} {path}"
            for path, methods in api["paths"].items()
            for method in methods
        }
        assert there - tried == {name.replace("{base}", base) for name in NOT_OFFERED}
        for name in client_module.__all__:
            kind = getattr(client_module, name)
            if not hasattr(kind, "model_fields") or name not in api["components"]["schemas"]:
                assert name in ("Client", "ServiceError", "read_map", "IndexState")
                continue
            schema = TypeAdapter(kind).json_schema(
                ref_template="#/components/schemas/{model}", mode="serialization"
            )
            assert schema.pop("$defs", {}).items() <= api["components"]["schemas"].items()
            assert schema == api["components"]["schemas"][name]


def test_without_httpx_one_line_says_what_is_missing():
    program = "import sys; sys.modules['httpx'] = None; import spade_faiss.client"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert re.search(
        r"SpadeError: the client needs the package httpx: .*\.\[client\]", ended.stderr
    )
