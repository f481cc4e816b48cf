"""What is asked of the viewer of pictures, in reports and on the service's page alike."""

import io
from collections import namedtuple

import numpy as np
from PIL import Image

from tests.waiting import wait_for

SIZE = WIDTH, HEIGHT = 2560, 2048
HOLE = 1700, 600, 40
"""A disc over the threshold: x, y and radius."""
View = namedtuple("View", "x y width height scale")


def graded():
    """Return a picture of 5 megapixels whose colours tell the place: red is x, and green y."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image[..., 0] = np.linspace(40, 210, WIDTH)
    image[..., 1] = np.linspace(40, 210, HEIGHT)[:, None]
    return image


def disc(image_shape=(HEIGHT, WIDTH)):
    """Return a map that passes 1 at `HOLE`'s edge."""
    y, x = np.ogrid[: image_shape[0], : image_shape[1]]
    far = np.hypot(x + 0.5 - HOLE[0], y + 0.5 - HOLE[1])
    return np.clip(1 + (HOLE[2] - far) / 80, 0, 2).astype(np.float32)


def placed(page):
    """Return where the picture is on the page, and CSS pixels for one of its own."""
    box = page.locator("#viewer .layers").bounding_box()
    return View(box["x"], box["y"], box["width"], box["height"], box["width"] / WIDTH)


def place_at(page, x, y):
    """Return which place of the picture is at x, y of the page, in its own pixels."""
    view = placed(page)
    return (x - view.x) / view.scale, (y - view.y) / view.scale


def shot(page):
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)


def check_colour(page, x, y, place, original=None):
    """The colour that is seen at x, y of the page is that of a place of the picture."""
    there = shot(page)[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].mean((0, 1))
    expected = [40 + 170 * place[0] / WIDTH, 40 + 170 * place[1] / HEIGHT, 128]
    np.testing.assert_allclose(there, expected, atol=4)


def choose(page, view):
    page.locator("#viewer label", has_text=view).click()


def stroke(page):
    """Return how many screen pixels wide the outline is, where a row through the disc meets it."""
    choose(page, "Outlines")
    view = placed(page)
    row = shot(page)[round(view.y + HOLE[1] * view.scale)]
    widths = []
    for side in (-1, 1):
        edge = round(view.x + (HOLE[0] + side * HOLE[2]) * view.scale)
        near = row[max(edge - 12, 0) : edge + 12]
        # The ground is of a middling brightness, the line white and its edges black.
        drawn = (near.min(1) > 225) | (near.max(1) < 100)
        assert drawn.any(), f"no line near {edge}"
        widths.append(int(drawn.sum()))
    choose(page, "Overlay")
    return widths


def look_at_hole(page):
    """Show the disc in the middle, so large that the room shows it whole."""
    page.get_by_role("button", name="Look at place 1").click()
    page.locator("#viewer .scroll").evaluate("(e) => { e.scrollTop = 0; }")


def middle_of_room(page):
    box = page.locator("#viewer .room").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def fits(page):
    """Whether all of the picture is seen, in the room's middle."""
    room, view = page.locator("#viewer .room").bounding_box(), placed(page)
    same = np.isclose(view.width, room["width"], atol=1) or np.isclose(
        view.height, room["height"], atol=1
    )
    x, y = middle_of_room(page)
    return (
        same
        and abs(view.x + view.width / 2 - x) < 1
        and abs(view.y + view.height / 2 - y) < 1
        and view.width <= room["width"] + 1
        and view.height <= room["height"] + 1
    )


def check_wheel(page):
    """The wheel zooms, the place under the pointer stays, and the line stays thin."""
    check_fits(page)
    start = placed(page)
    x, y = round(start.x + 0.7 * start.width), round(start.y + 0.3 * start.height)
    place = place_at(page, x, y)
    page.mouse.move(x, y)
    choose(page, "Original")
    for turns in (3, 4, 6, -4, -3):
        before = placed(page).scale
        for _ in range(abs(turns)):
            page.mouse.move(x, y)
            page.mouse.wheel(0, -120 if turns > 0 else 120)
        page.wait_for_function(
            "([before, larger]) => (document.querySelector('#viewer .layers')"
            ".getBoundingClientRect().width > before) === larger",
            arg=[before * WIDTH, turns > 0],
        )
        page.wait_for_timeout(100)
        np.testing.assert_allclose(place_at(page, x, y), place, atol=0.6 / placed(page).scale)
        check_colour(page, x, y, place)
    choose(page, "Overlay")
    for _ in range(60):
        page.mouse.move(x, y)
        page.mouse.wheel(0, 400)
    page.wait_for_function("document.getElementById('viewer-smaller').disabled")
    check_fits(page)


