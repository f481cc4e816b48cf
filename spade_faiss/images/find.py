"""Find image files in folders."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from stat import S_ISDIR

from ..errors import SpadeError
from .source import OnError, OnNote, report_note

SUFFIXES = frozenset(
    {
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".webp",
    }
)
"""What the names of image files end in, in small letters."""
_BESIDE = frozenset(
    {
        ".aae",
        ".cfg",
        ".css",
        ".csv",
        ".htm",
        ".html",
        ".ini",
        ".ipynb",
        ".js",
        ".json",
        ".jsonl",
        ".log",
        ".md",
        ".md5",
        ".py",
        ".rst",
        ".sh",
        ".sha256",
        ".toml",
        ".tsv",
        ".txt",
        ".xls",
        ".xlsx",
        ".xml",
        ".xmp",
        ".yaml",
        ".yml",
    }
)
_BESIDE_BY_NAME = frozenset(
    {
        "authors",
        "changelog",
        "copying",
        "ehthumbs.db",
        "licence",
        "license",
        "makefile",
        "md5sums",
        "notice",
        "readme",
        "sha256sums",
        "thumbs.db",
    }
)
_NAMED = 3
"""Files that a line names, of those that were passed over."""

_Identity = tuple[int, int]


@dataclass(frozen=True)
class Found:
    """An image file; `relative` is its path within `folder`, if a folder was searched for it."""

    path: Path
    relative: Path
    folder: Path | None


def find_images(
    arguments: Iterable[str | os.PathLike[str]],
    on_error: OnError,
    suffixes: Collection[str] = SUFFIXES,
    on_note: OnNote | None = None,
) -> list[Found]:
    """Return the image files that the arguments name, folders searched to any depth.

    Files of one folder are in sorted order, then come its sub-folders; folders that a link leads
    to come last, and none that was searched already. Hidden files are passed over, and so is what
    has none of the suffixes. A named file is taken whatever its suffix: decoding will tell.

    Parameters
    ----------
    arguments : iterable of path
    on_error : callable
        Called with (name, why) for a folder that cannot be read and for a link that leads nowhere.
    suffixes : collection of str
    on_note : callable, optional
        Called with one line if files were passed over that may be images for all their names tell.
        Without it a Python warning is issued.

    Raises
    ------
    SpadeError
        If a named file or folder does not exist.
    """
    paths = [(Path(argument), _status(Path(argument))) for argument in arguments]
    search = _Search(on_error, suffixes)
    search.seen.update(_identity(status) for _, status in paths if S_ISDIR(status.st_mode))
    parts: list[list[Found]] = []
    linked: list[tuple[Path, deque[Path], list[Found]]] = []
    for path, status in paths:
        if S_ISDIR(status.st_mode):
            links: deque[Path] = deque()
            parts.append(list(search.below(path, path, links)))
            linked.append((path, links, parts[-1]))
        else:
            parts.append([Found(path, Path(path.name), None)])
    for root, links, part in linked:  # when all that has a name of its own was searched
        part += search.behind(root, links)
    if search.passed:
        report_note(on_note, passed_over(search.passed))
    return list(chain.from_iterable(parts))


def may_be_image(path: Path) -> bool:
    """Say whether a file of any suffix may be an image: it is not hidden, nor text, nor a table."""
    return not (
        path.name.startswith(".")
        or path.suffix.lower() in _BESIDE
        or path.name.lower() in _BESIDE_BY_NAME
    )


def passed_over(files: Sequence[Path]) -> str:
    """Return the line that says which files were not read because of their names."""
    names = ", ".join(map(str, files[:_NAMED]))
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    many, they = ("files", "they are") if len(files) > 1 else ("file", "it is")
    return (
        f"passed over {len(files)} {many} of no kind that is read, by the name: {names}{more}; "
        f"convert or rename what is an image, if {they} to count"
    )


@dataclass
class _Search:
    """Walks folders; `seen` are those that no link is followed to, `passed` files left out."""

    on_error: OnError
    suffixes: Collection[str]
    seen: set[_Identity] = field(default_factory=set)
    passed: list[Path] = field(default_factory=list)

    def behind(self, root: Path, links: deque[Path]) -> Iterator[Found]:
        """Yield the images under the folders that links lead to, unless these were searched."""
        while links:
            link = links.popleft()
            if self._is_new(link):
                yield from self.below(root, link, links, linked=True)

    def below(
        self, root: Path, top: Path, links: deque[Path], *, linked: bool = False
    ) -> Iterator[Found]:
        """Yield the images under a folder, but not behind links, which are put on a list."""
        waiting = [os.fspath(top)]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
                self.seen.add(_identity(Path(folder).stat()))
            except OSError as error:
                self.on_error(folder, f"cannot be searched for images: {error.strerror}")
                continue
            below: list[str] = []
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not _is_folder(entry):
                    if self._is_image(entry):
                        path = Path(entry.path)
                        yield Found(path, path.relative_to(root), root)
                elif self._has_suffix(entry.name):
                    self.on_error(entry.path, "is a folder with a file's name; rename it")
                elif entry.is_symlink():
                    links.append(Path(entry.path))
                elif not linked or self._is_new(entry):
                    below.append(entry.path)
            waiting += reversed(below)

    def _has_suffix(self, name: str) -> bool:
        return Path(name).suffix.lower() in self.suffixes

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        """Say whether a file is an image by its name; keep account of what is not."""
        if self._has_suffix(entry.name):
            return True
        if may_be_image(Path(entry.name)):
            try:
                entry.stat()
                self.passed.append(Path(entry.path))
            except OSError as error:
                self.on_error(
                    entry.path,
                    f"is a link that leads nowhere ({error.strerror}); mend or remove it",
                )
        return False

    def _is_new(self, folder: Path | os.DirEntry[str]) -> bool:
        """Say whether a folder was not searched yet; one that cannot be looked at is new."""
        try:
            return _identity(folder.stat()) not in self.seen
        except OSError:
            return True


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise SpadeError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise SpadeError(f"{path}: cannot be read: {error.strerror}") from None


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself
        return False
