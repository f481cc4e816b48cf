"""What MkDocs is told of this project's pages: a hook of mkdocs.yml.

Pages link to files as GitHub shows them, those outside of docs/ too. Here such files become pages,
and links lead to them. The home page is the README.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
"""Pages outside of docs/ that are on the site, linked to or not."""
_RENAMED = {"README.md": "index.md", "docs/README.md": "pages.md"}
_LANGUAGES = {".py": "python", ".Dockerfile": "docker", ".yaml": "yaml", ".yml": "yaml"}
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".svg"}
_FENCE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^()\s#:]+)((?:#[^()\s]*)?\))")
_sources: dict[str, Path] = {}
"""The file that each page of the site is made of, by the page's address."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of docs/, and those that others link to."""
    _sources.clear()
    for file in [*files.documentation_pages(), *_of_kind(files, ".ipynb")]:
        if file.src_uri == "README.md" or file.src_uri.endswith(".ipynb"):
            files.remove(file)
            _add(DOCS / file.src_uri, files, config)
        else:
            _sources[file.src_uri] = DOCS / file.src_uri
    for name in OUTSIDE:
        _add(ROOT / name, files, config)
    looked_at: set[str] = set()
    while new := _sources.keys() - looked_at:
        for address in sorted(new):
            looked_at.add(address)
            source = _sources[address]
            if source.suffix == ".md":
                for target in _linked(source):
                    if _address(target) not in _sources and not files.get_file_from_path(
                        _address(target)
                    ):
                        _add(target, files, config)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have a page's links lead to pages of the site."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]  # of one page
    source = _sources[page.file.src_uri]
    if source.suffix not in (".md", ".ipynb"):
        return markdown
    here = str(PurePosixPath(page.file.src_uri).parent)

    def lead(match: re.Match[str]) -> str:
        target = _target(source, match[2])
        if target is None:
            return match[0]
        return f"{match[1]}{posixpath.relpath(_address(target), here)}{match[3]}"

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(lead, part) for part in parts)


def notebook_page(source: Path) -> str:
    """Return a notebook as a page: its text, its code, and what that prints."""
    parts = []
    for cell in json.loads(source.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            shown = output["text"] if "text" in output else output["data"].get("text/plain", [])
            picture = output.get("data", {}).get("image/png")
            if picture:
                data = "".join(picture).replace("\n", "")
                parts.append(
                    f'<img alt="What the cell above shows" src="data:image/png;base64,{data}">'
                )
            else:
                parts.append(f"```text\n{''.join(shown).rstrip()}\n```")
    load = f'<a href="{source.name}" download>Load this notebook</a>, or find it in `docs/`.'
    return "\n\n".join([*parts, load]) + "\n"


def _add(source: Path, files: Files, config: MkDocsConfig) -> None:
    """Add a file of the project to the site, as a page unless it is a picture."""
    address = _address(source)
    if source.suffix == ".ipynb":
        file = File.generated(config, address, content=notebook_page(source))
        files.append(File.generated(config, source.name, abs_src_path=str(source)))
    elif source.suffix == ".md" or source.suffix in _PICTURES:
        file = File.generated(config, address, abs_src_path=str(source))
    else:
        language = _LANGUAGES.get(source.suffix, "text")
        text = source.read_text("utf-8")
        name = source.relative_to(ROOT).as_posix()
        file = File.generated(
            config, address, content=f"# {name}\n\n````{language}\n{text.rstrip()}\n````\n"
        )
    if source.suffix != ".md":
        file.inclusion = InclusionLevel.NOT_IN_NAV  # the notebook is all the same
    files.append(file)
    if address.endswith(".md"):
        _sources[address] = source


def _address(source: Path) -> str:
    """Return where a file of the project is on the site."""
    name = source.relative_to(ROOT).as_posix()
    if name in _RENAMED:
        return _RENAMED[name]
    name = name.removeprefix("docs/")
    if source.suffix == ".ipynb":
        return str(PurePosixPath(name).with_suffix(".md"))
    return name if source.suffix in {".md", *_PICTURES} else f"{name}.md"


def _linked(source: Path) -> list[Path]:
    """Return the files that a page links to."""
    text = _FENCE.sub("", source.read_text("utf-8"))
    found = (_target(source, match[2]) for match in _LINK.finditer(text))
    return [target for target in found if target is not None]


def _target(source: Path, link: str) -> Path | None:
    """Return the file that a link of a page leads to, if it is one of the project."""
    target = Path(os.path.normpath(source.parent / link))
    return target if target.is_file() and target.is_relative_to(ROOT) else None


def _of_kind(files: Files, suffix: str) -> list[File]:
    return [file for file in files if file.src_uri.endswith(suffix)]
