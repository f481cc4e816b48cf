"""What is kept of a finished category, and what it depends on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..images import OnError, OnNote
from .scores import Scores


class Messages:
    """Passes on what is reported of a category, and keeps it for the category's record.

    Attributes
    ----------
    problems : list of (name, why)
    notes : list of str
    """

    def __init__(self, on_error: OnError, on_note: OnNote) -> None:
        self._on_error = on_error
        self._on_note = on_note
        self.problems: list[tuple[str, str]] = []
        self.notes: list[str] = []

    def error(self, name: str, why: str) -> None:
        """Take what cannot be used, and why."""
        self.problems.append((name, why))
        self._on_error(name, why)

    def note(self, text: str) -> None:
        """Take what is worth knowing and no error."""
        self.notes.append(text)
        self._on_note(text)


@dataclass(frozen=True)
class Record:
    """What a finished category left.

    Attributes
    ----------
    key : dict
        What its scores depend on; see `key_of`.
    problems : sequence of (name, why)
        What of it could not be used.
    notes : sequence of str, or None
        What is odd about its index or its masks; None if an older version kept nothing.
    scores : list of Scores
        One for each point of the sweep; the first is of the detector's own settings.
    report_data : dict or None
        What a report shows besides; None if an older version kept nothing.
    """

    key: dict[str, Any]
    problems: Sequence[tuple[str, str]]
    notes: Sequence[str] | None
    scores: list[Scores]
    report_data: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "key": self.key,
            "problems": list(self.problems),
            "notes": list(self.notes or ()),
            "scores": [one.record() for one in self.scores],
            "evidence": self.report_data,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """Undo `as_json`.

        Raises
        ------
        ValueError, KeyError, TypeError or AttributeError
            If the values are no record's.
        """
        key = values["key"]
        return cls(
            {
                "config": dict(key["config"]),
                "files": key["files"],
                "labels": key.get("labels", ""),
            },
            [(str(name), str(why)) for name, why in values["problems"]],
            [str(note) for note in values["notes"]] if "notes" in values else None,
            [Scores.from_record(one) for one in values["scores"]],
            dict(values["evidence"]) if values.get("evidence") else None,
        )

    def repeat(self, on_error: OnError, on_note: OnNote) -> None:
        """Report again what was reported when the category was evaluated."""
        for name, why in self.problems:
            on_error(name, why)
        for note in self.notes or ():
            on_note(note)


def key_of(
    config: Mapping[str, Any], files: Sequence[Path], labels: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what scores depend on: as long as it is the same, they need not be found anew.

    Parameters
    ----------
    config : mapping
        All options and versions; JSON values.
    files : sequence of Path
        All files that are read. Their paths, sizes and times of change count.
    labels : sequence of str
        What the test images are, where the files' places do not say.
    """
    text = json.dumps(list(labels))
    return {
        "config": dict(config),
        "files": _digest(files),
        "labels": hashlib.sha256(text.encode()).hexdigest() if labels else "",
    }


def difference(old: Mapping[str, Any], new: Mapping[str, Any], outputs: Iterable[Path]) -> str:
    """Return why a record of one key does not serve another; empty if it does.

    `outputs` are the files that came with the record, which must still be there.
    """
    was, now = _flat(old["config"]), _flat(new["config"])
    changes = [
        f"{name} was {was.get(name, 'not set')} and is now {now.get(name, 'not set')}"
        for name in dict.fromkeys([*was, *now])
        if was.get(name) != now.get(name)
    ]
    if old["files"] != new["files"]:
        changes.append("its files have changed")
    elif old["labels"] != new["labels"]:
        changes.append("the labels of its images have changed")
    changes += [f"{path} is gone" for path in outputs if not path.exists()]
    return ", ".join(changes)


def _digest(files: Sequence[Path]) -> str:
    """Return a digest of the files' paths, sizes and times of change."""
    digest = hashlib.sha256()
    for path in files:
        try:
            status = path.stat()
            line = f"{path.absolute()}\0{status.st_size}\0{status.st_mtime_ns}\n"
        except OSError:
            line = f"{path.absolute()}\0gone\n"
        digest.update(os.fsencode(line))
    return digest.hexdigest()


def _flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Return settings by name as text, those of nested mappings by name, too."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{name} {inner}": text for inner, text in _flat(value).items()}
        else:
            flat[name] = "none" if value is None else str(value)
    return flat
