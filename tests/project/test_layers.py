"""Imports go down the layers of the package and never up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import spade_faiss

PACKAGE = Path(spade_faiss.__file__).parent
LAYERS = (
    "errors",
    "types",
    "_support",
    "answers",
    "client",
    "notify",
    "images",
    "features",
    "metrics",
    "search",
    "index",
    "maps",
    "verdict",
    "pictures",
    "detector",
    "datasets",
    "report",
    "line",
    "distributed",
    "evaluation",
    "service",
    "cli",
)
"""From the ground up. A layer may import itself and those before it."""
FACES = ("__init__", "__main__", "video")
"""Modules beside the layers that show them to the outside: they stand above all."""
ORDER = (*LAYERS, *FACES)


class Upward(NamedTuple):
    """An import that goes up."""

    file: str
    line: int
    layer: str
    above: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.layer} imports {self.above}, which lies above it"


def imported(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the line and the dotted name of all that a module imports, anywhere in it.

    Parameters
    ----------
    tree : ast.Module
    package : tuple of str
        The package that relative imports start from.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            for alias in node.names:
                yield node.lineno, (*module, alias.name)


def layer_of(name: tuple[str, ...]) -> str | None:
    """Return the layer of a dotted name that is imported; None if it is of another package.

    Names that the package itself holds (`from spade_faiss import Spade`) are of its face.
    """
    if name[0] != "spade_faiss":
        return None
    return name[1] if len(name) > 1 and name[1] in ORDER else "__init__"


def upward_imports(package: Path) -> list[Upward]:
    """Return all imports of a package `spade_faiss` that go up."""
    found = set()
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        layer = inside.with_suffix("").parts[0]
        assert layer in ORDER, f"{inside} is in no layer: name its part in LAYERS"
        tree = ast.parse(path.read_text("utf-8"), str(path))
        for line, name in imported(tree, ("spade_faiss", *inside.parent.parts)):
            above = layer_of(name)
            if above is not None and ORDER.index(above) > ORDER.index(layer):
                found.add(Upward(str(inside), line, layer, above))
    return sorted(found)


def test_imports_go_down() -> None:
    up = upward_imports(PACKAGE)
    assert not up, "\n".join(map(str, up))


def test_a_part_that_is_in_no_layer_is_found(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("")
    with pytest.raises(AssertionError, match=r"helpers\.py is in no layer"):
        upward_imports(tmp_path)


@pytest.mark.parametrize(
    "statement",
    [
        "from ..index import Index",
        "from .. import index",
        "import spade_faiss.index.store",
        "from spade_faiss.index import Index",
        "def late() -> None:\n    from ..index.store import Index",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..index import Index",
    ],
)
def test_an_import_that_goes_up_is_found(tmp_path: Path, statement: str) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "level.py").write_text(statement)
    (found,) = upward_imports(tmp_path)
    assert str(found).startswith(f"search/level.py:{statement.count(chr(10)) + 1}: search imports")
    assert found.above == "index"


def test_imports_that_go_down_are_not(tmp_path: Path) -> None:
    (tmp_path / "search" / "cuda").mkdir(parents=True)
    (tmp_path / "search" / "cuda" / "prepare.py").write_text(
        "import torch\nfrom ..level import LevelSearch\nfrom ...errors import SpadeError\n"
    )
    (tmp_path / "__init__.py").write_text("from .cli.app import main\n")
    assert upward_imports(tmp_path) == []


def test_the_face_is_not_for_the_layers(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page.py").write_text("from .. import __version__\n")
    (found,) = upward_imports(tmp_path)
    assert (found.layer, found.above) == ("report", "__init__")
