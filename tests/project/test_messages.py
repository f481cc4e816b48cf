"""Messages name cures in the library's words, and the command line in its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import spade_faiss
from spade_faiss.cli.app import app
from spade_faiss.cli.console import in_flags

PACKAGE = Path(spade_faiss.__file__).parent
FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
OTHERS = "ray start --head"
"""A command of another program."""
QUOTED = "`spade-faiss info --json`"
"""A command that is shown in backticks."""
OVER_HTTP = ("answers.py", "client.py", "service/guard.py")
"""What these say is for clients of the service, and never shown by the command line."""


def options(command: typer.core.TyperCommand | typer.core.TyperGroup) -> Iterator[str]:
    """Yield the options of a command, and of those below it."""
    for one in command.params:
        yield from one.opts
    for below in getattr(command, "commands", {}).values():
        yield from options(below)


PROGRAM = typer.main.get_command(app)
OPTIONS = frozenset(options(PROGRAM))
_NAMES = "|".join(getattr(PROGRAM, "commands", ()))
COMMAND = re.compile(rf"(?:spade-faiss|\b(?:by|call|run|use)) (?:{_NAMES})\b")


def literals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string that is no docstring; an f-string's values are 0.

    A string that stands alone documents what is before it.
    """
    passed: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            passed.update(node.values)
            yield (
                node.lineno,
                "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "0"
                    for part in node.values
                ),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in passed:
            yield node.lineno, node.value


def messages(without: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each string of the library, which has no command line."""
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).as_posix()
        if not inside.startswith("cli/") and inside not in without:
            for line, text in literals(ast.parse(path.read_text("utf-8"))):
                yield f"{inside}:{line}", text


def typed(text: str) -> list[str]:
    """Return the options and commands that a text has."""
    text = text.replace(OTHERS, "")
    return [one[0] for one in (*re.finditer(r"--[a-z][\w-]*", text), *COMMAND.finditer(text))]


def test_the_library_names_no_option_and_no_command() -> None:
    found = [f"{place}: {text!r}" for place, text in messages() if typed(text)]
    assert not found, "\n".join(found)


def test_the_command_line_has_an_option_for_each_parameter_that_is_named() -> None:
    named = [(place, text) for place, text in messages(OVER_HTTP) if "`" in text]
    shown = [
        (place, in_flags(text).replace(OTHERS, "").replace(QUOTED, "")) for place, text in named
    ]
    unknown = [
        f"{place}: {text}"
        for place, text in shown
        if {*FLAG.findall(text)} - OPTIONS or "`" in text
    ]
    assert len(named) > 20 and not unknown, "\n".join(unknown)


@pytest.mark.parametrize(
    "source, found",
    [
        ("raise ValueError('give --crop none')", ["--crop"]),
        ("raise ValueError(f'{n} of {m}: give ' f'--max-fpr {limit}')", ["--max-fpr"]),
        ("notes = ('run spade-faiss calibrate DIR',)", ["spade-faiss calibrate"]),
        ('def read():\n    """Read what `info --json` prints."""\n    X = 1\n    "--also"', []),
        ("NOTE = 'give more, by add or by calibrate'", ["by add", "by calibrate"]),
        ("NOTE = 'add more, or calibrate with more'", []),
        ("raise ValueError(\"start one with 'ray start --head'\")", []),
        ("FORMAT = 'spade-faiss index'", []),
    ],
)
def test_an_option_or_a_command_is_found(source: str, found: list[str]) -> None:
    assert [one for _, text in literals(ast.parse(source)) for one in typed(text)] == found


@pytest.mark.parametrize(
    "said, shown",
    [
        ("give `crop=None`", "give --crop none"),
        ("`max_fpr=0.05` with `original_size=True`", "--max-fpr 0.05 with --original-size"),
        (
            "make one with: `fit(images, index='parts (2), of 'B'')`",
            "make one with: spade-faiss build TRAIN_DIR --index parts (2), of 'B'",
        ),
        ("make one with `calibrate(images)`", "make one with spade-faiss calibrate DIR IMAGE…"),
        (
            "(`keep_threshold(images)`), (`image_threshold=None` and `keep_threshold()`)",
            "(calibrate --threshold VALUE IMAGE…), (calibrate --threshold auto)",
        ),
        ("`manifest.images` lists its images", "`spade-faiss info --json` lists its images"),
    ],
)
def test_the_library_s_words_are_shown_as_they_are_typed(said: str, shown: str) -> None:
    assert in_flags(said) == shown
