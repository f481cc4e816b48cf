"""The page in a real browser."""

import base64
import json
import shutil
from contextlib import contextmanager, nullcontext

import cv2
import numpy as np
import pytest

from spade_faiss import Spade, open_detector
from spade_faiss.pictures.colours import LIGHT, rgb
from spade_faiss.report.layers import paths_of
from spade_faiss.service import IndexFolder, pictures
from tests import viewing
from tests.conftest import texture
from tests.service.serving import SMALL, running, serving, set_threshold

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")
PATIENCE = 120_000


BROWSERS = []
"""Those that are open; no two may be driven at once."""


@contextmanager
def launched():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        BROWSERS.append(browser)
        try:
            yield
        finally:
            BROWSERS.pop().close()


@pytest.fixture(scope="module", autouse=True)
def browser():
    """One for all tests here: to start it takes longer than most of them."""
    with launched():
        yield


@contextmanager
def opened(service, path="/", **context):
    """Open a page; whatever the browser complains of, or asks of another host, fails the test."""
    with nullcontext() if BROWSERS else launched():
        yield from _opened(BROWSERS[0], service, path, context)


def _opened(browser, service, path, context):
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(PATIENCE)
    sync_api.expect.set_options(timeout=PATIENCE)
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    origin = f"http://localhost:{service.port}"
    page.goto(origin + path)
    try:
        yield page
        assert not complaints, complaints
        assert all(url.startswith((origin, "data:")) for url in asked), asked
    finally:
        page.context.close()


@pytest.fixture(scope="module")
def files(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for name, image in (
        ("good <b>part.png", parts[0]),
        ("hole.png", parts[1]),
        ("hole.tiff", parts[3]),
        ("strip.png", np.resize(parts[0], (64, 1280, 3))),
    ):
        cv2.imwrite(str(folder / name), image[..., ::-1])
    (folder / "text.png").write_text("no image")
    return folder


DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def drop(page, path):
    page.evaluate(DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])


