"""Images as they were sent: kept while there is room, and those called good for ever."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Container
from pathlib import Path

from .._support.files import link_or_copy, sync_folder
from ..errors import SpadeError
from ..images import image_format
from .past import Past

_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "WEBP": "webp", "TIFF": "tiff"}
_LONGEST = 40
"""Characters of a client's file name that a file keeps."""


class SentImages:
    """Files in two folders of a history's: `images`, and `good/<index>`.

    Parameters
    ----------
    folder : Path
        Of the history.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images = folder / "images"
        self._images.mkdir(parents=True, exist_ok=True)

    def keep(self, data: bytes | bytearray) -> str:
        """Keep an image, and return its file's name.

        Raises
        ------
        SpadeError
            If it cannot be written.
        """
        name = f"{secrets.token_hex(8)}.{_SUFFIXES[image_format(data) or 'PNG']}"
        try:
            (self._images / name).write_bytes(data)
        except OSError as error:
            (self._images / name).unlink(missing_ok=True)
            raise SpadeError(
                f"{self._folder} cannot be written: {error.strerror or error}"
            ) from None
        return name

    def forget(self, name: str) -> None:
        """Remove an image."""
        (self._images / name).unlink(missing_ok=True)

    def size(self, name: str) -> int:
        """Return the bytes of an image."""
        return (self._images / name).stat().st_size

    def sweep(self, known: Container[str]) -> None:
        """Remove images but those that are known.

        Others are of a process that was killed, which kept them for results that it never had.
        """
        for path in self._images.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)

    def keep_good(self, past: Past) -> str:
        """Keep the image of a result among the good ones, and return its file within `good`.

        Raises
        ------
        SpadeError
            If the image is kept no more, or it cannot be written.
        """
        if past.image is None and past.good is None:
            raise SpadeError(f"the image of result {past.id} is kept no more: send it again")
        good = past.good or f"{past.index}/{_file_name(past)}"
        place = self.good_place(good)
        try:
            if past.image is not None and not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(self._images / past.image, place)
                with place.open("rb+") as file:
                    os.fsync(file.fileno())
                sync_folder(place.parent)
        except OSError as error:
            raise SpadeError(f"{place} cannot be written: {error.strerror or error}") from None
        return good

    def good_place(self, good: str) -> Path:
        """Return where a good image's file is."""
        return self._folder / "good" / good

    def read(self, past: Past) -> bytes:
        """Return a result's image.

        Raises
        ------
        SpadeError
            If it is kept no more.
        """
        for name in (past.good and f"good/{past.good}", past.image and f"images/{past.image}"):
            try:
                if name:
                    return (self._folder / name).read_bytes()
            except OSError:
                continue
        raise SpadeError(f"the image of result {past.id} is kept no more: send it again")


def _file_name(past: Past) -> str:
    """Return what a good image's file is called: by what the client called it, and like no other.

    Indices know their images by such names.
    """
    assert past.image is not None
    token, suffix = past.image.split(".")
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(past.name).stem)[:_LONGEST].strip("-")
    return f"{past.id}-{token[:8]}-{plain or 'image'}.{suffix}"
