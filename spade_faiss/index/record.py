"""Records: JSON files with their own checksum, that are checked whenever they are read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .._support.files import replace_file
from ..errors import SpadeError

Record = TypeVar("Record", bound=BaseModel)


class Data(BaseModel):
    """A part of a record: it checks its fields, cannot be changed, and refuses unknown keys."""

    # Keys in files, and in what `info --json` prints, stay where names have changed: by aliases.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True
    )


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Put a JSON object in place at once, synced, with its own checksum.

    Of a path that is no Unicode, JSON keeps the bytes as Python does, as lone surrogates; pydantic
    would not.
    """
    data = json.loads(json.dumps(record))
    data = {"sha256": _digest(data), **data}
    replace_file(path, (json.dumps(data, indent=1) + "\n").encode(), sync=True)


def read_record(model: type[Record], path: Path, form: str, versions: tuple[int, ...]) -> Record:
    """Read what `write_record` wrote, and check its checksum, its format, and its contents.

    Raises
    ------
    SpadeError
        If the file is missing, or damaged, or of another version.
    """
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise SpadeError(
            f"{path.parent} holds no index (no {path.name}); make one with: "
            f"`fit(images, index='{path.parent}')`"
        ) from None
    except OSError as error:
        raise SpadeError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise SpadeError(f"{path} is damaged; build the index again") from None
    if not isinstance(record, dict) or record.get("format") != form:
        raise SpadeError(f"{path} is not the manifest of a {form}, or is damaged")
    expected = record.pop("sha256", None)
    known = record.get("version") in versions
    if known and expected != _digest(record):
        raise SpadeError(f"{path} is damaged (its checksum differs); build the index again")
    if not known:
        raise SpadeError(
            f"{path} is of version {record.get('version')} and this program reads versions "
            f"{' and '.join(map(str, versions))}; build the index again or install a matching "
            "spade-faiss"
        )
    try:
        return model.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpadeError(f"{path} is not valid: {where}: {first['msg']}") from None


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(record: object) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
