"""The editor of the region on the page, in a real browser."""

import io
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from spade_faiss import Spade
from tests.service.serving import serving
from tests.service.test_page import browser, opened, sync_api  # noqa: F401 - a fixture
from tests.service.test_region import DIRT, GOOD, HOLE, OPTIONS, settled, verdicts
from tests.waiting import wait_for

expect = sync_api.expect
pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")),
    reason="needs Chromium on the path",
)
LEFT = [(4, 4), (140, 4), (140, 252), (4, 252)]
"""Where the hole is, and the dirt is not, in pixels of the picture."""


@pytest.fixture
def editable(tiny, tmp_path):
    Spade(tiny, **OPTIONS).fit(GOOD, tmp_path / "index")
    with serving(tmp_path / "index", tiny, editable=True) as service:
        yield service


def edit(page):
    page.click("#region")
    page.wait_for_selector("#viewer .photo[src]")


def on_page(page, x, y):
    """Return where a place of the picture is on the page."""
    box = page.locator("#viewer .layers").bounding_box()
    return box["x"] + x * box["width"] / 256, box["y"] + y * box["height"] / 256


def tap(page, x, y, *, touch):
    at = on_page(page, x, y)
    if touch:
        page.touchscreen.tap(*at)
    else:
        page.mouse.click(*at)


def draw(page, corners, *, touch=False):
    for x, y in corners:
        tap(page, x, y, touch=touch)
        page.wait_for_timeout(450)  # else it would be a double tap
    page.get_by_role("button", name="Close area").click()


def corners(page):
    """Return the corners that are drawn, in pixels of the picture."""
    return page.eval_on_selector_all(
        "#viewer .corner",
        "(all) => all.map((e) => /translate\\(([^)]*)\\)/.exec(e.getAttribute('transform'))[1]"
        ".split(',').map(Number))",
    )


def check_near(found, expected, most=2):
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=most)


@pytest.mark.parametrize(
    ("width", "touch"), [pytest.param(1280, False, marks=pytest.mark.slow), (390, True)]
)
def test_a_polygon_is_drawn_and_saved_and_the_next_query_honours_it(
    editable, tmp_path, width, touch
):
    viewport = {"width": width, "height": 844}
    for name, image in (("dirt", DIRT), ("hole", HOLE)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image[..., ::-1])
    with opened(editable, viewport=viewport, has_touch=touch) as page:
        page.set_input_files("#files", [tmp_path / "dirt.png"])
        card = page.locator(".result").first
        expect(card.locator(".verdict")).to_have_text("NG")
        edit(page)
        expect(page.locator("#region-share")).to_have_text("All of the picture is looked at.")
        assert page.locator("#region-save").is_disabled()
        draw(page, LEFT, touch=touch)
        check_near(corners(page), LEFT)
        expect(page.locator("#region-share")).to_contain_text("51.5 % of the picture")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / "drawn.png")
        page.locator("#region-save").click()
        expect(page.locator("#region-status")).to_have_text("Saved: the index looks at this now.")
        assert page.locator("#region-save").is_disabled()
        page.screenshot(path=tmp_path / "saved.png")
        page.click("#viewer-close")
        expect(page.locator("#region")).to_be_focused()
        page.set_input_files("#files", [tmp_path / "dirt.png"])
        expect(page.locator(".result")).to_have_count(2)
        expect(page.locator(".result").first.locator(".verdict")).to_have_text("OK")
        page.set_input_files("#files", [tmp_path / "hole.png"])
        expect(page.locator(".result")).to_have_count(3)
        expect(page.locator(".result").first.locator(".verdict")).to_have_text("NG")
        # Who opens it again finds what is there, and can take it back.
        edit(page)
        assert sorted(np.round(corners(page)).tolist()) == sorted(np.round(corners(page)).tolist())
        check_near(sorted(corners(page)), sorted(map(list, LEFT)))
        page.get_by_role("button", name="Clear").click()
        page.locator("#region-save").click()
        expect(page.locator("#region-status")).to_have_text("Saved: the index looks at this now.")
    assert settled(editable.client)["everything"]
    assert verdicts(editable.client, DIRT) == ["NG"]


@pytest.mark.slow
def test_areas_are_drawn_moved_and_undone_by_pointer(editable):
    with opened(editable, viewport={"width": 1280, "height": 900}) as page:
        edit(page)
        for x, y in LEFT[:3]:
            tap(page, x, y, touch=False)
            page.wait_for_timeout(450)
        page.mouse.dblclick(*on_page(page, *LEFT[3]))  # sets the last corner and closes
        check_near(corners(page), LEFT)
        assert page.locator("#viewer polyline").count() == 0
        scale = page.locator("#viewer-scale").inner_text()
        # A part of it is left out.
        page.locator(".editor .choice span", has_text="Leave out").click()
        hole = [(40, 40), (100, 40), (70, 100)]
        for x, y in [*hole, hole[0]]:  # the first corner closes
            tap(page, x, y, touch=False)
            page.wait_for_timeout(450)
        check_near(corners(page), [*LEFT, *hole])
        assert page.locator("#viewer polyline").count() == 0
        assert page.locator("#viewer-scale").inner_text() == scale  # no double click was taken
        # A corner is dragged, and the picture is, too; both are undone alike.
        page.mouse.move(*on_page(page, *LEFT[1]))
        page.mouse.down()
        page.mouse.move(*on_page(page, 180, 30), steps=5)
        page.mouse.up()
        check_near(corners(page), [LEFT[0], (180, 30), *LEFT[2:], *hole])
        page.keyboard.press("Control+z")
        check_near(corners(page), [*LEFT, *hole])
        # The place under the pointer is what is meant at every zoom.
        page.mouse.move(*on_page(page, 200, 200))
        for _ in range(4):
            page.mouse.wheel(0, -240)
        page.wait_for_timeout(200)
        tap(page, 205, 203, touch=False)
        check_near(corners(page)[-1:], [(205, 203)], 1)
        page.keyboard.press("Escape")  # gives up what is being drawn, not the editor
        check_near(corners(page), [*LEFT, *hole])
        with page.expect_download() as download:
            page.get_by_role("button", name="Download mask").click()
        mask = np.asarray(Image.open(download.value.path()).convert("L"))
        assert download.value.suggested_filename == "region.png" and mask.shape == (256, 256)
        assert mask[128, 20] == 255 and mask[60, 70] == 0 and mask[128, 200] == 0
        page.locator(".areas select").last.select_option("look")
        page.get_by_role("button", name="Remove area 1").click()
        check_near(corners(page), hole)
        page.keyboard.press("Escape")
        assert not page.is_visible("#viewer")
        edit(page)  # what was not saved is still there
        check_near(corners(page), hole)


