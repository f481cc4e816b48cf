"""What a command says: notes and problems on standard error, its result on standard output."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import typer
from tqdm import tqdm

from .._support.memory import is_shortage
from .._support.text import json_text, printable, valid
from .._support.warning import notes_to
from ..errors import SpadeError

Answer = tuple[dict[str, Any], str]
"""The result of a command, as JSON and in words."""


_COMMANDS = (
    (r"`fit\(images, index='(.*?)'\)`", r"spade-faiss build TRAIN_DIR --index \1"),
    (r"`calibrate\(images\)`", "spade-faiss calibrate DIR IMAGE…"),
    (r"`keep_threshold\(images\)`", "calibrate --threshold VALUE IMAGE…"),
    (r"`image_threshold=None` and `keep_threshold\(\)`", "calibrate --threshold auto"),
    (r"`manifest\.images`", "`spade-faiss info --json`"),
)
"""What is typed, by what the library calls it: patterns, and what stands for them."""
_PARAMETER = re.compile(r"`(?P<name>[a-z][a-z_]*)(=(?P<value>[^`]*))?`")


class Console:
    """Says a line for each problem and note, and keeps them for the result.

    Attributes
    ----------
    problems : list of dict
        What could not be used: "path" and "error".
    notes : list of str
    """

    def __init__(self) -> None:
        self.problems: list[dict[str, str]] = []
        self.notes: list[str] = []

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Console]:
        """Give a console that also notes what is warned of images while a `with` block lasts."""
        console = cls()
        with notes_to(console.note):
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata, image by image
            yield console

    def problem(self, name: str, why: str) -> None:
        """Say why something could not be used."""
        why = in_flags(why)
        self.problems.append({"path": name, "error": why})
        self.say(f"{name}: {why}")

    def failure(self, name: str, error: Exception) -> None:
        """Say what ended the work of one production line."""
        self.problem(name, reason(error))

    def note(self, text: str) -> None:
        """Say what should be known of images, an index or results, and is no problem."""
        text = in_flags(text)
        self.notes.append(text)
        self.say(f"note: {text}")

    def note_each(self, texts: Iterable[str], line: str = "") -> None:
        """Say several notes, each after the name of a production line."""
        for text in texts:
            self.note(f"{line}{text}")

    def warn(self, text: str) -> None:
        """Say what was asked to be warned of."""
        self.say(f"warning: {text}")

    def say(self, text: str) -> None:
        """Write a line on standard error, above progress bars; where nobody reads it, go on."""
        with suppress(OSError, ValueError):
            tqdm.write(f"spade-faiss: {printable(text)}", file=sys.stderr)

    def record(self) -> dict[str, object]:
        """Return what `--json` says of notes and problems."""
        return {"notes": self.notes, "errors": self.problems}

    def answer(self, record: object, text: str, *, as_json: bool) -> None:
        """Print the result, as JSON or in words."""
        print(json_text(record, indent=1) if as_json else valid(text))

    def answer_lines(
        self,
        answers: Mapping[str, Answer],
        more: Mapping[str, object] | None = None,
        *,
        as_json: bool,
    ) -> None:
        """Print the results of production lines, by their names, and what else a record says."""
        lines = {name: record for name, (record, _) in answers.items()}
        self.answer(
            {"lines": lines, **(more or {}), **self.record()},
            "\n".join(text for _, text in answers.values()),
            as_json=as_json,
        )

    def exit(self, *, done: bool = True) -> None:
        """End the command if something could not be used, or nothing could.

        Raises
        ------
        typer.Exit
            With status 2 if nothing was done, 1 if there were problems.
        """
        if not done:
            raise typer.Exit(2)
        if self.problems:
            raise typer.Exit(1)


def in_flags(text: str) -> str:
    """Return text with the library's words, which it has in backticks, as they are typed.

    Calls become commands, and parameters options.

    >>> in_flags("leave out `store='float16'`, lower `k` or give `crop=None`")
    'leave out --store float16, lower -k or give --crop none'
    >>> in_flags("make one with `calibrate(images)`")
    'make one with spade-faiss calibrate DIR IMAGE…'
    """

    def option(parameter: re.Match[str]) -> str:
        name, value = parameter["name"].replace("_", "-"), parameter["value"]
        flag = f"-{name}" if len(name) == 1 else f"--{name}"
        if value in (None, "True"):
            return flag
        return f"{flag} {'none' if value == 'None' else value.strip(chr(39))}"

    for call, command in _COMMANDS:
        text = re.sub(call, command, text)
    return _PARAMETER.sub(option, text)


def reason(error: Exception) -> str:
    """Return in one line what went wrong."""
    if isinstance(error, SpadeError):
        return in_flags(str(error))
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if is_shortage(error):
        return "out of memory: lower --batch-size, --resize or -k, or raise --max-memory"
    first = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first} (run again with --debug to see where)"
