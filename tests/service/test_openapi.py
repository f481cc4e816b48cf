"""Requests made up from the description get answers as described."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.conftest import texture
from tests.service.serving import png

schemathesis = pytest.importorskip("schemathesis", reason="needs the package schemathesis")

IMAGE = png(texture("gravel", 1, seed=9)[0])
schemathesis.openapi.media_type("image/png", st.one_of(st.just(IMAGE), st.binary(max_size=200)))


@pytest.fixture
def described(service):
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(case):
    case.call_and_validate()
