"""How the site reads the package: an extension of mkdocstrings."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1(?!\s*$).+)*", re.MULTILINE)
_SECTION = re.compile(r"^ *Examples\n *-+$", re.MULTILINE)


class Reading(griffe.Extension):
    """Shows examples wherever they stand, and functions that have their module's name."""

    def on_package(self, *, pkg: griffe.Module, **others: Any) -> None:
        """Look through the package."""
        self.on_object(obj=pkg)
        _uncover(pkg)

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Put each example of a docstring between fences, unless a section has them."""
        if obj.docstring and not _SECTION.search(obj.docstring.value):
            obj.docstring.value = _EXAMPLE.sub(
                lambda match: f"{match[1]}```pycon\n{match[0]}\n{match[1]}```", obj.docstring.value
            )


def _uncover(module: griffe.Module) -> None:
    """Have a name stand for what is imported by it, as in Python, not for a module of that name."""
    for inner in list(module.modules.values()):
        _uncover(inner)
    hidden = [
        name for name, path in module.imports.items() if path == f"{module.path}.{name}.{name}"
    ]
    for name in hidden:
        wanted = module.members[name].members[name]
        for other in module.members.values():
            if other.is_alias:
                other.resolve_target()  # while the modules are there
        module.members[name] = griffe.Alias(name, wanted, parent=module)
