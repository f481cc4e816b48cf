"""What a detector needs to be opened in another process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import SpadeError


def absolute(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters whose paths do not depend on where a process works."""
    paths = {
        name: os.path.abspath(params[name])  # noqa: PTH100 - it is as it was given, `..` and all
        for name in ("weights", "region")
        if isinstance(params[name], str | os.PathLike)
    }
    return {**params, **paths}


@contextmanager
def still_there(folder: Path, *, temporary: bool) -> Iterator[None]:
    """Say of a folder that is gone why that may be, if it was a temporary one."""
    try:
        yield
    except SpadeError:
        if temporary and not folder.is_dir():
            raise SpadeError(
                "the index was a temporary one, and went with the detector that was fitted: keep "
                "that one for as long, or fit it with a folder as its `index`"
            ) from None
        raise
