"""The viewer of a report, and the pictures that lie beside it."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from spade_faiss import Spade
from spade_faiss.images import find_images
from spade_faiss.report import write_query
from spade_faiss.report.closeups import Closeups, addresses, bounded
from spade_faiss.report.files import Row
from spade_faiss.report.folder import LIST, ResultFolder
from spade_faiss.report.query_page import QueryReport
from spade_faiss.verdict import judge_result
from tests import viewing
from tests.command import done
from tests.conftest import texture, with_hole
from tests.report.test_query_page import cards_of
from tests.waiting import wait_for

ODD = "a #1% ?é.png"


@pytest.fixture(scope="module")
def spade(tiny):
    return Spade(tiny, resize=64, crop=None, quantile=0.9).fit(texture("brick", 4))


@pytest.fixture(scope="module")
def reported(spade, tmp_path_factory):
    """A report of two pictures of 5 megapixels and of a small one."""
    folder = tmp_path_factory.mktemp("viewed")
    own = spade.with_options()
    own.image_threshold = 1.0
    images = [viewing.graded(), viewing.graded()[::-1].copy(), texture("brick", 1, seed=9)[0]]
    page = QueryReport(own, ResultFolder(folder), len(images))
    rows = []
    for i, result in enumerate(own.query(images)):
        values = viewing.disc(result.image.shape[:2])
        result = replace(result, name=f"/in/{i}.png", map=values / (1 + i))
        finding = judge_result(own, result)
        assert finding.pixel_threshold == 1
        page.add(result, finding, Path(ODD if i == 0 else str(i)))
        rows.append(Row(result.name, finding.score, 1.0, finding.verdict))
    page.write(folder / "report.html", rows)
    return folder / "report.html"


def open_first(page):
    opener = page.locator(".card .stage").first
    opener.click()
    page.wait_for_selector("#viewer .heat.own")
    page.wait_for_selector("#viewer .photo.own")
    return opener


# Files -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_large_pictures_lie_beside_the_report(reported):
    cards = cards_of(reported)
    assert [card["closeup"] is None for card in cards] == [False, False, True]
    files = {
        path.relative_to(reported.parent / "closeups").as_posix()
        for path in reported.parent.glob("closeups/*/*")
    }
    stems = (ODD, "1")
    assert files == {
        f"{kind}/{stem}.{suffix}"
        for stem in stems
        for kind, suffix in (("photo", "jpg"), ("heat", "webp"), ("map", "webp"))
    }
    with Image.open(reported.parent / "closeups" / "photo" / f"{ODD}.jpg") as photo:
        assert photo.size == viewing.SIZE
        assert np.abs(np.asarray(photo, int) - viewing.graded()).mean() < 2
    with Image.open(reported.parent / "closeups" / "heat" / f"{ODD}.webp") as heat:
        assert heat.mode == "RGBA" and max(heat.size) == 2048
    assert reported.stat().st_size < 300_000  # they are not in it
    text = reported.read_text()
    assert "img-src data: 'self' file:;" in text and "<code>closeups</code>" in text


def test_addresses_lead_to_the_files():
    there = addresses("a #1% ?é/b")
    assert there["photo"] == "closeups/photo/a%20%231%25%20%3F%C3%A9/b.jpg"
    assert set(there) == {"photo", "heat", "map"}


def test_a_query_writes_them_and_the_next_one_removes_them(spade, tmp_path):
    image = cv2.resize(with_hole(texture("brick", 1)[0]), (800, 800))
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "in" / folder / "1.png"), image)
    spade.save(tmp_path / "index")
    call = ("query", tmp_path / "index", tmp_path / "in", "--out", tmp_path / "out", "--no-maps")
    done(*call, "--report")
    photos = sorted((tmp_path / "out" / "closeups" / "photo").rglob("*.jpg"))
    assert [path.parent.name for path in photos] == ["a", "b"]
    assert {card["closeup"]["photo"] for card in cards_of(tmp_path / "out" / "report.html")} == {
        "closeups/photo/a/1.jpg",
        "closeups/photo/b/1.jpg",
    }
    assert '"closeups/photo/a/1.jpg"' in (tmp_path / "out" / LIST).read_text()
    ended = done(*call)
    assert "that this query did not write" not in ended.stderr
    assert not (tmp_path / "out" / "closeups").exists()


def test_the_worst_are_kept_in_the_room_there_is(tmp_path):
    image, values = viewing.graded()[:600, :700], viewing.disc((600, 700))
    one = Closeups(ResultFolder(tmp_path / "one"))
    one.add(1, "x", image, values, 1.0)
    size = sum(path.stat().st_size for path in (tmp_path / "one").rglob("x.*"))
    kept = Closeups(ResultFolder(tmp_path / "many"), most=3 * size + size // 2)
    for score, name in ((3, "c"), (1, "a"), (5, "e"), (1, "a2"), (4, "d"), (2, "b")):
        assert kept.add(score, name, image, values, 1.0)
    assert kept.kept == {"c", "d", "e"}
    there = {path.stem for path in (tmp_path / "many" / "closeups").rglob("*.*")}
    assert there == {"c", "d", "e"}
    kept.drop_below(4)
    assert kept.kept == {"d", "e"}
    assert {path.stem for path in (tmp_path / "many" / "closeups").rglob("*.*")} == {"d", "e"}


def test_a_card_whose_pictures_went_opens_small(spade, tmp_path):
    page = QueryReport(spade, ResultFolder(tmp_path), 2)
    page.closeups = Closeups(ResultFolder(tmp_path), most=1)
    (result,) = spade.query([viewing.graded()])
    page.add(result, judge_result(spade, result), Path("x"))
    page.write(tmp_path / "report.html", [Row(result.name, result.peak, None, "")])
    (card,) = cards_of(tmp_path / "report.html")
    assert card["closeup"] is None and card["side"] == 512 < card["pixels"][0]
    assert "img-src data:;" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_pictures_go_with_the_cards_that_are_not_kept(spade, tmp_path):
    page = QueryReport(spade, ResultFolder(tmp_path), 2, most=1)
    results = list(spade.query([viewing.graded(), 255 - viewing.graded()]))
    for score, stem, result in zip((1, 2), ("low", "high"), results, strict=True):
        page.add(result, replace(judge_result(spade, result), score=score), Path(stem))
    page.write(tmp_path / "report.html", [Row(one.name, 1, None, "") for one in results])
    assert {path.stem for path in tmp_path.glob("closeups/*/*")} == {"high"}
    (card,) = cards_of(tmp_path / "report.html")
    assert card["closeup"]["photo"] == "closeups/photo/high.jpg"


def test_a_name_that_no_file_can_have_costs_the_picture_alone(tmp_path, monkeypatch):
    folder = ResultFolder(tmp_path)

    def refuse(*_):
        raise OSError(errno.ENAMETOOLONG, "File name too long")

    monkeypatch.setattr(folder, "put", refuse)
    values = np.zeros((60, 60), np.float32)
    kept = Closeups(folder)
    assert not kept.add(1, "x", np.zeros((60, 60, 3), np.uint8), values, 1.0) and not kept.kept


def test_a_full_disk_ends_the_query(spade, tmp_path, monkeypatch):
    put = ResultFolder.put

    def full(self, name, data):
        if name.startswith("closeups"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(self, name, data)

    monkeypatch.setattr(ResultFolder, "put", full)
    cv2.imwrite(str(tmp_path / "1.png"), cv2.resize(texture("brick", 1)[0], (800, 800)))
    with pytest.raises(OSError, match="No space"):
        write_query(spade, find_images([tmp_path], print), tmp_path.parent / "full", report=True)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((300, 400), (300, 400)), ((10, 20_000), (8, 16_384)), ((8000, 10_000), (5656, 7071))],
)
def test_pictures_are_no_larger_than_browsers_show(shape, size):
    picture = bounded(np.zeros((*shape, 3), np.uint8))
    assert picture.shape[:2] == pytest.approx(size, abs=2)


# In a browser ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_picture_is_opened_at_its_own_resolution(reported, opened, width):
    one = opened(reported, width=width)
    page = one.page
    page.wait_for_selector(".card .photo")
    assert not [url for url in one.asked[1:] if not url.startswith("data:")]  # not yet
    open_first(page)
    size = page.eval_on_selector("#viewer .photo", "(e) => [e.naturalWidth, e.naturalHeight]")
    assert tuple(size) == viewing.SIZE and page.locator("#viewer .photo").count() == 1
    assert f"{viewing.WIDTH} × {viewing.HEIGHT} pixels" in page.inner_text("#viewer-line")
    assert page.inner_text("#viewer-note") == ""
    viewing.check_wheel(page)
    viewing.check_layers(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_keys_and_drags_look_around(reported, opened, width):
    page = opened(reported, width=width).page
    opener = open_first(page)
    viewing.check_keys(page)
    viewing.check_drag(page)
    viewing.check_focus(page, opener)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_fingers_look_around(reported, opened, width):
    page = opened(reported, width=width, has_touch=True).page
    open_first(page)
    viewing.check_touch(page)


@pytest.mark.slow
def test_arrows_go_to_the_next_picture_where_there_is_nothing_to_move(reported, opened):
    page = opened(reported).page
    open_first(page)
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-name") == "1.png"
    viewing.check_fits(page)
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-name") == "1.png"
    page.keyboard.press("0")
    page.keyboard.press("ArrowRight")  # a small image, which is in the page as it is
    assert page.inner_text("#viewer-name") == "2.png"
    assert page.inner_text("#viewer-note") == ""
    assert page.is_disabled("#viewer-after")
    page.keyboard.press("Escape")
    wait_for(lambda: viewing.has_focus(page.locator(".card .stage").nth(2)))


@pytest.mark.slow
def test_turning_a_phone_keeps_what_is_looked_at(reported, opened):
    page = opened(reported, width=390).page
    open_first(page)
    page.set_viewport_size({"width": 900, "height": 390})
    page.wait_for_timeout(200)
    viewing.check_fits(page)
    viewing.look_at_hole(page)
    page.set_viewport_size({"width": 390, "height": 900})
    page.wait_for_timeout(200)
    place = viewing.place_at(page, *viewing.middle_of_room(page))
    np.testing.assert_allclose(place, viewing.HOLE[:2], atol=2)


@pytest.mark.slow
def test_a_report_without_its_folder_says_so(reported, opened, tmp_path):
    shutil.copy(reported, tmp_path / "report.html")
    one = opened(tmp_path / "report.html")
    one.page.locator(".card .stage").first.click()
    one.page.wait_for_function("document.getElementById('viewer-note').textContent")
    assert one.page.inner_text("#viewer-note").startswith("Shown small: the folder closeups")
    assert one.page.locator("#viewer .photo").count() == 1
    viewing.check_fits(one.page)
    assert all("ERR_FILE_NOT_FOUND" in said for said in one.said)
    one.said.clear()
