"""What a request asks for in vain is refused, and named."""

import pytest

from spade_faiss.service.places import Places
from tests.conftest import texture
from tests.service.serving import form, png
from tests.service.test_service import why

PLACES = Places(several=False).all
IMAGE = png(texture("gravel", 1, seed=9)[0])


@pytest.mark.parametrize(
    "parameters, words",
    [
        ("map=tiff", ("'map'", "did you mean 'maps'?")),
        ("picture=true", ("'picture'", "did you mean 'pictures'?")),
        ("MAPS=tiff", ("'MAPS'", "did you mean 'maps'?")),
        ("maps=tiff&threshold=3", ("'threshold'", "there are 'maps' and 'pictures'")),
        ("maps=tiff&maps=png", ("'maps'", "given twice")),
        ("pictures=true&pictures=true", ("'pictures'", "given twice")),
        ("=tiff", ("''", "there are")),
        ("a%0Ab=1", (r"'a\nb'",)),
        (f"{'x' * 5000}=1", (f"'{'x' * 60}…'",)),
        ("maps=jpeg", ("maps", "'png' or 'tiff'")),
        ("maps", ("maps", "'png' or 'tiff'")),
        ("pictures=maybe", ("pictures", "boolean")),
    ],
)
def test_a_parameter_of_a_query_that_does_nothing_is_refused(service, parameters, words):
    detail = why(service.client.post(f"/v1/query?{parameters}", files=form(IMAGE)), 422)
    assert all(word in detail for word in words), detail
    assert len(detail) < 200


def test_every_described_request_refuses_what_its_description_does_not_have(service):
    paths = service.client.get("/openapi.json").json()["paths"]
    assert len(paths) == 17 and set(paths) < set(PLACES)
    for path, methods in paths.items():
        for method, call in methods.items():
            answer = service.client.request(method, f"{path}?verbose=1")
            assert "'verbose'" in why(answer, 422)
            assert "unknown" in call["responses"]["422"]["description"]
    assert "takes none" in why(service.client.get("/healthz?x"), 422)


def test_what_stands_behind_the_names_of_the_page_and_its_files_is_passed_over(service):
    for path in ("/", "/docs", "/openapi.json", "/static/page.js"):
        assert service.client.get(f"{path}?v=2").text == service.client.get(path).text


@pytest.mark.parametrize("path", [one for one in PLACES if one != "/"])
def test_what_may_be_meant_is_there(service, path):
    answer = service.client.get(path)
    assert answer.status_code in (200, 405) or not answer.json()["detail"].startswith(
        "there is no '"
    )
    assert f"did you mean '{path}'?" in why(service.client.get(f"{path}x"), 404)


@pytest.mark.parametrize("name", ["image", "maps", "Images", ""])
def test_a_field_of_the_form_that_does_nothing_is_refused(service, name):
    answer = service.client.post("/v1/query", files=[*form(IMAGE), (name, ("a.png", IMAGE))])
    assert f"'{name}'" in why(answer, 422) and "'images'" in answer.text


def test_a_body_that_is_encoded_is_refused(service):
    answer = service.client.post(
        "/v1/query", files=form(IMAGE), headers={"content-encoding": "gzip"}
    )
    assert "gzip" in why(answer, 415)


@pytest.mark.parametrize(
    "path, words",
    [
        ("/v1/querry", "did you mean '/v1/query'?"),
        ("/v1/query/", "did you mean '/v1/query'?"),
        ("/V1/Index", "did you mean '/v1/index'?"),
        ("/xyz", "/docs"),
        ("/static/none.js", "/docs"),
    ],
)
def test_a_place_that_is_not_there_is_named(service, path, words):
    answer = service.client.get(path)
    assert path in why(answer, 404) and words in answer.json()["detail"]


def test_methods(service):
    for path in ("/healthz", "/readyz", "/v1/index", "/metrics", "/", "/static/page.js"):
        answer, whole = service.client.head(path), service.client.get(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == whole.headers["content-type"]
    for method, path, allowed in (
        ("GET", "/v1/query", "POST"),
        ("HEAD", "/v1/query", "POST"),
        ("POST", "/v1/index", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD"),
        ("POST", "/static/page.js", "GET, HEAD"),
    ):
        answer = service.client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        if method != "HEAD":
            assert path in why(answer, 405) and allowed in answer.json()["detail"]