def check_keys(page):
    """Keys zoom about the middle, move, and show all again; the line is thin at every step."""
    assert page.evaluate("document.activeElement.className").startswith("room")
    look_at_hole(page)
    widths = [stroke(page)]
    page.locator("#viewer .room").focus()
    middle = middle_of_room(page)
    np.testing.assert_allclose(place_at(page, *middle), HOLE[:2], atol=1)
    for key, factor in (("+", 1.5), ("+", 1.5), ("-", 1 / 1.5), ("-", 1 / 1.5), ("-", 1 / 1.5)):
        before = placed(page).scale
        page.keyboard.press(key)
        assert abs(placed(page).scale / before / factor - 1) < 0.01
        np.testing.assert_allclose(place_at(page, *middle), HOLE[:2], atol=1)
        widths.append(stroke(page))
        page.locator("#viewer .room").focus()
    assert max(map(max, widths)) <= 6 and min(map(min, widths)) >= 1
    for key, (dx, dy) in (("ArrowLeft", (1, 0)), ("ArrowUp", (0, 1)), ("ArrowRight", (-1, 0))):
        before = placed(page)
        page.keyboard.press(key)
        now = placed(page)
        assert ((now.x - before.x) / 80, (now.y - before.y) / 80) == (dx, dy)
    page.keyboard.press("1")
    assert page.inner_text("#viewer-scale") == "100 %"
    assert abs(placed(page).scale - 1) < 0.01  # one of the picture's pixels is one of the screen's
    page.keyboard.press("0")
    check_fits(page)


def check_drag(page):
    """What is dragged goes with the pointer, and the picture cannot be lost."""
    look_at_hole(page)
    x, y = middle_of_room(page)
    place = place_at(page, x, y)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y - 45, steps=4)
    np.testing.assert_allclose(place_at(page, x + 60, y - 45), place, atol=1)
    page.mouse.move(x + 20_000, y + 20_000, steps=3)
    page.mouse.up()
    left, top = place_at(page, *middle_of_room(page))
    assert -1 <= left <= WIDTH + 1 and -1 <= top <= HEIGHT + 1
    page.mouse.dblclick(x, y)
    check_fits(page)


def check_touch(page):
    """Two fingers zoom and move at once, one moves; the places under them stay under them."""
    devtools = page.context.new_cdp_session(page)

    def touch(kind, *points):
        at = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    x, y = middle_of_room(page)
    first, second = (x - 30, y - 20), (x + 30, y + 10)
    places = [place_at(page, *one) for one in (first, second)]
    before = placed(page).scale
    touch("touchStart", first, second)
    for i in range(1, 11):
        share = i / 10
        first = (x - 30 - 70 * share, y - 20 - 50 * share)
        second = (x + 30 + 110 * share, y + 10 + 40 * share)
        touch("touchMove", first, second)
    page.wait_for_timeout(200)
    scale = np.hypot(240, 120) / np.hypot(60, 30)
    assert abs(placed(page).scale / before / scale - 1) < 0.02
    # Fingers also turned a little, which a picture does not: their middle is kept.
    now = np.mean([place_at(page, *one) for one in (first, second)], 0)
    np.testing.assert_allclose(now, np.mean(places, 0), atol=3 / placed(page).scale)
    touch("touchEnd")
    place = place_at(page, x, y)
    touch("touchStart", (x, y))
    for i in range(1, 6):
        touch("touchMove", (x + 8 * i, y - 6 * i))
    page.wait_for_timeout(200)
    np.testing.assert_allclose(place_at(page, x + 40, y - 30), place, atol=2 / placed(page).scale)
    touch("touchEnd")
    page.keyboard.press("0")
    check_fits(page)
    for large in (True, False):  # a double tap
        for _ in range(2):
            page.touchscreen.tap(x, y)
        page.wait_for_timeout(200)
        assert fits(page) != large
    assert page.evaluate("visualViewport.scale") == 1  # the page itself is not zoomed


def check_layers(page):
    """The map is switched on and off over the picture; so are outlines."""
    look_at_hole(page)
    x, y = middle_of_room(page)
    box = np.s_[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4]
    seen = {}
    for view in ("Original", "Outlines", "Overlay"):
        choose(page, view)
        seen[view] = shot(page)[box].mean((0, 1))
    np.testing.assert_allclose(seen["Original"], seen["Outlines"], atol=2)
    assert seen["Overlay"][0] > seen["Original"][0] + 20  # yellow to red
    page.locator("#viewer [data-strength]").fill("0")
    np.testing.assert_allclose(shot(page)[box].mean((0, 1)), seen["Original"], atol=2)
    page.locator("#viewer [data-strength]").fill("65")


def check_fits(page):
    """All of the picture is seen, once the room is as large as what is said beside it lets it."""
    wait_for(lambda: fits(page))


def has_focus(locator):
    """Say whether an element has the focus, which comes back only after a dialog has closed."""
    return locator.evaluate("(e) => e === document.activeElement")


def check_focus(page, opener):
    """The focus stays in the dialog, goes round in it, and returns to what opened it."""
    page.locator("#viewer .room").focus()
    seen = set()
    for key in ["Tab"] * 30 + ["Shift+Tab"] * 30:
        page.keyboard.press(key)
        assert page.evaluate("document.getElementById('viewer').contains(document.activeElement)")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"viewer-close", "viewer-larger"} <= seen and any("room" in one for one in seen)
    page.locator("#viewer-larger").focus()
    page.keyboard.press("Enter")
    page.locator("#viewer-smaller").focus()
    page.keyboard.press("Enter")  # all is seen again, so that this button is of no use
    page.keyboard.press("+")
    assert not fits(page)
    unnamed = page.evaluate("""[...document.querySelectorAll(
        "#viewer :is(button, input, [role], [tabindex])")].filter(
        e => !(e.ariaLabel || e.labels?.length || e.textContent.trim() || e.role === "status"))
        .map(e => e.outerHTML)""")
    assert unnamed == []
    page.keyboard.press("Escape")
    assert not page.is_visible("#viewer")
    wait_for(lambda: has_focus(opener))
