"""Write docs/api.md: every public name, in one line each, out of the docstrings.

Run it after a public name or its docstring's first line changed; a test checks that it was.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from itertools import pairwise
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).with_name("api.md")
MODULES = (
    "spade_faiss",
    "spade_faiss.datasets",
    "spade_faiss.features",
    "spade_faiss.images",
    "spade_faiss.images.video",
    "spade_faiss.maps",
    "spade_faiss.metrics",
    "spade_faiss.search",
    "spade_faiss.verdict",
)
INTERNAL = frozenset(
    {
        "by_hand_notes",
        "pipeline",
        "places_from",
        "set_by_hand",
        "threshold_for",
        "unfitted",
        "with_pipeline",
    }
)
"""Members of detectors that other parts of this package use, and users need not."""
LIKE = {"Ensemble": "Spade"}
"""Classes of which the page lists only the members that another class lacks."""


def page() -> str:
    """Return the page."""
    lines = [
        "# The Python interface",
        "",
        "Every public name, in one line. [Use it from Python](python.md) shows the main ones at "
        "work. Parameters, shapes, units and errors are in the docstrings: "
        "`help(spade_faiss.Spade)`. Written by `python docs/reference.py`.",
    ]
    for name in MODULES:
        module = importlib.import_module(name)
        lines += [
            "",
            f"## `{name}`",
            "",
            first_line(module),
            "",
            "| name | what it is |",
            "|---|---|",
        ]
        for public in public_names(module):
            value = getattr(module, public)
            like = f" Used as `{LIKE[public]}` is." if public in LIKE else ""
            lines.append(f"| `{public}` | {summary(module, public)}{like} |")
            if inspect.isclass(value):
                lines += [
                    f"| `{public}.{method}` | {first_line(getattr(value, method))} |"
                    for method in methods(value)
                    if public not in LIKE or method not in methods(getattr(module, LIKE[public]))
                ]
    return "\n".join(lines) + "\n"


def public_names(module: ModuleType) -> list[str]:
    """Return a package's `__all__`, or what a module itself defines without a leading _."""
    if hasattr(module, "__all__"):
        return sorted((name for name in module.__all__ if not name.startswith("__")), key=str.lower)
    defined = [
        name
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]
    return sorted(
        (name for name in {*defined, *_described(module)} if not name.startswith("_")),
        key=str.lower,
    )


def methods(value: type) -> list[str]:
    """Return the public methods and properties of a class, its bases' in this package included."""
    return sorted(
        {
            name
            for one in value.__mro__
            if one.__module__.startswith("spade_faiss")
            for name, member in vars(one).items()
            if not name.startswith("_")
            and name not in INTERNAL
            and (callable(member) or isinstance(member, property | classmethod | staticmethod))
        }
    )


def summary(module: ModuleType, name: str) -> str:
    """Return what a name is, in one line."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        return first_line(value)
    # A constant's description is the string that follows it, in the module that sets it.
    for place in (module, *_imported(module)):
        if text := _described(place).get(name):
            return text.strip().split("\n")[0]
    raise LookupError(f"{module.__name__}.{name} has no description")


def first_line(value: object) -> str:
    """Return the first line of a docstring."""
    text = inspect.getdoc(value)
    if not text:
        raise LookupError(f"{value} has no docstring")
    return text.split("\n")[0].replace("|", "\\|")


def _imported(module: ModuleType) -> list[ModuleType]:
    return [value for value in vars(module).values() if isinstance(value, ModuleType)]


def _described(module: ModuleType) -> dict[str, str]:
    """Return the strings that follow assignments in a module, by the assigned name."""
    if not getattr(module, "__file__", None) or not module.__name__.startswith("spade_faiss"):
        return {}
    body = ast.parse(inspect.getsource(module)).body
    found = {}
    for node, after in pairwise(body):
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AnnAssign)
            else None
        )
        if (
            isinstance(target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[target.id] = after.value.value
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
