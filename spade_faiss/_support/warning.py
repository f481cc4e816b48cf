"""What should be known of images that are read, but not whole or not well."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


class ImageWarning(UserWarning):
    """Says of which images not all is read, or few grey levels are left."""


class Notes:
    """Gathers what is noted of each image, so that it is said once for a batch."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, text: str) -> None:
        """Keep a note of the image `name`."""
        self._names.setdefault(text, []).append(name)

    def issue(self) -> None:
        """Issue an `ImageWarning` for each kind of note, with the images that it is of."""
        for text, names in self._names.items():
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            warnings.warn(f"{names[0]}{others}: {text}", ImageWarning, stacklevel=2)
        self._names.clear()


@contextmanager
def notes_to(on_note: Callable[[str], object], *, pass_on: bool = False) -> Iterator[None]:
    """Within a `with` block, give the text of each `ImageWarning` to `on_note`, once.

    Each member of an ensemble may read the same images, and note the same. With `pass_on` a text
    is also shown as it would be without. Only one thread may use this at a time, as
    `warnings.catch_warnings` says.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", ImageWarning)
        shown = warnings.showwarning
        said: set[str] = set()

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            ours = issubclass(category, ImageWarning)
            if ours:
                if str(message) in said:
                    return
                said.add(str(message))
                on_note(str(message))
            if pass_on or not ours:
                shown(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
