"""Requests made up from the description get answers as described."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import texture
from tests.service.serving import form, png, serving

schemathesis = pytest.importorskip("schemathesis", reason="needs the package schemathesis")

FILES = [png(image[:64, :64]) for image in texture("gravel", 3, seed=9)]
OPERATIONS = [
    "POST /v1/query",
    *("GET /v1/index", "GET /healthz", "GET /readyz", "GET /metrics", "GET /v1/region"),
    *(f"GET /v1/region/{name}" for name in ("mask", "picture", "proposal")),
    *("PUT /v1/region", "DELETE /v1/region"),
    *("GET /v1/history", "GET /v1/history.csv"),
    *(f"GET /v1/history/{name}" for name in ("picture", "image")),
    *(f"{method} /v1/feedback" for method in ("GET", "POST", "DELETE")),
    *(f"POST /v1/feedback/{name}" for name in ("preview", "add", "back")),
]


@pytest.fixture(scope="module")
def kept(index, tiny, tmp_path_factory):
    """A service that keeps a result."""
    with serving(index, tiny, history=tmp_path_factory.mktemp("described")) as running:
        running.client.post("/v1/query", files=form(FILES[0]))
        yield running


@pytest.fixture(scope="module")
def described(kept):
    for kind in ("png", "jpeg", "bmp", "tiff", "webp"):  # what they are is found out by looking
        schemathesis.openapi.media_type(f"image/{kind}", st.sampled_from(FILES))
    schemathesis.openapi.media_type("application/octet-stream", st.sampled_from(FILES))
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{kept.port}/openapi.json")


def test_all_operations_are_tried(described):
    found = [one.ok() for one in described.get_all_operations()]
    assert sorted(one.label for one in found) == sorted(OPERATIONS)


@pytest.mark.parametrize(
    "label, mode",
    [
        *((label, "POSITIVE") for label in OPERATIONS),
        ("POST /v1/query", "NEGATIVE"),
    ],
)
def test_answers_are_as_described(described, label, mode):
    """No 5xx, and status, kind, headers and content as the description has them."""
    method, path = label.split()
    operation = described[path][method]
    statuses = []

    @settings(
        max_examples=12 if method == "POST" else 3,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=schemathesis.GenerationMode[mode]))
    def ask(case):
        answer = case.call()
        case.validate_response(answer)
        statuses.append(answer.status_code)

    ask()
    assert statuses and max(statuses) < 500
