import base64
import io
import json
import os
import re
import tracemalloc
from itertools import cycle, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from spade_faiss import Spade, SpadeError
from spade_faiss.images import find_images
from spade_faiss.images.video import VIDEO_SUFFIXES
from spade_faiss.pictures.colours import DARK, LIGHT, rgb
from spade_faiss.report import write_query
from spade_faiss.report.cards import MOST_CARDS, card_of, room_for
from spade_faiss.report.files import Row
from spade_faiss.report.folder import ResultFolder
from spade_faiss.report.layers import encoded, layers_of
from spade_faiss.report.query_page import QueryReport
from spade_faiss.verdict import judge_result
from tests import viewing
from tests.command import done
from tests.conftest import texture, with_hole
from tests.images.video.videos import street, walk, write_video
from tests.waiting import wait_for

CARD = re.compile(
    r'<li class="card".*?<script type="application/json">(.*?)</script>\s*</li>', re.S
)
BAD_NAMES = [
    "<script>alert(1)</script>.png",
    "</script><script>document.title='owned'</script>.png",
    '"><img src=x onerror=alert(2)>.png',
    'it\'s "quoted" & {{ 7 * 7 }} {% raw %}.png',
    "two\nlines\u2028and\u202egnp.png",
    "<!--<script>.png",
]


def cards_of(path):
    return [json.loads(data) for data in CARD.findall(path.read_text("utf-8"))]


def picture_of(data):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.fixture(scope="module")
def spade(tiny):
    return Spade(tiny, quantile=0.9).fit(texture("brick", 8))


@pytest.fixture(scope="module")
def results(spade):
    good = texture("brick", 4, seed=4)
    bad = [
        with_hole(with_hole(image), x=200, y=60, radius=9 + 3 * i) for i, image in enumerate(good)
    ]
    return list(spade.query([*good, *bad]))


def many(spade, results, path, count, expected=None, most=MOST_CARDS):
    """Write a report of many images, made of few: their cards' pictures are the same."""
    page = QueryReport(spade, ResultFolder(path.parent), expected or count, most)
    limit, room = spade.pixel_threshold, room_for(min(expected or count, most))
    made = [
        card_of(one, judge_result(spade, one), spade.index_, room, os.path.basename)
        for one in results
    ]
    scale = np.random.default_rng(0).uniform(0.8, 1.2, count)
    rows = []
    for i, (one, card) in enumerate(zip(cycle(results), cycle(made), strict=False)):
        if i == count:
            break
        score = float(one.peak * scale[i])
        said = {
            "name": f"/parts/{i:04}.png",
            "score": score,
            "verdict": "NG" if score > limit else "OK",
        }
        page.cards.add(score, lambda card=card, said=said: {**card, **said})
        rows.append(Row(said["name"], score, limit, said["verdict"]))
    page.write(path, rows)
    return rows


@pytest.fixture(scope="module")
def thousand(spade, results, tmp_path_factory):
    path = tmp_path_factory.mktemp("thousand") / "report.html"
    return path, many(spade, results, path, 1000)


def write_parts(folder, names):
    """Write images of these names, the first with a hole."""
    image = texture("brick", 1, seed=4)[0]
    for i, name in enumerate(names):
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", with_hole(image) if i == 0 else image)[1].tobytes())


@pytest.fixture(scope="module")
def queried(spade, tmp_path_factory):
    """A real query: some good, some not, one broken, with names that would break a page."""
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder, ["hole.png", "good.png", *BAD_NAMES, os.fsdecode(b"caf\xe9.png")])
    (folder / "cut<b>.png").write_bytes(b"no")
    out = tmp_path_factory.mktemp("out")
    found = find_images([folder], print)
    rows = write_query(spade, found, out, explain=True, report=True, on_error=lambda *line: None)
    return out, rows