@pytest.mark.slow
def test_it_is_worked_by_keys_alone(editable):
    with opened(editable, viewport={"width": 1280, "height": 900}) as page:
        page.wait_for_selector("#region")  # what is hidden takes no focus
        page.locator("#region").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#viewer .photo[src]")
        page.get_by_role("button", name="Add a rectangle").focus()
        page.keyboard.press("Enter")
        assert len(corners(page)) == 4
        focused = "document.activeElement.getAttribute('aria-label')"
        assert page.evaluate(focused) == "Corner 1 of area 1"
        (x, y), *_ = corners(page)
        for key in ("ArrowLeft", "Shift+ArrowLeft", "ArrowUp"):
            page.keyboard.press(key)
        assert corners(page)[0] == [x - 11, y - 1]
        page.keyboard.press("Insert")
        assert page.evaluate(focused) == "Corner 2 of area 1" and len(corners(page)) == 5
        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "Corner 3 of area 1"
        page.keyboard.press("Delete")
        assert page.evaluate(focused) == "Corner 3 of area 1" and len(corners(page)) == 4
        page.locator("#region-save").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#region-status")).to_have_text("Saved: the index looks at this now.")
        unnamed = page.evaluate("""[...document.querySelectorAll(
            "#viewer :is(button, input, select, [role], [tabindex])")].filter(
            e => !(e.ariaLabel || e.labels?.length || e.textContent.trim() || e.role === "status"))
            .map(e => e.outerHTML)""")
        assert unnamed == []
    assert not settled(editable.client)["everything"]


@pytest.mark.slow
def test_fingers_move_the_picture_and_no_corner_is_set(editable):
    with opened(editable, viewport={"width": 390, "height": 844}, has_touch=True) as page:
        edit(page)
        devtools = page.context.new_cdp_session(page)

        def touch(kind, *points):
            at = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
            devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

        x, y = on_page(page, 128, 128)
        touch("touchStart", (x - 30, y), (x + 30, y))
        for i in range(1, 6):
            touch("touchMove", (x - 30 - 12 * i, y), (x + 30 + 12 * i, y))
        touch("touchEnd")
        page.wait_for_timeout(300)
        assert corners(page) == [] and page.locator("#viewer .room.zoomed").count() == 1
        tap(page, 120, 120, touch=True)
        page.wait_for_timeout(450)
        tap(page, 150, 120, touch=True)
        check_near(corners(page), [(120, 120), (150, 120)], 1)
        # A finger drags a corner, taken from farther off than by a mouse.
        x, y = on_page(page, 150, 120)
        touch("touchStart", (x + 15, y))
        for i in range(1, 6):
            touch("touchMove", (x + 15, y + 10 * i))
        touch("touchEnd")
        page.wait_for_timeout(200)
        assert corners(page)[1][1] > 125


def test_who_may_not_save_can_still_download(service):
    with opened(service) as page:
        edit(page)
        expect(page.locator("#region-status")).to_contain_text("this service does not change its")
        page.get_by_role("button", name="Add a rectangle").click()
        assert page.locator("#region-save").is_disabled()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download mask").click()
        data = download.value.path().read_bytes()
        assert 0 < (np.asarray(Image.open(io.BytesIO(data)).convert("L")) > 127).mean() < 0.5


@pytest.mark.slow
def test_a_queried_picture_can_be_drawn_on_and_a_refusal_is_said(editable, tmp_path):
    cv2.imwrite(str(tmp_path / "dirt.png"), DIRT[..., ::-1])
    with opened(editable) as page:
        page.set_input_files("#files", [tmp_path / "dirt.png"])
        expect(page.locator(".result")).to_have_count(1)
        edit(page)
        page.select_option("#region-picture", "queried")
        page.wait_for_selector("#viewer .photo[alt^='Queried']")
        page.get_by_role("button", name="Propose").click()
        status = page.locator("#region-status")
        expect(status).to_have_text(
            "There is nothing to propose: the good images show no plain ground."
        )
        page.get_by_role("button", name="Add a rectangle").click()
        generation = editable.live.detector.manifest.generation
        manifest = editable.live.folder / "manifest.json"
        stranger = editable.live.folder / "notes.txt"
        stranger.write_text("in the way")
        page.locator("#region-save").click()
        expect(status).to_contain_text("holds other files (notes.txt)")
        assert not page.locator("#region-save").is_disabled() and manifest.exists()
        stranger.unlink()
        page.locator("#region-save").click()
        expect(status).to_have_text("Saved: the index looks at this now.")
        wait_for(lambda: editable.live.detector.manifest.generation != generation)
