"""The page's history and queue in a real browser: by mouse, by keys, and as axe-core sees them."""

import csv
import io

import cv2
import pytest

from spade_faiss import Spade, open_detector
from spade_faiss.service import IndexFolder
from tests.conftest import texture
from tests.service.serving import running, serving
from tests.service.test_page import browser, drop, opened, pytestmark, sync_api  # noqa: F401
from tests.service.test_region import DIRT, GOOD, HOLE, OPTIONS
from tests.waiting import wait_for

pytest.importorskip("axe_playwright_python", reason="needs the package axe-playwright-python")
from tests.service.accessible import check_accessible

expect = sync_api.expect


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, image in (("dirt", DIRT), ("hole", HOLE), ("good", GOOD[1])):
        cv2.imwrite(str(folder / f"{name}.png"), image[..., ::-1])
    return folder


@pytest.fixture
def keeping(tiny, tmp_path):
    Spade(tiny, **OPTIONS).fit(GOOD, tmp_path / "nuts.index")
    history = tmp_path / "history"
    with serving(tmp_path / "nuts.index", tiny, editable=True, history=history) as service:
        yield service


def verdict(page):
    return page.locator(".result").first.locator(".verdict")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_from_a_query_to_an_index_that_knows_it_and_back(keeping, files, width, scheme):
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with opened(keeping, **options) as page:
        # A stranger is told what to do, and sees which product it is, and when.
        expect(page.locator("#product")).to_have_text("nuts.index")
        expect(page.locator("#how li")).to_have_count(3)
        expect(page.locator("#how li").last).to_be_visible()
        assert page.locator("#clock").get_attribute("datetime")
        expect(page.locator("#day")).to_have_text("Today: 0 NG, 0 REVIEW, 0 OK")
        check_accessible(page)
        for name in ("good", "hole", "dirt"):
            drop(page, files / f"{name}.png")
            expect(page.locator(".result").first.locator(".name")).to_have_text(f"{name}.png")
        expect(page.locator("#day")).to_have_text("Today: 2 NG, 0 REVIEW, 1 OK")
        check_accessible(page)
        page.reload()
        results = page.locator(".result")
        expect(results.locator(".name")).to_have_text(["dirt.png", "hole.png", "good.png"])
        expect(results.locator(".verdict")).to_have_text(["NG", "NG", "OK"])
        picture = results.first.locator("img")  # it comes after its result
        wait_for(lambda: picture.evaluate("(image) => image.naturalWidth") > 99)
        assert not page.locator("#how").evaluate("(e) => e.open")
        results.first.get_by_role("button", name="This was good").click()
        check_accessible(page)
        page.get_by_label("Your name").last.fill("Ada")
        page.get_by_label("What may have misled it").fill("dust")
        page.get_by_role("button", name="Keep it as good").click()
        expect(results.first.locator(".marked")).to_have_text("Called good by Ada")
        # Whoever is in charge looks through them: what was not good is taken off.
        results.nth(1).get_by_role("button", name="This was good").click()
        page.get_by_role("button", name="Keep it as good").click()
        expect(page.locator("#queue-items li")).to_have_count(2)
        page.get_by_role("button", name="Take off: hole.png").click()
        expect(page.locator("#queue-items li")).to_have_count(1)
        expect(results.locator(".marked")).to_have_count(1)
        expect(page.locator("#queue-items")).to_contain_text("dust")
        expect(page.locator("#history-rows tr").first).to_contain_text("Ada: dust")
        page.get_by_role("button", name="See what adding changes").click()
        said = page.locator("#queue-status")
        expect(said).to_contain_text("There would be 7 good images, now 6. The threshold would go")
        check_accessible(page)
        page.get_by_role("button", name="Add 1 picture").click()
        expect(said).to_have_text("Added: the index knows them now.")
        expect(page.locator("#index")).to_contain_text("7 good images")
        expect(page.locator("#step")).to_contain_text("Ada added 1 picture")
        results.first.get_by_role("button", name="Look again").click()
        expect(results).to_have_count(4)
        expect(verdict(page)).to_have_text("OK")
        check_accessible(page)
        page.get_by_role("button", name="One step back").click()
        expect(said).to_have_text("Stepped back: the index is as it was before.")
        results.nth(1).get_by_role("button", name="Look again").click()
        expect(results).to_have_count(5)
        expect(verdict(page)).to_have_text("NG")
        expect(page.locator("#queue-items li")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_long_words_make_the_page_no_wider(tiny, tmp_path):
    long = "n" * 100
    copy = tmp_path / f"{long}.png"
    cv2.imwrite(str(copy), GOOD[0][..., ::-1])
    good = [*GOOD, copy]  # a copy is noted by its name
    Spade(tiny, **OPTIONS).fit(good, tmp_path / f"{long}.index")
    history = tmp_path / "history"
    with (
        serving(tmp_path / f"{long}.index", tiny, editable=True, history=history) as service,
        opened(service, viewport={"width": 390, "height": 900}) as page,
    ):
        expect(page.locator("#notes")).to_contain_text(long)
        expect(page.locator("#product")).to_have_text(f"{long}.index")
        cv2.imwrite(str(copy), HOLE[..., ::-1])
        drop(page, copy)
        page.get_by_role("button", name="This was good").click()
        page.get_by_label("Your name").last.fill(long[:90])
        page.get_by_label("What may have misled it").fill(long)
        page.get_by_role("button", name="Keep it as good").click()
        expect(page.locator("#queue-items")).to_contain_text(long)
        page.reload()
        expect(page.locator("#history-rows")).to_contain_text(long)
        expect(page.locator(".result .marked")).to_contain_text(long[:90])
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_history_of_a_day_is_sifted_and_saved(keeping, files):
    for name in ("dirt", "good", "hole"):
        data = (files / f"{name}.png").read_bytes()
        keeping.client.post("/v1/query", files={"images": (f"{name}.png", data)})
    with opened(keeping, timezone_id="Asia/Tokyo") as page:
        rows = page.locator("#history-rows tr")
        expect(rows).to_have_count(3)
        page.select_option("#history-verdict", "NG")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("hole.png")
        with page.expect_download() as download:
            page.get_by_role("button", name="Save as CSV").click()
        day = page.input_value("#history-day")
        assert download.value.suggested_filename == f"nuts.index {day}.csv"
        table = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8"))))
        assert [row["name"] for row in table] == ["hole.png", "dirt.png"]
        # What comes meanwhile does not make the list begin anew.
        rows.last.evaluate("(row) => { row.title = 'as it was'; }")
        for name, count in (("good", 2), ("dirt", 3)):
            drop(page, files / f"{name}.png")
            expect(page.locator("#heard")).to_contain_text(name)
            expect(rows).to_have_count(count)
        expect(page.locator("#history-counts")).to_have_text("3 NG, 0 REVIEW, 2 OK")
        expect(rows.last).to_have_attribute("title", "as it was")
        expect(rows.first).to_contain_text("dirt.png")
        page.fill("#history-day", "2020-02-29")
        expect(page.locator("#history-counts")).to_have_text("0 NG, 0 REVIEW, 0 OK")
        expect(rows).to_have_count(0)


@pytest.mark.slow
def test_of_several_indices_one_is_chosen_and_each_has_its_history(tiny, tmp_path, files):
    for name, good in (("grass", texture("grass", 4)), ("nüts", GOOD)):
        Spade(tiny, **OPTIONS).fit(good, tmp_path / "indices" / name)

    def opener(folder, networks):
        return open_detector(folder, networks=networks or (tiny,), batch_size=8)

    source = IndexFolder(tmp_path / "indices", opener)
    with running(source, history=tmp_path / "kept", editable=True) as service:
        with opened(service) as page:
            expect(page.locator("#index")).to_contain_text("4 good images")
            drop(page, files / "good.png")
            expect(page.locator("#day")).to_have_text("Today: 1 NG, 0 REVIEW, 0 OK")
            page.get_by_label("Index").select_option("nüts")
            expect(page.locator("#index")).to_contain_text("6 good images")
            expect(page.locator(".result")).to_have_count(0)
            assert page.title() == "nüts: spade-faiss"
            drop(page, files / "good.png")
            expect(verdict(page)).to_have_text("OK")
            page.reload()
            expect(verdict(page)).to_have_text("OK")
            expect(page.get_by_label("Index")).to_have_value("nüts")
            page.get_by_role("button", name="This was good").click()
            page.get_by_label("Your name").last.fill("Ada")
            page.keyboard.press("Enter")
            expect(page.locator("#good")).to_be_hidden()
            page.click("#to-history")
            expect(page.locator("#history-title")).to_be_focused()
            page.reload()
            expect(page.get_by_label("Index")).to_have_value("nüts")
            page.evaluate("location.hash = '#grass'")
            expect(page.locator("#index")).to_contain_text("4 good images")
            page.goto(page.url.partition("#")[0] + "#n%C3%BCts")
            expect(page.locator("#index")).to_contain_text("6 good images")
            page.click("#region")
            page.wait_for_selector("#viewer .photo[src]")
        queued = service.client.get("/v1/indices/n%C3%BCts/feedback").json()["queue"]
        assert [one["index"] for one in queued] == ["nüts"]
        assert service.client.get("/v1/indices/grass/feedback").json()["queue"] == []


@pytest.mark.slow
def test_the_page_is_used_by_keys_alone(keeping, files):
    """Tab, Enter and typing; where the focus is can be seen, and is never lost."""
    with opened(keeping) as page:
        expect(page.locator("#product")).to_have_text("nuts.index")

        def tab_to(name):
            for _ in range(60):
                page.keyboard.press("Tab")
                focused = page.evaluate(
                    "(e => e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent.trim() "
                    "?? e.textContent.trim())(document.activeElement)"
                )
                if focused == name:
                    style = "getComputedStyle(document.activeElement).outlineStyle"
                    assert page.evaluate(style) != "none"
                    return
            raise AssertionError(f"no Tab leads to {name}")

        choosers = []
        page.on("filechooser", lambda chooser: choosers.append(chooser))
        tab_to("Choose images")
        page.keyboard.press("Enter")
        while not choosers:
            page.wait_for_timeout(50)
        choosers[0].set_files(files / "dirt.png")
        expect(verdict(page)).to_have_text("NG")
        heard = page.get_by_role("status").filter(
            has_text="dirt.png: NG. 1 place over the threshold."
        )
        expect(heard).to_have_count(1)
        tab_to("This was good: dirt.png")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Your name").last).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#good")).to_be_hidden()
        page.keyboard.press("Enter")
        page.keyboard.type("Ada")
        page.keyboard.press("Enter")
        expect(page.locator(".call-good").first).to_be_focused()
        expect(page.locator(".marked")).to_have_text("Called good by Ada")
        tab_to("See what adding changes")
        page.keyboard.press("Enter")
        expect(page.locator("#queue-status")).to_contain_text("The threshold would go")
        tab_to("Add 1 picture")
        page.keyboard.press("Enter")
        expect(page.locator("#queue-status")).to_have_text("Added: the index knows them now.")
        expect(page.locator("#queue-title")).to_be_focused()
        tab_to("One step back")
        page.keyboard.press("Space")
        expect(page.locator("#queue-status")).to_contain_text("Stepped back")
        tab_to("Take off: dirt.png")
        page.keyboard.press("Enter")
        expect(page.locator("#queue")).to_be_hidden()


@pytest.mark.slow
def test_the_other_states_of_the_page_are_accessible(keeping, service, files):
    with opened(service) as page:  # which keeps nothing
        expect(page.locator("#index")).to_contain_text("good images")
        expect(page.locator("#how li:visible")).to_have_count(2)
        for name in ("day", "history", "queue"):
            expect(page.locator(f"#{name}")).to_be_hidden()
        drop(page, files / "dirt.png")
        expect(verdict(page)).to_have_text("NG")
        expect(page.locator(".call-good")).to_be_hidden()
        page.click(".result .stage")
        page.wait_for_selector("#viewer .photo.own")
        check_accessible(page)
    with opened(keeping) as page:
        page.click("#region")
        page.wait_for_selector("#viewer .photo[src]")
        page.get_by_role("button", name="Add a rectangle").click()
        check_accessible(page)
        page.keyboard.press("Escape")
        page.click("#start")
        page.wait_for_selector("#video", state="visible")
        check_accessible(page)
    with opened(service, "/docs") as page:
        check_accessible(page)
