"""The project's pages, and the blocks of code in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            path
            for part in ("docs", "benchmarks", "docker")
            for path in (ROOT / part).rglob("*.md")
        ),
    ]
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of code, and the number of its first line."""

    language: str
    code: str
    line: int


def blocks(text):
    """Return the fenced blocks of a page."""
    return [
        Block(match[1], match[2], text[: match.start()].count("\n") + 2)
        for match in _FENCE.finditer(text)
    ]


def without_blocks(text):
    """Return a page's text without its fenced blocks."""
    return _FENCE.sub("", text)


def name_of(path):
    """Return a page's path within the project."""
    return str(path.relative_to(ROOT))
