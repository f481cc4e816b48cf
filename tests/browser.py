"""A headless browser for the tests of pages."""

import os
import shutil

import pytest


@pytest.fixture(scope="module")
def chromium():
    """A headless browser; no two may be driven at once, so that each module has its own."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: extra 'browser'")
    path = os.environ.get("SPADE_FAISS_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if path is None:
        pytest.skip("needs a Chromium on the path, or its path in SPADE_FAISS_CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


class Opened:
    """A page opened from a file, with all that it said and asked for."""

    def __init__(self, browser, path, width=1280, scheme="light", **options):
        self.said, self.asked, self.dialogs = [], [], []
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        self.context.set_default_timeout(120_000)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on(
            "dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss())
        )
        self.path = path
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready]", state="attached")

    def check(self):
        """Nothing was complained of, nor fetched but the file and the pictures beside it."""
        assert self.said == [] and self.dialogs == []
        fetched = [url for url in self.asked if not url.startswith("data:")]
        assert fetched[0] == self.path.as_uri()
        beside = (self.path.parent / "closeups").as_uri()
        assert all(url.startswith(f"{beside}/") for url in fetched[1:])
        inlined = [url for url in self.asked if url.startswith("data:")]
        assert all(url.startswith("data:image/webp;base64,") for url in inlined)
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.fixture
def opened(chromium):
    """Opens a report."""
    pages = []

    def open_page(*arguments, **options):
        pages.append(Opened(chromium, *arguments, **options))
        return pages[-1]

    yield open_page
    for one in pages:
        one.check()
        one.context.close()
