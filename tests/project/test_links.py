"""Pages lead to where they say, and are as long as they may be."""

import re
import unicodedata

import pytest

from .pages import PAGES, ROOT, blocks, name_of, without_blocks

_LINK = re.compile(r"!?\[[^\]]*\]\(\s*([^()\s]+)\s*\)")
_CODE = re.compile(r"`[^`\n]+`")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_IN_PROJECT = re.compile(r"`((?:spade_faiss|tests|benchmarks|docs|docker)/[\w./-]+)`")
LONGEST_README = 250


def links(text):
    """Return the targets of a page's links and pictures."""
    return _LINK.findall(_CODE.sub("", without_blocks(text)))


def anchors(text):
    """Return the names that a page's headings can be linked by, as GitHub makes them."""
    found = []
    for heading in _HEADING.findall(without_blocks(text)):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        kept = "".join(
            one for one in shown if one in "-_ " or unicodedata.category(one)[0] in "LNM"
        )
        anchor = kept.replace(" ", "-")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return found


def leads_somewhere(path, target, root=ROOT):
    """Say whether a link of a page leads to a file of the project, and to its heading if any."""
    file, _, anchor = target.partition("#")
    place = (path.parent / file).resolve() if file else path.resolve()
    if not place.is_relative_to(root.resolve()) or not place.exists():
        return False
    return not anchor or (place.suffix == ".md" and anchor in anchors(place.read_text()))


def broken(path, root=ROOT):
    """Return the links of a page that lead nowhere, or out of the project; not those to the web."""
    return [
        target
        for target in links(path.read_text())
        if not re.match(r"[a-z][a-z0-9+.-]*:", target) and not leads_somewhere(path, target, root)
    ]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_no_link_is_broken(path):
    assert not broken(path)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_files_that_a_page_names_are_there(path):
    named = _IN_PROJECT.findall(path.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


def test_files_on_an_images_way_are_there():
    named = re.findall(r"`(\w+/[\w/]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 9
    places = (ROOT, ROOT / "spade_faiss")
    assert not [name for name in named if not any((place / name).exists() for place in places)]


def test_functions_on_an_images_way_are_in_its_files():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    way = page.partition("## One image's way")[2].partition("\n## ")[0]
    files = re.findall(r"`(\w+/[\w/]+\.py)`", way)
    code = "\n".join((ROOT / "spade_faiss" / file).read_text() for file in files)
    named = re.findall(r"`([a-z_]+)`", way)
    assert len(named) > 3
    assert not [name for name in named if f"def {name}(" not in code]


def test_broken_links_are_noticed(tmp_path):
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# One `--two`, three\n\n## Again\n\n## Again\n\n```sh\n# no heading\n```\n")
    page.write_text(
        "# Top\n[a](other.md) [b](other.md#one---two-three) [c](#top) [d](https://e.org/x#y)\n"
        "[e](other.md#again-1) ![f](other.md) `[g](none.md)`\n```\n[h](none.md)\n```\n"
    )
    assert broken(page, tmp_path) == []
    page.write_text(
        "[a](none.md) [b](other.md#no-heading) [c](#top) ![d](none.png) [e](../out.md)\n"
    )
    assert len(broken(page, tmp_path)) == 5


def test_the_list_of_pages_has_each_once():
    listed = links((ROOT / "docs" / "README.md").read_text())
    for path in PAGES:
        if path.parent == ROOT / "docs" and path.name != "README.md":
            assert listed.count(path.name) == 1, path.name


def test_the_readme_is_short_and_tells_how_to_test():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= LONGEST_README
    # Continuous integration runs the one block of commands that calls pytest.
    [tests] = [block for block in blocks(text) if block.language == "sh" and "pytest" in block.code]
    assert "pip install" in tests.code


def test_the_readme_has_no_html():
    # An index of packages renders it by rules of its own.
    text = _CODE.sub("", without_blocks((ROOT / "README.md").read_text()))
    assert not re.findall(r"</?[a-z][^>]*>", text)
