"""A service of an index with a region: dirt outside changes no answer, and it says what it does."""

import cv2
import numpy as np
import pytest

from spade_faiss import Spade
from spade_faiss.pictures.drawing import explanation_picture
from spade_faiss.verdict import judge_result
from tests.conftest import texture, with_hole
from tests.service.serving import form, png, read_picture, serving

SIZE = (96, 128)
GOOD = [image[: SIZE[0], : SIZE[1]] for image in texture("gravel", 6)]
MASK = cv2.circle(np.zeros(SIZE, np.uint8), (64, 48), 34, 1, -1) > 0


def dirty(image, seed):
    rng = np.random.default_rng(seed)
    return np.where(MASK[..., None], image, rng.integers(0, 256, image.shape, np.uint8))


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("looked-at") / "index"
    Spade(tiny, resize=96, crop=None, quantile=0.8, region=MASK).fit(GOOD, folder)
    return folder


def test_dirt_outside_changes_no_answer(tiny, folder):
    holed = with_hole(GOOD[0], x=60, y=44, radius=8)
    with serving(folder, tiny) as service:
        described = service.client.get("/v1/index").json()
        assert described["region"] == pytest.approx(MASK.mean())
        assert described["members"][0]["region"] == described["region"] and not described["cropped"]
        answers = [
            service.client.post(
                "/v1/query", params={"pictures": True, "maps": "tiff"}, files=form(png(image))
            ).json()["images"][0]
            for image in (holed, dirty(holed, 1))
        ]
    pictures = ("photo", "overlay")
    clean, other = ({k: v for k, v in one.items() if k not in pictures} for one in answers)
    assert clean == other and clean["verdict"] == "NG"
    assert not read_picture(clean["map"])[~MASK].any()
    shown = [read_picture(answers[0][name]).astype(int) for name in pictures]
    changed = np.abs(shown[0] - shown[1]).max(-1) > 60
    large = cv2.resize(MASK.view(np.uint8), (640, 480), interpolation=cv2.INTER_NEAREST) > 0
    assert changed[~cv2.dilate(large.view(np.uint8), np.ones((15, 15))).astype(bool)].mean() > 0.1


def test_an_explanation_hatches_what_is_not_looked_at(tiny, folder):
    spade = Spade.load(folder, backbone=tiny)
    holed = with_hole(np.full_like(GOOD[0], 120), x=60, y=44, radius=8)
    result = next(spade.query([holed]))
    picture = explanation_picture(result, spade.index_, judge_result(spade, result).regions)
    top = 24 + (256 - 192) // 2
    whole = picture[top : top + 192, :256].astype(int)
    assert np.ptp(whole[:20, :20]) > 150  # lines over a plain ground
    assert not np.ptp(whole[60:70, 150:160])  # looked at, and plain