@pytest.mark.parametrize("width", [1280, 390])
def test_an_image_is_dropped_and_its_verdict_read(service, files, width):
    with opened(service, viewport={"width": width, "height": 900}) as page:
        sync_api.expect(page.locator("#index")).to_contain_text("10 good images")
        drop(page, files / "hole.png")
        card = page.locator(".result").first
        sync_api.expect(card.locator(".verdict")).to_have_text("NG")
        sync_api.expect(card.locator("h2")).to_have_text("hole.png")
        sync_api.expect(card.locator("h3")).to_contain_text("over the threshold")
        for name in (".photo", ".overlay", ".here >> nth=0", ".good >> nth=0"):
            picture = card.locator(name)
            assert picture.evaluate("(i) => i.decode().then(() => i.naturalWidth)") >= 100
        colour = card.locator(".verdict").evaluate("e => getComputedStyle(e).backgroundColor")
        assert colour == f"rgb{rgb(LIGHT['ng'])}" and card.locator(".scale").is_visible()
        card.locator("li").first.hover()
        mark, stage = (card.locator(name).bounding_box() for name in (".mark", ".stage"))
        # The hole is at 120, 130 of 256 pixels.
        assert mark["x"] < stage["x"] + 120 / 256 * stage["width"] < mark["x"] + mark["width"]
        assert mark["y"] < stage["y"] + 130 / 256 * stage["height"] < mark["y"] + mark["height"]
        card.locator("input").fill("30")
        assert card.locator(".overlay").evaluate("(i) => i.style.opacity") == "0.3"
        drop(page, files / "good <b>part.png")
        card = page.locator(".result").first
        sync_api.expect(card.locator("h2")).to_have_text("good <b>part.png")
        sync_api.expect(card.locator(".verdict")).to_have_text("OK")
        sync_api.expect(card.locator(".noted")).to_have_text("")
        drop(page, files / "strip.png")
        sync_api.expect(page.locator(".result").first.locator(".noted")).to_have_text(
            "Note: seen only in part: 3.8 % of 1280x64 pixels."
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_a_threshold_the_page_says_what_blue_is(tiny, parts, files, tmp_path):
    Spade(tiny).fit(parts[:1], tmp_path / "index")
    with (
        serving(tmp_path / "index", tiny) as service,
        opened(service, viewport={"width": 390, "height": 900}, color_scheme="dark") as page,
    ):
        drop(page, files / "hole.png")
        card = page.locator(".result").first
        sync_api.expect(card.locator(".verdict")).to_have_text("?")
        sync_api.expect(card.locator(".scale")).to_contain_text("blue is where")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_files_are_chosen_and_a_bad_one_is_named(service, files):
    with opened(service) as page:
        page.set_input_files("#files", [files / "hole.tiff", files / "hole.png"])
        sync_api.expect(page.locator(".result")).to_have_count(2)
    with pytest.raises(AssertionError, match="415"), opened(service) as page:
        page.set_input_files("#files", [files / "text.png", files / "hole.png"])
        sync_api.expect(page.locator("#status.wrong")).to_contain_text("text.png: is not an image")
        sync_api.expect(page.locator(".result")).to_have_count(1)  # the other is looked at


@pytest.mark.slow
def test_a_folder_that_is_dropped_is_named_and_the_files_beside_it_are_looked_at(service, files):
    with opened(service) as page:
        devtools = page.context.new_cdp_session(page)
        for kind in ("dragEnter", "dragOver", "drop"):
            devtools.send(
                "Input.dispatchDragEvent",
                {
                    "type": kind,
                    "x": 300,
                    "y": 120,
                    "data": {
                        "items": [],
                        "files": [str(files), str(files / "hole.png")],
                        "dragOperationsMask": 1,
                    },
                },
            )
        sync_api.expect(page.locator(".result h2")).to_have_text(["hole.png"])
        sync_api.expect(page.locator("#status.wrong")).to_have_text(
            f"{files.name} is a folder: drop the images in it"
        )


@pytest.mark.slow
def test_places_that_are_not_shown_are_counted(service, files):
    answer = service.client.post(
        "/v1/query?pictures=true", files={"images": ("hole.png", (files / "hole.png").read_bytes())}
    ).json()
    region = answer["images"][0]["regions"][0]
    answer["images"][0]["regions"] = [region, region, {**region, "here": None, "good": None}]
    with opened(service) as page:
        page.route("**/v1/query*", lambda route: route.fulfill(json=answer))
        drop(page, files / "hole.png")
        sync_api.expect(page.locator(".result h3")).to_have_text(
            "3 places over the threshold; the 2 highest are shown"
        )
        sync_api.expect(page.locator(".result li")).to_have_count(2)


@pytest.mark.slow
def test_a_service_that_has_ended_is_not_taken_for_a_bad_image(service, files):
    with pytest.raises(AssertionError, match="ERR_FAILED"), opened(service) as page:
        page.route("**/v1/query*", lambda route: route.abort())
        page.set_input_files("#files", [files / "hole.tiff", files / "hole.png"])
        sync_api.expect(page.locator("#status.wrong")).to_have_text(
            "The service does not answer; has it ended?\n2 images were not looked at"
        )


def test_the_token_is_asked_for(index, tiny, files):
    token = "a-token-of-some-length"
    with (
        serving(index, tiny, token=token) as service,
        pytest.raises(AssertionError, match="401"),
        opened(service) as page,
    ):
        status = page.locator("#status")
        sync_api.expect(page.locator("#token")).to_be_focused()
        sync_api.expect(status).to_have_text("")
        drop(page, files / "hole.png")
        sync_api.expect(status).to_have_text("Give the service's token first")
        page.keyboard.type(token + "x")
        page.keyboard.press("Enter")
        sync_api.expect(status).to_have_text("This is not the service's token")
        page.keyboard.type(token)
        page.keyboard.press("Enter")
        sync_api.expect(page.locator("#index")).to_contain_text("10 good images")
        sync_api.expect(page.locator("#access")).to_be_hidden()
        drop(page, files / "hole.png")
        sync_api.expect(page.locator(".result")).to_have_count(1)


@pytest.mark.slow
def test_a_picture_fits_a_screen(service, parts, tmp_path):
    for name, image in (("tall.png", parts[1][:, 90:150]), ("wide.png", parts[1][100:160])):
        cv2.imwrite(str(tmp_path / name), image)
        with opened(service, viewport={"width": 1280, "height": 900}) as page:
            drop(page, tmp_path / name)
            sync_api.expect(page.locator(".result")).to_have_count(1)
            view = page.locator(".stage").bounding_box()
            assert view["height"] < 0.7 * 900 and view["width"] < 0.7 * 1280
            assert view["width"] / view["height"] == pytest.approx(
                image.shape[1] / image.shape[0], rel=0.02
            )


@pytest.mark.slow
def test_the_camera_is_looked_through(service):
    with opened(service) as page:
        page.click("#start")
        page.wait_for_selector("#video", state="visible")
        page.locator("#video").evaluate(
            "(v) => v.readyState >= 2 || new Promise((done) => { v.onloadeddata = done; })"
        )
        page.click("#shoot")
        sync_api.expect(page.locator(".result")).to_have_count(1)
        sync_api.expect(page.locator(".result h2")).to_contain_text("camera")
        page.click("#keep")
        sync_api.expect(page.locator(".result").nth(2)).to_be_visible()
        page.click("#stop")
        sync_api.expect(page.locator("#camera")).to_be_hidden()


def test_the_api_is_described_offline(service):
    with opened(service, "/docs", viewport={"width": 390, "height": 900}) as page:
        sync_api.expect(page.locator("h2").first).to_contain_text("POST /v1/query")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.click("text=QueryAnswer >> nth=0")
        assert page.url.endswith("#QueryAnswer")
        lost = page.evaluate("""[...document.querySelectorAll("a[href^='#']")]
            .filter(link => !document.getElementById(link.hash.slice(1))).map(link => link.hash)""")
        assert lost == [] and "`" not in page.inner_text("main")
        clipped = page.evaluate("""[...document.querySelectorAll(".scroll")]
            .filter(one => one.scrollWidth > one.clientWidth).length""")
        assert clipped == 0


@pytest.mark.slow
def test_an_index_that_is_being_replaced_is_told_of(tiny, tmp_path, files, held):
    Spade(tiny, **SMALL).fit(texture("gravel", 3), tmp_path)
    with serving(tmp_path, tiny, every=3600) as service, opened(service) as page:
        heading, line = page.locator("#index"), page.locator("#outdated")
        sync_api.expect(heading).to_contain_text("3 good images")
        sync_api.expect(line).to_be_hidden()
        held.clear()
        set_threshold(tmp_path, 77.5)
        drop(page, files / "hole.png")
        sync_api.expect(line).to_contain_text("The new one is being opened")
        card = page.locator(".result").first
        sync_api.expect(card.locator(".notice")).to_contain_text("By the index before")
        held.set()
        sync_api.expect(line).to_be_hidden()
        sync_api.expect(heading).to_contain_text("threshold 77.5")
        drop(page, files / "hole.png")
        card = page.locator(".result").first
        sync_api.expect(card.locator(".score")).to_contain_text("threshold 77.5")
        sync_api.expect(card.locator(".notice")).to_be_hidden()


@pytest.mark.slow
def test_results_that_leave_the_page_are_counted(service, files):
    with opened(service) as page:
        drop(page, files / "hole.png")
        sync_api.expect(page.locator(".result")).to_have_count(1)
        answer = service.client.post(
            "/v1/query?pictures=true",
            files={"images": ("good.png", (files / "good <b>part.png").read_bytes())},
        )
        page.route(
            "**/v1/query*",
            lambda route: route.fulfill(body=answer.content, content_type="application/json"),
        )
        for _ in range(25):
            drop(page, files / "hole.png")
        sync_api.expect(page.locator("#gone")).to_have_text(
            "The newest 24 are shown; before them came 1 NG, 1 OK"
        )
        sync_api.expect(page.locator(".result")).to_have_count(24)


@pytest.mark.slow
def test_what_a_score_and_a_place_are_judged_by_is_said(tiny, index, tmp_path, files):
    for score in ("descriptor", "mean"):
        with serving(index, tiny, detector={"score": score}) as service, opened(service) as page:
            drop(page, files / "hole.png")
            card = page.locator(".result").first
            sync_api.expect(card.locator(".score")).to_contain_text(f"{score} score")
            sync_api.expect(card.locator("h3")).to_contain_text("over the map's threshold")
    Spade(tiny, **SMALL).fit(texture("gravel", 1), tmp_path)
    with serving(tmp_path, tiny) as service, opened(service) as page:
        sync_api.expect(page.locator("#index")).to_contain_text("1 good image,")
        drop(page, files / "hole.png")
        card = page.locator(".result").first
        sync_api.expect(card.locator("h3")).to_have_text(
            "The index has no threshold to find wrong places by"
        )


# The viewer ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(service, tmp_path_factory):
    """A picture of 5 megapixels, and what is answered of it: one place, over a disc."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    cv2.imwrite(str(path), viewing.graded()[..., ::-1])
    answer = service.client.post(
        "/v1/query?pictures=true", files={"images": ("large.png", path.read_bytes())}
    ).json()
    (image,) = answer["images"]
    x, y, radius = viewing.HOLE
    image["heat"] = pictures.heat(viewing.disc(), 1.0).model_dump()
    image["outline"] = paths_of(viewing.disc(), 1.0)["outline"]
    image["unseen"] = ""
    image["regions"] = [
        {
            "box": [x - radius, y - radius, x + radius, y + radius],
            "area": 5027,
            "peak": 1.5,
            "peak_at": [x, y],
            "matches": [{"level": 1, "distance": 1.5, "image": "a/good.png"}],
            "here": image["photo"],
            "good": image["photo"],
        }
    ]
    return path, json.dumps(answer)


@contextmanager
def looking(service, large, width, **options):
    """Open the page and, on it, the viewer of the large picture."""
    path, answer = large
    viewport = {"width": width, "height": 900}
    with opened(service, viewport=viewport, **options) as page:
        page.route(
            "**/v1/query*",
            lambda route: route.fulfill(body=answer, content_type="application/json"),
        )
        page.set_input_files("#files", [path])
        opener = page.locator(".result .stage")
        opener.click()
        page.wait_for_selector("#viewer .photo.own")
        yield page, opener
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_file_itself_is_looked_at_closely(service, large, width):
    with looking(service, large, width) as (page, _):
        size = page.eval_on_selector("#viewer .photo", "(e) => [e.naturalWidth, e.naturalHeight]")
        assert tuple(size) == viewing.SIZE and page.locator("#viewer .photo").count() == 1
        assert page.eval_on_selector("#viewer .photo", "(e) => e.src").startswith("data:image/png")
        viewing.check_wheel(page)
        viewing.check_layers(page)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_keys_and_drags_look_around(service, large, width):
    with looking(service, large, width) as (page, opener):
        viewing.check_keys(page)
        viewing.check_drag(page)
        viewing.check_focus(page, opener)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_fingers_look_around(service, large, width):
    with looking(service, large, width, has_touch=True) as (page, _):
        viewing.check_touch(page)


@pytest.mark.slow
def test_what_a_query_found_is_outlined_in_the_viewer(service, files):
    with opened(service) as page:
        page.set_input_files("#files", [files / "hole.png"])
        page.click(".result .stage")
        page.wait_for_selector("#viewer .photo.own")
        assert page.inner_text("#viewer-name") == "hole.png"
        assert page.inner_text("#viewer-line").startswith("NG · score ")
        # The hole is at 120, 130 of 256 pixels.
        there = page.eval_on_selector(
            "#viewer .outline",
            "(e) => e.isPointInFill(Object.assign(e.ownerSVGElement.createSVGPoint(),"
            " { x: 120, y: 130 }))",
        )
        assert there and page.locator("#viewer .unseen").count() == 1  # a margin is cropped
        assert page.locator("#viewer li").count() == page.locator(".result li").count() > 0


@pytest.mark.slow
def test_a_file_that_browsers_do_not_show_comes_from_the_service(service, files):
    with opened(service) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.set_input_files("#files", [files / "hole.tiff"])
        page.click(".result .stage")
        size = page.eval_on_selector(
            "#viewer .photo", "(e) => e.decode().then(() => [e.naturalWidth, e.naturalHeight])"
        )
        assert size == [246, 256] and page.inner_text("#viewer-note") == ""
        assert any("full=true" in url for url in asked)


@pytest.mark.slow
def test_a_file_of_another_size_than_the_answer_is_not_shown(service, large, files):
    _, answer = large
    with opened(service) as page:
        page.route(
            "**/v1/query*",
            lambda route: route.fulfill(body=answer, content_type="application/json"),
        )
        page.set_input_files("#files", [files / "hole.png"])
        page.click(".result .stage")
        note = page.locator("#viewer-note")
        sync_api.expect(note).to_have_text("Shown small: this browser cannot show the file itself.")
        assert page.locator("#viewer .photo.own").count() == 0


@pytest.mark.slow
def test_an_index_is_chosen_of_several(tiny, parts, files, tmp_path):
    for name, count in (("first", 3), ("ü 2", 4)):
        Spade(tiny, **SMALL).fit(texture("gravel", count), tmp_path / name)

    def opener(folder, networks):
        return open_detector(folder, networks=networks)

    with running(IndexFolder(tmp_path, opener)) as service:
        with opened(service) as page:
            sync_api.expect(page.locator("#index")).to_contain_text("3 good images")
            page.get_by_label("Index").select_option("ü 2")
            sync_api.expect(page.locator("#index")).to_contain_text("4 good images")
            drop(page, files / "hole.png")
            sync_api.expect(page.locator(".result .verdict")).to_have_text("NG")
            page.locator("#region").click()
            sync_api.expect(page.locator(".editor select")).to_be_visible()
        metrics = service.client.get("/metrics").text
        assert 'spade_faiss_verdicts_total{index="ü 2",verdict="NG"} 1.0' in metrics
        with opened(service, path="/#%C3%BC%202") as page:
            sync_api.expect(page.locator("#index")).to_contain_text("4 good images")
            assert page.get_by_label("Index").input_value() == "ü 2"
            # An image that is dropped before the list has come waits for it.
            held = []
            page.route("**/v1/indices", lambda route: held.append(route))
            page.reload()
            drop(page, files / "hole.png")
            while len(held) < 2:  # the page asks, and so does what was dropped
                page.wait_for_timeout(20)
            for route in held:
                route.continue_()
            page.unroute("**/v1/indices")
            sync_api.expect(page.locator(".result .verdict").first).to_have_text("NG")
