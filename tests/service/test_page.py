"""The page in a real browser."""

import base64
import shutil
from contextlib import contextmanager

import cv2
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")
PATIENCE = 120_000


@contextmanager
def opened(service, path="/", **context):
    """Open a page; whatever the browser complains of, or asks of another host, fails the test."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream"])
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
            browser.close()


@pytest.fixture(scope="module")
def files(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for name, image in (("good <b>part.png", parts[0]), ("hole.png", parts[1]),
                        ("hole.tiff", parts[3])):
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
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_files_are_chosen_and_a_bad_one_is_named(service, files):
    with opened(service) as page:
        page.set_input_files("#files", [files / "hole.tiff", files / "hole.png"])
        sync_api.expect(page.locator(".result")).to_have_count(2)
    with pytest.raises(AssertionError, match="415"), opened(service) as page:
        page.set_input_files("#files", files / "text.png")
        sync_api.expect(page.locator("#status")).to_contain_text("text.png: is not an image")


def test_the_camera_is_looked_through(service):
    with opened(service) as page:
        page.click("#start")
        page.wait_for_selector("#video", state="visible")
        page.locator("#video").evaluate(
            "(v) => v.readyState >= 2 || new Promise((done) => { v.onloadeddata = done; })")
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
