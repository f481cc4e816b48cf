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


def in_circles(package: Path) -> list[str]:
    """Return the modules of a package `spade_faiss` that import each other, be it late.

    What is imported for its type alone does not count.
    """
    paths = {
        ("spade_faiss", *path.relative_to(package).with_suffix("").parts): path
        for path in package.rglob("*.py")
    }
    paths = {name[:-1] if name[-1] == "__init__" else name: path for name, path in paths.items()}
    imports: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text("utf-8"), str(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body = []
        inside = name if path.stem == "__init__" else name[:-1]
        found = {one for _, one in imported(tree, inside)}
        imports[name] = {one if one in paths else one[:-1] for one in found} & paths.keys()
    left, before = {name: within - {name} for name, within in imports.items()}, 0
    while len(left) != before:  # what imports none that is left, or is imported by none, goes
        before = len(left)
        wanted = set().union(*left.values())
        left = {name: within & left.keys() for name, within in left.items() if name in wanted}
        left = {name: within for name, within in left.items() if within}
    return sorted(".".join(name) for name in left)


def test_imports_go_down() -> None:
    up = upward_imports(PACKAGE)
    assert not up, "\n".join(map(str, up))


def test_no_modules_import_each_other() -> None:
    assert not in_circles(PACKAGE)


@pytest.mark.parametrize("late", ["", "def late() -> None:\n    "])
def test_a_circle_is_found(tmp_path: Path, late: str) -> None:
    (tmp_path / "a.py").write_text("from .b import b\n")
    (tmp_path / "b.py").write_text("from . import c\n")
    (tmp_path / "c.py").write_text(f"{late}from .a import a\n")
    (tmp_path / "d.py").write_text("from .a import a\n")
    (tmp_path / "e.py").write_text("from .d import d\n")
    assert in_circles(tmp_path) == ["spade_faiss.a", "spade_faiss.b", "spade_faiss.c"]
    (tmp_path / "c.py").write_text("if TYPE_CHECKING:\n    from .a import a\n")
    assert in_circles(tmp_path) == []


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
