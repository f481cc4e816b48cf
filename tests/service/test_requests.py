"""What every request has: an id, its time, a line in the log; raw bodies; other sites' pages."""

import json
import re

import pytest

from spade_faiss import SpadeError
from spade_faiss.service import Limits
from spade_faiss.service.access_log import AccessLog
from spade_faiss.service.origins import Origins
from tests.service.serving import form, png, serving
from tests.service.test_service import why
from tests.waiting import wait_for

TOKEN = "a-token-of-some-length"
SITE = "https://mes.example:8443"


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("requests") / "access.log"


@pytest.fixture(scope="module")
def logged(index, tiny, log):
    """A service with a log, a token, and a site whose pages may use it."""
    with serving(
        index, tiny, Limits(bytes=300_000), token=TOKEN, allow_origins=[SITE],
        access_log=AccessLog(log),
    ) as service:  # fmt: skip
        service.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield service


@pytest.mark.parametrize("kind", ["image/png", "image/x-any", "application/octet-stream"])
def test_a_body_may_be_an_image_itself(service, parts, kind):
    image = png(parts[1])
    expected = service.client.post("/v1/query?pictures=true", files=form(image)).json()
    named = {"content-type": kind, "content-disposition": 'attachment; filename="0.png"'}
    answer = service.client.post("/v1/query?pictures=true", content=image, headers=named)
    assert answer.json()["images"] == expected["images"]
    answer = service.client.post("/v1/query", content=image, headers={"content-type": kind})
    assert answer.json()["images"][0]["name"] == "image 0"


def test_a_body_that_is_no_image_is_refused(service, logged, parts):
    image, kind = png(parts[1]), {"content-type": "image/png"}
    ask = service.client.post
    assert "image 0: is not an image" in why(ask("/v1/query", content=b"text", headers=kind), 415)
    named = {**kind, "content-disposition": "inline; filename=a.b"}
    assert "a.b: is not an image" in why(ask("/v1/query", content=b"text", headers=named), 415)
    assert "empty" in why(ask("/v1/query", headers=kind), 422)
    assert "image 0" in why(ask("/v1/query", content=image[:5000], headers=kind), 422)
    detail = why(ask("/v1/query", content=image, headers={"content-type": "text/plain"}), 415)
    assert "multipart/form-data" in detail and "image/png" in detail
    assert "multipart" in why(ask("/v1/query", content=image), 415)

    def chunks():
        for _ in range(40):
            yield bytes(10_000)

    assert "300000 bytes" in why(
        logged.client.post("/v1/query", content=chunks(), headers=kind), 413
    )


def test_each_answer_has_an_id_and_its_seconds(logged, parts):
    answer = logged.client.post("/v1/query", files=form(png(parts[0])))
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert re.fullmatch(r"[0-9a-f]{32}", answer.json()["request_id"])
    timing = re.fullmatch(r"total;dur=(\d+\.\d)", answer.headers["server-timing"])
    assert 0 < answer.json()["seconds"] <= float(timing[1]) / 1000 + 1e-3
    seen = {answer.headers["x-request-id"]}
    for path in ("/v1/index", "/healthz", "/nowhere", "/static/page.js", "/v1/query"):
        answer = logged.client.get(path, headers={"authorization": "none"})
        assert answer.headers["server-timing"]
        seen.add(answer.headers["x-request-id"])
    assert len(seen) == 6


