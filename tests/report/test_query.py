import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spade_faiss import Spade, SpadeError
from spade_faiss.images import Found, Framing, find_images
from spade_faiss.report import explanation_picture, overlay_picture, write_query
from spade_faiss.verdict import find_regions, judge_result
from tests.conftest import texture, with_hole


@pytest.fixture(scope="module")
def spade(tiny):
    return Spade(tiny, quantile=0.9).fit(texture("brick", 8))


@pytest.fixture(scope="module")
def holed(spade):
    image = with_hole(with_hole(texture("brick", 1, seed=4)[0]), x=200, y=60, radius=12)
    return next(spade.query([image]))


def test_the_overlay_marks_the_hole_and_hatches_what_was_not_seen(spade, holed):
    framing = spade.index_.manifest.framing.framing()
    finding = judge_result(spade, holed)
    picture = overlay_picture(holed, finding, framing, "brick")
    assert picture.dtype == np.uint8 and picture.shape[1] > 2 * 448
    left = picture[44:, :448].astype(int)
    right = picture[44:, 456:904].astype(int)
    changed = np.abs(left - right).max(2)
    scale = 448 / 256
    assert changed[round(130 * scale), round(120 * scale)] > 40
    assert not changed[:20].any()  # hatched alike
    red, _, blue = right[round(130 * scale), round(120 * scale)]
    assert red > blue + 80
    unjudged = replace(finding, verdict="", threshold=None, pixel_threshold=None)
    clear = overlay_picture(holed, unjudged, framing)
    assert clear.shape == picture.shape
    red, _, blue = clear[44:, 456:904].astype(int)[round(130 * scale), round(120 * scale)]
    assert blue > red + 40  # nothing is judged, so nothing is red


@pytest.mark.parametrize("shape", [(20, 400), (400, 20), (2000, 30), (17, 17)])
def test_pictures_of_any_aspect(tiny, shape):
    train = [np.ascontiguousarray(np.resize(t, (*shape, 3))) for t in texture("gravel", 3)]
    for crop in (224, None):
        spade = Spade(tiny, crop=crop, resize=256 if crop else 64).fit(train)
        result = next(spade.query([255 - train[0]]))
        framing = spade.index_.manifest.framing.framing()
        assert result.map.shape == shape
        overlay_picture(result, judge_result(spade, result), framing, "x" * 500)
        regions = find_regions(result, spade.index_, 1e-3)
        assert regions
        explanation_picture(result, spade.index_, regions)


def test_alike_names_get_files_of_their_own(spade, tmp_path):
    import cv2

    image = texture("brick", 1)[0]
    for name in ("a/1.png", "a/1.bmp", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), image)
    found = find_images([tmp_path / "a", tmp_path / "a" / "1.png", tmp_path / "b" / "1.png"], print)
    with pytest.warns(UserWarning, match="files called otherwise than their images"):
        rows = write_query(spade, found, tmp_path / "out")
    assert len({row.map for row in rows}) == len({row.overlay for row in rows}) == 4
    assert all(Path(row.map).exists() and Path(row.overlay).exists() for row in rows)
    with pytest.raises(SpadeError, match="inside"):
        write_query(spade, found, tmp_path / "a" / "out")
    with pytest.raises(SpadeError, match="fps = nan must be more than 0"):
        write_query(spade, found, tmp_path / "none", fps=float("nan"))
    assert not (tmp_path / "none").exists()


def test_without_a_threshold_nothing_is_judged(tiny, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "1.png"), texture("brick", 1)[0])
    spade = Spade(tiny).fit(texture("brick", 1, seed=1))
    found = [Found(tmp_path / "1.png", Path("1.png"), None)]
    (row,) = write_query(spade, found, tmp_path / "out", explain=True)
    assert row.threshold is None and row.verdict == "" and row.score > 0
    assert (tmp_path / "out" / "scores.csv").read_text().splitlines()[1].endswith(",,")
    assert json.loads(Path(row.explanation).read_text())["regions"] == []


def test_scores_of_what_finished_are_kept_when_a_query_stops(spade, tmp_path):
    import cv2

    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), texture("brick", 1, seed=i)[0])
    (tmp_path / "9.png").write_bytes(b"")
    found = find_images([tmp_path], print)
    spade = spade.with_options(batch_size=1)
    with pytest.raises(SpadeError, match=r"9\.png"):
        write_query(spade, found, tmp_path.parent / f"{tmp_path.name}-out")
    lines = (tmp_path.parent / f"{tmp_path.name}-out" / "scores.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[-1].endswith("ERROR")


def test_a_frame_is_seen_whole():
    assert Framing(96, (96, 96), False).seen(300, 200) == (0, 0, 200, 300)
