"""The service, of an index of tiles: what it says of it, and what it finds."""

import numpy as np
import pytest

from spade_faiss import Spade
from tests.conftest import with_hole
from tests.detector.test_tiles import SEEN, pictures
from tests.service.serving import form, png, read_picture, serving


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles") / "index"
    Spade(tiny, quantile=0.8, **SEEN).fit(pictures("brick", 5), folder)
    return folder


def test_a_service_of_tiles_answers_as_a_query_does(folder, tiny):
    image = with_hole(pictures("brick", 1, 5)[0])
    (expected,) = Spade.load(folder, backbone=tiny).query([image])
    with serving(folder, tiny) as running:
        shown = running.client.get("/v1/index").json()
        answer = running.client.post("/v1/query?maps=tiff&pictures=true", files=form(png(image)))
        small = running.client.post("/v1/query", files=form(png(image), png(image[:100])))
    assert (shown["tile"], shown["members"][0]["tile"], shown["images"]) == (96, 96, 5)
    (one,) = answer.json()["images"]
    assert one["verdict"] == "NG" and one["score"] == pytest.approx(expected.peak, rel=1e-4)
    assert (one["width"], one["height"]) == (260, 200)
    np.testing.assert_allclose(read_picture(one["map"]), expected.map, rtol=1e-3)
    region = one["regions"][0]
    x, y = region["peak_at"]
    assert np.hypot(x - 120, y - 130) < 24
    left, top, right, bottom = region["matches"][0]["query_box"]
    assert left <= x <= right and top <= y <= bottom
    for name in ("here", "good"):
        assert read_picture(region[name]).std() > 0
    assert read_picture(one["overlay"]).shape[:2] == read_picture(one["photo"]).shape[:2]
    assert "is 260x100 pixels, and the index looks at 260x200, in tiles" in small.text