@pytest.mark.parametrize(
    "given, taken",
    [
        ("line-3:0007/a=b@c+d._", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("two words", False),
        ('"quoted"', False),
        ("tab\tbed", False),
        ("\xe4", False),
    ],
)
def test_a_sane_id_is_taken_over(logged, given, taken):
    answer = logged.client.get("/healthz", headers={"x-request-id": given.encode("latin-1")})
    assert (answer.headers["x-request-id"] == given) is taken


def test_the_log_has_a_line_of_each_request(logged, log, parts):
    logged.client.post(
        "/v1/query?pictures=true", files=form(png(parts[0])), headers={"x-request-id": "mine"}
    )
    logged.client.head("/v1/index", headers={"authorization": "none", "x-request-id": "two"})
    logged.client.get("/no%0Awhere%22", headers={"x-request-id": "three"})

    def lines():
        found = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
        return {one["request_id"]: one for one in found}

    wait_for(lambda: "three" in lines())
    one = lines()["mine"]
    assert (one["method"], one["path"], one["status"]) == ("POST", "/v1/query", 200)
    assert one["client"] == "127.0.0.1" and one["index"] is None
    assert 0 < one["seconds"] < 60 and one["bytes"] > 10_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", one["time"])
    assert (lines()["two"]["method"], lines()["two"]["status"]) == ("HEAD", 401)
    assert lines()["three"]["path"] == '/no\nwhere"'
    assert TOKEN not in log.read_text("utf-8")
    log.rename(log.with_suffix(".1"))  # as logrotate does
    logged.client.get("/healthz", headers={"x-request-id": "four"})
    wait_for(lambda: log.exists() and "four" in lines())


def test_a_log_that_cannot_be_written_is_said_and_answers_go_on(tmp_path, index, tiny, caplog):
    with pytest.raises(SpadeError, match=r"`access_log=.*nowhere.*No such file"):
        AccessLog(tmp_path / "nowhere" / "access.log")
    (tmp_path / "logs").mkdir()
    with serving(index, tiny, access_log=AccessLog(tmp_path / "logs" / "access.log")) as service:
        assert service.client.get("/healthz").status_code == 200
        (tmp_path / "logs" / "access.log").unlink()
        (tmp_path / "logs").rmdir()
        for _ in range(3):
            assert service.client.get("/healthz").status_code == 200
    said = [line.getMessage() for line in caplog.records if "access log" in line.getMessage()]
    assert len(said) == 1 and "cannot be written" in said[0]


def preflight(service, origin, method="POST", **headers):
    return service.client.options(
        "/v1/query",
        headers={
            "origin": origin,
            "access-control-request-method": method,
            "access-control-request-headers": "authorization,content-type",
            "authorization": "",  # a browser shows no token here
            **headers,
        },
    )


def test_pages_of_an_allowed_site_may_use_the_service(logged, parts):
    answer = preflight(logged, SITE)
    assert (answer.status_code, answer.content) == (204, b"")
    allowed = answer.headers
    assert allowed["access-control-allow-origin"] == SITE and allowed["vary"] == "Origin"
    assert "POST" in allowed["access-control-allow-methods"]
    assert {"authorization", "content-disposition", "content-type"} <= {
        *allowed["access-control-allow-headers"].lower().split(", ")
    }
    assert "access-control-allow-credentials" not in allowed
    image = form(png(parts[0]))
    answer = logged.client.post("/v1/query", files=image, headers={"origin": SITE})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == SITE
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    # The token is asked for all the same, and the page may read that.
    answer = logged.client.post(
        "/v1/query", files=image, headers={"origin": SITE, "authorization": ""}
    )
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == SITE


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://mes.example:8443",
        "https://mes.example",
        f"{SITE}.evil",
        "null",
    ],
)
def test_pages_of_other_sites_may_not(logged, parts, origin):
    answer = preflight(logged, origin)
    assert answer.status_code != 204
    assert "access-control-allow-origin" not in answer.headers
    answer = logged.client.post("/v1/query", files=form(png(parts[0])), headers={"origin": origin})
    assert "`allow_origins`" in why(answer, 403) and answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in answer.headers
    answer = logged.client.get("/v1/index", headers={"origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_for_another_host_is_refused_and_none_is_answered_unasked(logged, service):
    assert preflight(logged, SITE, host="evil.example").status_code == 421
    answer = preflight(service, SITE)
    assert answer.status_code == 405 and "vary" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers


def test_all_sites_may_be_allowed_where_there_is_a_token(index, tiny, parts):
    with serving(index, tiny, token=TOKEN, allow_origins=["*"]) as service:
        answer = preflight(service, "https://any.example")
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "https://any.example"
        answer = service.client.post(
            "/v1/query", files=form(png(parts[0])), headers={"origin": "https://any.example"}
        )
        assert answer.status_code == 401


@pytest.mark.parametrize(
    "text, origin",
    [
        ("https://MES.example", "https://mes.example"),
        ("http://mes.example:80", "http://mes.example"),
        ("https://mes.example:80", "https://mes.example:80"),
        ("https://müller.example", "https://xn--mller-kva.example"),
        ("http://[::1]:3000", "http://[::1]:3000"),
    ],
)
def test_an_origin_is_known_as_browsers_write_it(text, origin):
    assert Origins([text], token=False).allow(origin)


@pytest.mark.parametrize(
    "text",
    [
        "mes.example", "https://", "https://mes.example/page", "ftp://mes.example", "null", "",
        "https://user@mes.example", "https://mes.example:x", "https://*.example?x", "[",
    ],
)  # fmt: skip
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(SpadeError, match=r"`allow_origin=.* is no origin: write https://HOST"):
        Origins([text], token=False)


def test_all_sites_without_a_token_are_refused():
    with pytest.raises(SpadeError, match="`token`"):
        Origins(["*"], token=False)