def test_the_worst_is_first_and_all_is_there(queried):
    out, rows = queried
    cards = cards_of(out / "report.html")
    scored = [row for row in rows if row.score is not None]
    assert [card["score"] for card in cards] == sorted((row.score for row in scored), reverse=True)
    assert len(cards) == len(BAD_NAMES) + 3 and cards[0]["name"] == "hole.png"
    assert cards[0]["verdict"] == "NG"
    found = json.loads((out / "explain" / "hole.json").read_text())["regions"]
    shown = cards[0]["regions"]
    assert len(shown) + cards[0]["more"] == len(found) > 0
    for region, there in zip(shown, found, strict=False):
        assert (region["peak"], region["area"]) == (there["peak"], there["area"])
        assert [match["distance"] for match in region["matches"]] == [
            match["distance"] for match in there["matches"]
        ]
        left, top, width, height = (side * 2.56 for side in region["box"])
        assert (left, top, left + width, top + height) == pytest.approx(there["box"], abs=0.05)
    text = (out / "report.html").read_text()
    assert "1</span> of 10 is not good" in text and "<b>1</b> could not be used" in text


def test_layers_are_the_image_and_its_map(queried, spade):
    out, rows = queried
    card = cards_of(out / "report.html")[0]
    photo, heat, whole = (picture_of(card["pictures"][name]) for name in ("photo", "heat", "map"))
    image = cv2.imread(rows[[row.path.endswith("/hole.png") for row in rows].index(True)].path)
    assert photo.shape == (256, 256, 3) and np.abs(photo.astype(int) - image[..., ::-1]).mean() < 6
    assert heat.shape == (128, 128, 4) and whole.shape == (128, 128, 3)
    assert heat[65, 60, 3] > 130 and heat[20, 20, 3] < 30  # strong in the hole, clear elsewhere
    here, good = picture_of(card["pictures"]["here0"]), picture_of(card["pictures"]["good0"])
    assert here.shape == good.shape and here.min() < 40 < good.min() + 20
    assert card["paths"]["outline"] and card["paths"]["unseen"]


def test_no_name_can_leave_its_place(queried):
    text = (queried[0] / "report.html").read_text()  # valid UTF-8, whatever the names
    assert text.count("<script") == 1 + len(cards_of(queried[0] / "report.html"))
    assert text.count("</script>") == text.count("<script")
    for bad in ("<script>alert", "<img src=x", "<!--", "cut<b>", "\u2028", "\u202e", "owned'<"):
        assert bad not in text
    assert "49" not in re.sub(r"<script.*?</script>", "", text, flags=re.S).split("quoted")[1][:20]
    assert "caf\\udce9.png" in text and "two\\nlines" in text


def test_nothing_is_fetched(queried):
    text = (queried[0] / "report.html").read_text()
    shell = re.sub(r'<script type="application/json">.*?</script>', "", text, flags=re.S)
    assert not re.search(r"(https?:)?//[a-z0-9.]+\.[a-z]{2}", shell.replace("www.w3.org", ""))
    assert set(re.findall(r'(?:src|href)="([^"]*)"', shell)) == {"data:,"}
    assert "default-src 'none'" in shell and "img-src data:;" in shell and "@import" not in shell


