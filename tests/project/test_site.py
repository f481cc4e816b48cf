"""The pages as a site: it builds strictly, links lead somewhere, and it loads nothing from afar."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from spade_faiss import Spade

from .pages import ROOT

API = sorted((ROOT / "docs" / "api").glob("*.md"))
INTERNAL = ("pipeline", "with_pipeline", "unfitted")
"""Members of `Spade` that other parts of the package use."""


class Found(HTMLParser):
    """What a page loads, what it links to, and the names of its places."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.places = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.places |= {given[name] for name in ("id", "name") if given.get(name)}
        if given.get("src"):
            self.loads.append(given["src"])
        elif tag == "link" and given.get("href"):
            self.loads.append(given["href"])
        elif tag == "a" and given.get("href"):
            self.links.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built."""
    pytest.importorskip("mkdocs", reason="needs the extra 'docs'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Each page of the site, and what was found in it."""
    return {path: Found(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def modules():
    """Return the modules that the pages of the Python interface are made of."""
    return [re.search(r"^::: (\S+)$", path.read_text(), re.MULTILINE)[1] for path in API]


def own(module):
    """Return the public names of a module."""
    if hasattr(module, "__all__"):
        return set(module.__all__) - {"__version__"}
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def broken(pages, site):
    """Return the links within the site that lead nowhere."""
    found = []
    for path, page in pages.items():
        for link in (*page.links, *page.loads):
            address, place = urldefrag(link)
            if urlsplit(link).scheme:
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            there = target.is_file() and target.is_relative_to(site.resolve())
            known = pages.get(target)
            if not there or (place and known and unquote(place) not in known.places):
                found.append(f"{path.name}: {link}")
    return found


@pytest.mark.slow
def test_every_page_is_on_the_site_and_its_links_lead_somewhere(site, pages):
    names = {str(path.relative_to(site)) for path in pages}
    assert {"index.html", "pages.html", "first.html", "CHANGELOG.html", "LICENSE.html"} <= names
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").with_suffix(".html")
        assert str(name) == "README.html" or str(name) in names
    missing = {site / "404.html"}  # its links are of the site's root, wherever that is
    assert broken({path: page for path, page in pages.items() if path not in missing}, site) == []


@pytest.mark.slow
def test_links_that_lead_nowhere_are_noticed(site, pages, tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<a href="#top">a</a><a href="none.html">b</a><img src="none.png">')
    assert len(broken({page: Found(page.read_text())}, tmp_path)) == 3


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site, pages):
    for path, page in pages.items():
        loads = [link for link in page.loads if path.name != "404.html" or "://" in link]
        outside = [link for link in loads if urlsplit(link).scheme not in ("", "data")]
        assert not outside and not [link for link in loads if link.startswith("//")], path
    for path in site.rglob("*.css"):
        asked = re.findall(r"url\((.*?)\)|@import\s+(\S+)", path.read_text("utf-8"))
        assert not [one for one in asked if re.match(r"[\"']?(https?:)?//", "".join(one))], path


@pytest.mark.slow
def test_every_public_name_is_described(site, pages):
    for path, name in zip(API, modules(), strict=True):
        places = pages[site / "api" / f"{path.stem}.html"].places
        missing = [
            one for one in own(importlib.import_module(name)) if f"{name}.{one}" not in places
        ]
        assert not missing, f"{name}: say what these are: {missing}"
    places = pages[site / "api" / "spade_faiss.html"].places
    public = {
        name
        for name, _ in inspect.getmembers(Spade)
        if not name.startswith("_") and f"spade_faiss.Spade.{name}" not in places
    }
    assert public >= set(INTERNAL), "these are no business of users"
    assert {"fit", "predict", "calibrate"}.isdisjoint(public)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_from_a_disk(site, chromium, scheme):
    asked, said = [], []
    with chromium.new_context(
        color_scheme=scheme, viewport={"width": 1280, "height": 900}
    ) as context:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        for name in ("index", "first", "figures", "api/spade_faiss"):
            page.goto((site / f"{name}.html").as_uri())
            page.wait_for_load_state()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        page.locator(".md-search__input").click()
        page.keyboard.type("false alarms")
        page.wait_for_selector(".md-search-result__item")
        shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", shade)[:3])) > 3 * 128
    assert light == (scheme == "light")
    assert said == []
    assert not [url for url in asked if not url.startswith((site.as_uri(), "data:"))]


def test_the_pages_of_the_interface_are_listed():
    listed = re.findall(
        r"^\| \[`(\S+)`\]\(api/(\w+)\.md\)", (ROOT / "docs" / "api.md").read_text(), re.M
    )
    assert {path.stem: name for path, name in zip(API, modules(), strict=True)} == {
        stem: name for name, stem in listed
    }