@pytest.mark.parametrize("shape", [(20, 400), (400, 20), (1200, 1600), (17, 17)])
def test_layers_of_any_shape(shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*shape, 3), np.uint8)
    values = np.zeros(shape, np.float32)
    values[2:9, 3:12] = 0.9
    looked_at = np.zeros(shape, bool)
    looked_at[shape[0] // 10 :, shape[1] // 10 :] = True
    layers = layers_of(image, values, 320, 0.5, looked_at=looked_at, truth=values > 0.5)
    assert max(layers.pictures["photo"].shape[:2]) == min(320, max(shape))
    assert layers.size == shape[::-1]
    assert layers.paths["outline"] and layers.paths["truth"] and layers.paths["unseen"]
    plain = layers_of(image, values, 320, None)
    assert set(plain.paths.values()) == {""}
    for most in (1000, 30_000):  # noise cannot be had in that without fewer pixels
        files = encoded(layers.pictures, most)
        assert sum(len(base64.b64decode(one)) for one in files.values()) <= most
    best = encoded(layers.pictures, 10**9)
    assert sum(map(len, best.values())) >= sum(map(len, files.values()))


def test_an_outline_goes_around_what_is_over_the_threshold():
    values = np.zeros((60, 80), np.float32)
    values[10:30, 20:50] = 1
    path = layers_of(np.zeros((60, 80, 3), np.uint8), values, 320, 0.5).paths["outline"]
    points = np.array(
        [list(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", path)]
    )
    assert points.min(0).tolist() == [20, 10] and points.max(0).tolist() == [50, 30]


def test_a_place_of_one_pixel_is_outlined_in_a_thumbnail():
    values = np.zeros((2000, 3000), np.float32)
    values[1234, 567] = 1
    layers = layers_of(np.zeros((2000, 3000, 3), np.uint8), values, 320, 0.5)
    assert layers.paths["outline"] and layers.pictures["heat"][..., 3].max() == 255


def test_only_the_worst_are_kept_of_very_many(spade, results, tmp_path):
    rows = many(spade, results, tmp_path / "report.html", 200, most=30)
    cards = cards_of(tmp_path / "report.html")
    assert [card["score"] for card in cards] == sorted(row.score for row in rows)[:-31:-1]
    text = (tmp_path / "report.html").read_text()
    assert "of 200 are shown" in " ".join(text.split()) and "of 200 are not good" in text


def test_memory_and_size_stay_bounded(spade, results, tmp_path):
    tracemalloc.start()
    many(spade, results, tmp_path / "report.html", 600, expected=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = (tmp_path / "report.html").stat().st_size
    assert size > 5e6 and peak < size / 2
    most = (48 << 20) / 1000
    for card in cards_of(tmp_path / "report.html")[:8]:
        assert sum(len(base64.b64decode(one)) for one in card["pictures"].values()) <= most
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_a_query_that_stops_leaves_a_report_of_what_was_done(spade, tmp_path):
    write_parts(tmp_path / "parts", ["0.png", "1.png"])
    (tmp_path / "parts" / "9.png").write_bytes(b"")
    spade = spade.with_options(batch_size=1)
    with pytest.raises(SpadeError, match=r"9\.png"):
        write_query(spade, find_images([tmp_path / "parts"], print), tmp_path / "out", report=True)
    text = (tmp_path / "out" / "report.html").read_text()
    assert len(cards_of(tmp_path / "out" / "report.html")) == 2 and "is empty (0 bytes)" in text


def test_without_a_threshold_nothing_is_judged(tiny, tmp_path):
    write_parts(tmp_path / "parts", ["0.png"])
    spade = Spade(tiny).fit(texture("brick", 1, seed=1))
    write_query(spade, find_images([tmp_path / "parts"], print), tmp_path / "out", report=True)
    text = (tmp_path / "out" / "report.html").read_text()
    (card,) = cards_of(tmp_path / "out" / "report.html")
    assert "No threshold is known" in text and card["verdict"] == "" and card["regions"] == []
    assert not card["paths"]["outline"]


def test_the_command_writes_a_report(spade, tmp_path):
    spade.save(tmp_path / "index")
    write_parts(tmp_path / "parts", ["hole.png", "good.png"])
    done(
        "query",
        tmp_path / "index",
        tmp_path / "parts",
        "--out",
        tmp_path / "out",
        "--report",
        "--score",
        "descriptor",
        "--no-overlays",
    )
    text = (tmp_path / "out" / "report.html").read_text()
    assert "descriptor distance" in text and "8 good, leave-one-out" in text
    calibrated = Spade.load(tmp_path / "index", backbone=spade.network)
    calibrated.calibrate(texture("brick", 3, seed=9))
    write_query(
        calibrated, find_images([tmp_path / "parts"], print), tmp_path / "calibrated", report=True
    )
    text = (tmp_path / "calibrated" / "report.html").read_text()
    assert "3 good, set aside" in text and f"<b>{calibrated.image_threshold:.4g}</b>" in text
    other = Spade.load(tmp_path / "index", backbone=spade.network, k=2)
    write_query(other, find_images([tmp_path / "parts"], print), tmp_path / "other", report=True)
    page = (tmp_path / "other" / "report.html").read_text()
    assert ("the calibration is of other settings" in page, "of other settings" in text) == (1, 0)
    done("query", tmp_path / "index", tmp_path / "parts", "--out", tmp_path / "plain")
    assert not (tmp_path / "plain" / "report.html").exists()


# In a browser -----------------------------------------------------------------------------


def names(page):
    return page.locator(".card:not([hidden]) .name").all_text_contents()


def opacity(page, selector):
    """Return an element's opacity once it has come to rest."""
    page.wait_for_function(
        "s => document.querySelector(s).getAnimations().every(a => a.playState === 'finished')",
        arg=selector,
    )
    return float(page.eval_on_selector(selector, "e => getComputedStyle(e).opacity"))


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_sorts_filters_and_looks(queried, opened, width, scheme):
    page = opened(queried[0] / "report.html", width=width, scheme=scheme).page
    assert page.title() == "1 of 10 not good · spade-faiss"
    everything = names(page)
    assert everything[0] == "hole.png" and len(everything) == 10
    assert BAD_NAMES[0] in everything and BAD_NAMES[2] in everything  # as text
    page.fill("#search", "SCRIPT>ALERT")
    assert names(page) == [BAD_NAMES[0]] and "1 of 10" in page.inner_text("#count")
    page.fill("#search", "no such name")
    assert names(page) == [] and page.is_visible("#nothing")
    page.fill("#search", "")
    page.locator("#filter label", has_text="ERROR").click()
    assert names(page) == ["cut<b>.png"] and page.is_visible("text=is not an image")
    page.locator("#filter label", has_text="NG").click()
    assert names(page) == ["hole.png"]
    page.locator("#filter label", has_text="All").click()
    for order, first in (("best", None), ("name", "<"), ("name-back", "two"), ("worst", "hole")):
        page.select_option("#sort", order)
        if first:
            assert names(page)[0].startswith(first) or order == "name"
    assert names(page) == everything
    page.select_option("#sort", "best")
    scores = [
        float(one.get_attribute("data-score"))
        for one in page.query_selector_all(".card[data-score]")
    ]
    assert scores == sorted(scores)


@pytest.mark.parametrize(("scheme", "palette"), [("light", LIGHT), ("dark", DARK)])
def test_a_browser_paints_what_the_overlays_show(queried, opened, scheme, palette):
    page = opened(queried[0] / "report.html", scheme=scheme).page
    stage = page.locator(".card .stage").first
    stage.locator(".photo").wait_for()
    page.mouse.move(0, 0)
    shot = Image.open(io.BytesIO(stage.screenshot(animations="disabled"))).convert("RGB")
    there = np.asarray(shot.resize((448, 448)), int)
    overlay = np.asarray(Image.open(queried[0] / "overlays" / "hole.png"), int)[44:, 456:904]
    for x, y in ((210, 228), (100, 300)):  # in the hole, and where the part is good
        place = np.s_[y - 3 : y + 4, x - 3 : x + 4]
        assert there[place].mean((0, 1)) == pytest.approx(overlay[place].mean((0, 1)), abs=20)
    red, _, blue = overlay[228, 210]
    assert red > blue + 80
    shown = page.eval_on_selector_all(
        ".card .chip, .half.upper i, .scale i",
        "all => all.map(e => [e.className.split(' ').pop(), getComputedStyle(e).backgroundColor])",
    )
    assert {name for name, _ in shown} == {"ng", "ok", "error", ""}
    for name, colour in shown:
        if name:
            assert colour == f"rgb{rgb(palette[name])}"
    # Each image's part of a bar is of its own verdict.
    upper = page.eval_on_selector_all(
        ".half.upper i", "all => all.map(e => [e.className, e.getBoundingClientRect().left])"
    )
    limit = page.locator(".histogram .limit").bounding_box()["x"]
    assert [left > limit for name, left in upper if name == "ng"] == [True]
    assert all(left < limit for name, left in upper if name == "ok")


def test_views_the_slider_and_hovering(queried, opened):
    page = opened(queried[0] / "report.html").page
    heat, whole, photo = (f".card .stage .{name}" for name in ("heat", "map", "photo"))
    page.wait_for_selector(photo)
    page.mouse.move(0, 0)
    assert opacity(page, heat) == pytest.approx(0.65) and opacity(page, whole) == 0
    slider = page.locator(".toolbar [data-strength]")
    slider.focus()
    page.keyboard.press("Home")
    assert opacity(page, heat) == 0
    page.keyboard.press("End")
    assert opacity(page, heat) == 1
    page.hover(".card .stage")
    assert opacity(page, heat) == 0 and opacity(page, photo) == 1
    page.mouse.move(0, 0)
    assert opacity(page, heat) == 1
    page.locator(".toolbar label", has_text="Map").click()
    page.mouse.move(0, 0)
    assert opacity(page, whole) == 1
    page.locator(".toolbar label", has_text="Original").click()
    page.mouse.move(0, 0)
    assert opacity(page, whole) == 0 == opacity(page, heat)
    page.hover(".card .stage")
    assert opacity(page, heat) == 1


def test_the_viewer_by_keyboard(queried, opened):
    page = opened(queried[0] / "report.html").page
    page.focus(".card .stage")
    page.keyboard.press("Enter")
    assert page.inner_text("#viewer-name") == "hole.png"
    assert page.inner_text("#viewer-line").startswith("NG · ")
    region = page.locator("#viewer .region").first
    assert "Good match: image" in region.inner_text() and region.locator(".tile img").count() == 2
    region.locator("summary").click()
    assert region.locator("tr").count() == 4  # three levels and a head
    page.focus("#viewer-close")
    page.keyboard.press("ArrowRight")
    second = page.inner_text("#viewer-name")
    assert second == names(page)[1]
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#viewer-name") == "hole.png" and page.is_disabled("#viewer-before")
    page.keyboard.press("Escape")
    assert not page.is_visible("#viewer")
    wait_for(lambda: viewing.has_focus(page.locator(".card .stage").first))
    unnamed = page.evaluate("""[...document.querySelectorAll("button, input, select, [role=img]")]
        .filter(e => !(e.ariaLabel || e.labels?.length || e.textContent.trim()))
        .map(e => e.outerHTML)""")
    assert unnamed == []


def test_paper_has_all_pictures(queried, opened):
    page = opened(queried[0] / "report.html", width=390).page
    page.wait_for_selector(".card .photo")
    assert page.locator(".photo").count() < 9  # the others are out of sight
    page.pdf()
    assert page.locator(".card .photo").count() == 9


def test_long_words_make_the_report_no_wider(spade, opened, tmp_path):
    long = "n" * 100
    write_parts(tmp_path / long, [f"{long}.png"])
    (tmp_path / long / f"{long}-cut.png").write_bytes(b"no")
    out = tmp_path / f"{long}-out"
    out.mkdir()
    found = find_images([tmp_path / long], print)
    write_query(spade, found, out, report=True, on_error=lambda *line: None)
    page = opened(out / "report.html", width=390).page
    assert long in page.inner_text("body")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click(".card .stage")
    page.wait_for_selector("#viewer[open]")
    assert page.evaluate("document.querySelector('#viewer').scrollWidth") <= 390


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_thousand_images_stay_usable(thousand, opened, width):
    path, rows = thousand
    assert path.stat().st_size < 64 << 20
    page = opened(path, width=width).page
    page.wait_for_selector(".card .photo")
    assert (
        page.evaluate("performance.timing.domInteractive - performance.timing.navigationStart")
        < 30_000
    )  # of a busy machine; a second or two where it is idle
    assert page.locator(".card").count() == 1000 and page.locator(".photo").count() < 60
    page.select_option("#sort", "name")
    assert names(page)[:2] == ["0000.png", "0001.png"]
    page.fill("#search", "009")
    assert len(names(page)) == 11
    page.fill("#search", "")
    page.locator("#filter label", has_text="NG").click()
    assert page.inner_text("#count").startswith(f"{sum(row.verdict == 'NG' for row in rows)} of")
    last = page.locator(".card:not([hidden])").last
    last.scroll_into_view_if_needed()
    last.locator(".photo").wait_for()
    assert page.locator(".photo").count() < 60  # what is far away gave its pictures back


# Another threshold -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reviewed(spade, tmp_path_factory):
    """A query with a threshold set by hand and a mark of review; and all scores."""
    folder = tmp_path_factory.mktemp("reviewed")
    image = texture("brick", 1, seed=4)[0]
    for i in range(6):
        shown = with_hole(image, radius=4 + 2 * i) if i else image
        cv2.imwrite(str(folder / f"{i}.png"), shown[..., ::-1])
    (folder / "cut.png").write_bytes(b"no")
    found, out = find_images([folder], print), tmp_path_factory.mktemp("out")
    scores = sorted(one.peak for one in spade.query([one.path for one in found[:6]]))
    limits = [(low + high) / 2 for low, high in pairwise(scores)]
    own = spade.with_options()
    own.image_threshold, own.review = limits[3], limits[1]
    rows = write_query(own, found, out, report=True, on_error=lambda *line: None)
    return out, rows, scores, limits


def test_review_is_a_verdict_of_its_own(reviewed):
    out, rows, _, limits = reviewed
    assert sorted(row.verdict for row in rows) == [
        "ERROR",
        "NG",
        "NG",
        "OK",
        "OK",
        "REVIEW",
        "REVIEW",
    ]
    cards = cards_of(out / "report.html")
    for card in cards:
        word = next(row.verdict for row in rows if row.score == card["score"])
        assert card["verdict"] == word and bool(card["regions"]) == (word != "OK")
        assert "here0" in card["pictures"] or word == "OK"
    text = (out / "report.html").read_text()
    assert (
        f"<b>{limits[3]:.4g}</b>, which was set by hand" in text
        and " %" not in text.split("<main>")[0].split("set by hand")[1][:40]
    )


def test_a_slider_shows_what_another_threshold_would_say(reviewed, opened):
    out, _, scores, limits = reviewed
    before = (out / "scores.csv").read_bytes()
    page = opened(out / "report.html").page
    slider = page.get_by_role("slider", name="Another threshold")
    field = page.get_by_label("What if the threshold were")
    line = page.locator(".histogram .limit")

    def shown():
        """Return the verdicts by the page: of its badges, its filter and its head."""
        page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        badges = page.locator(".card .chip").all_text_contents()
        counts = {
            word: int(page.locator("#filter label", has_text=word).locator("b").inner_text())
            for word in ("NG", "REVIEW", "OK", "ERROR")
        }
        assert counts == {word: badges.count(word) for word in counts}
        said = page.inner_text("#said")
        assert said.startswith(f"{counts['NG']} of 7 ")
        assert said.endswith(f", {counts['REVIEW']} to review")
        return counts["NG"], counts["REVIEW"], counts["OK"]

    drawn = page.eval_on_selector(".histogram .upper", "e => e.innerHTML")
    assert shown() == (2, 2, 2) and page.get_by_role("button", name="Back to").is_disabled()
    assert float(slider.get_attribute("aria-valuetext")) == pytest.approx(limits[3], rel=1e-3)
    start = line.bounding_box()["x"]
    for limit, expected in (
        (limits[4], (1, 3, 2)),
        (limits[2], (3, 1, 2)),
        (limits[0], (5, 0, 1)),
        (2 * scores[-1], (0, 4, 2)),
        (0, (6, 0, 0)),
    ):
        field.fill(str(limit))
        assert shown() == expected
    field.fill(str(limits[2]))
    assert shown() == (3, 1, 2) and line.bounding_box()["x"] < start
    assert page.get_attribute("body", "data-tried") is not None
    said = page.inner_text(".what-if output")
    assert "3 NG, 1 REVIEW, 2 OK" in said and "scores.csv" in said
    assert f"are of the threshold {limits[3]:.4g}" in " ".join(said.split())
    assert f"--threshold {limits[2]:.4g}" in said
    page.locator("#filter label", has_text="NG").click()
    assert len(names(page)) == 3
    field.fill(str(limits[4]))
    shown()
    assert len(names(page)) == 1  # the filter follows
    page.locator("#filter label", has_text="All").click()
    slider.focus()
    page.keyboard.press("Home")  # by the keyboard alone: all are wrong, or none
    assert shown() == (6, 0, 0)
    page.keyboard.press("End")
    assert shown()[0] == 0
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="Back to").click()
    assert shown() == (2, 2, 2) and line.bounding_box()["x"] == pytest.approx(start, abs=0.5)
    assert page.eval_on_selector(".histogram .upper", "e => e.innerHTML") == drawn
    assert page.get_attribute("body", "data-tried") is None
    assert (out / "scores.csv").read_bytes() == before


def test_the_bars_of_another_threshold_count_every_image(thousand, opened):
    path, rows = thousand
    scores = np.array([row.score for row in rows])
    limit = float(np.median(scores))
    page = opened(path).page
    page.get_by_label("What if the threshold were").fill(str(limit))
    page.wait_for_selector("[data-tried]")
    bars = page.eval_on_selector_all(
        ".histogram .upper i", "all => all.map((i) => [i.className, parseFloat(i.style.height)])"
    )
    high = sum(height for word, height in bars if word == "ng")
    share = high / sum(height for _, height in bars)
    assert share == pytest.approx((scores > limit).mean(), abs=1e-3)
    wrong = (scores > limit).sum()
    assert page.inner_text("#said") == f"{wrong} of 1000 are not good"


def test_frames_of_a_video(tiny, tmp_path, opened):
    view = street()
    spade = Spade(tiny, resize=64, crop=64).fit(walk(view, 12))
    frames = walk(view, 30, 20)
    frames[20][20:60, 40:90] = 255
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "gate<b>.avi", frames)
    cv2.imwrite(str(tmp_path / "in" / "still.png"), frames[3])
    found = find_images([tmp_path / "in"], print, VIDEO_SUFFIXES | {".png"})
    write_query(spade, found, tmp_path / "out", worst=4, report=True)
    cards = cards_of(tmp_path / "out" / "report.html")
    shown = [card["name"] for card in cards if "#" in card["name"]]
    assert len(cards) == 5 and shown[0] == "gate<b>.avi#000020"
    page = opened(tmp_path / "out" / "report.html").page
    assert "30 frames" in page.inner_text(".timeline figcaption")
    assert page.locator(".mark").count() == 4 and "5 worst" in page.inner_text("main > .note")
    worst = page.locator('.mark[data-open="gate<b>.avi#000020"]')
    assert worst.evaluate("e => getComputedStyle(e).borderColor") == f"rgb{rgb(LIGHT['ng'])}"
    over = page.locator(".timeline svg.over path")
    assert over.evaluate("e => getComputedStyle(e).stroke") == f"rgb{rgb(LIGHT['ng'])}"
    page.get_by_label("What if the threshold were").fill("0")
    page.wait_for_selector("[data-tried]")
    assert page.inner_text(".timeline .tally") == "30"  # the other image is none of its frames
    assert page.inner_text("#said") == "31 of 31 are not good"
    page.click('.mark[data-open="gate<b>.avi#000020"]')
    assert page.inner_text("#viewer-name") == "gate<b>.avi#000020"
