"""Read good images and defects from any folders, or from a table of paths and labels."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import SpadeError
from ..images import SUFFIXES, Found, OnError, find_images
from .category import GOOD, Category, TestImage
from .mvtec import checked, name_unmasked
from .overlaps import without_overlaps
from .problems import BrokenError, Problems

GOOD_LABELS = frozenset({"good", "ok", "normal", "0"})
"""What a table calls a good image, in small letters; any other label is a kind of defect."""
_SPLITS = ("train", "test")
_OVER = "\0"

_Place = str | os.PathLike[str]


def load_folders(
    train: _Place,
    good: _Place,
    bad: _Place | Sequence[_Place],
    masks: _Place | None = None,
    on_error: OnError | None = None,
) -> Category:
    """List the images of folders, each searched to any depth; none is decoded.

    Parameters
    ----------
    train, good : path
        Good images to learn from, and to be judged.
    bad : path or sequence of path
        Defects. A folder in it is a kind of defect, and so is what lies in none, by the name of
        `bad` itself.
    masks : path, optional
        Masks of the defects: each has the path of its image within `bad`, with any image's
        suffix, and may end in `_mask`. Of several `bad`, each one's name comes before.
    on_error : callable, optional
        Called with (name, why) for what is broken: what `find_images` reports, an image that is
        there twice (see `spade_faiss.datasets.overlaps`), a defect without a mask, and a mask
        without an image. Without it the first of these raises SpadeError.

    Raises
    ------
    SpadeError
        If a folder is missing, holds no images, or lies in another.
    """
    many = [Path(bad)] if isinstance(bad, str | os.PathLike) else [Path(one) for one in bad]
    folders = [Path(train), Path(good), *many]
    problems = Problems(on_error)
    _check_apart([*folders, *([] if masks is None else [Path(masks)])])
    truth = None if masks is None else _Masks(Path(masks), problems)
    test = [TestImage(one.path, GOOD, ()) for one in _images(folders[1], problems)]
    for folder in many:
        for one in _images(folder, problems):
            kind = one.relative.parts[0] if len(one.relative.parts) > 1 else _name(folder)
            if kind == GOOD:
                raise SpadeError(
                    f"{one.path.parent}: a kind of defect cannot be called {GOOD}; "
                    f"name the folder with --{GOOD}, or rename it"
                )
            named = Path(_name(folder)) / one.relative if len(many) > 1 else one.relative
            test.append(TestImage(one.path, kind, truth.of(named) if truth else ()))
    learnt = tuple(one.path for one in _images(folders[0], problems))
    name = _name(Path(os.path.commonpath([path.resolve() for path in folders])))
    return _finished(
        Category(name, learnt, tuple(test), "folder"),
        truth,
        problems,
        str(train),
        str(good),
        ", ".join(map(str, many)),
    )


def load_table(
    table: _Place,
    train: _Place | None = None,
    masks: _Place | None = None,
    on_error: OnError | None = None,
) -> Category:
    """List the images of a table; none is decoded.

    Parameters
    ----------
    table : path
        A CSV file, UTF-8, with columns `path` (of an image, from the table's folder), `label`
        (one of `GOOD_LABELS`, or a kind of defect) and, unless `train` is given, `split`
        (`train` or `test`). Commas, semicolons or tabs may part its fields.
    train : path, optional
        Good images to learn from; the table's are then all to be judged.
    masks : path, optional
        As for `load_folders`, by the images' paths in the table.
    on_error : callable, optional
        As for `load_folders`; also called for a row that cannot be used, by its line.

    Raises
    ------
    SpadeError
        If the table cannot be read or lacks a column, or a folder is missing.
    """
    table, problems = Path(table), Problems(on_error)
    truth = None if masks is None else _Masks(Path(masks), problems)
    learnt = [] if train is None else [one.path for one in _images(Path(train), problems)]
    test: list[TestImage] = []
    for line, row in _rows(table, split=train is None):
        where = f"{table}, line {line}"
        try:
            kind, split = _meaning(where, row, split=train is None)
            path = table.parent / row["path"]
            if not path.is_file():
                raise BrokenError(where, f"there is no file {path}")
        except BrokenError as error:
            problems(where, error.why, "left out")
            continue
        if split == "train":
            learnt.append(path)
        else:
            named = Path(os.path.relpath(path, table.parent))
            known = truth.of(named) if truth and kind != GOOD else ()
            test.append(TestImage(path, kind, known))
    return _finished(
        Category(table.stem, tuple(learnt), tuple(test), "folder"),
        truth,
        problems,
        str(train or table),
        str(table),
        str(table),
    )


class _Masks:
    """The masks in a folder, by the paths of their images."""

    def __init__(self, folder: Path, problems: Problems) -> None:
        self.folder = folder
        self._found: dict[Path, Path] = {}
        self._images: dict[Path, Path] = {}
        for one in _images(folder, problems):
            first = self._found.setdefault(one.relative.with_suffix(""), one.path)
            if first != one.path:
                problems(one.path, f"is a mask beside {first}", "passed over")

    def of(self, image: Path) -> tuple[Path, ...]:
        """Return the mask of an image, or none.

        Raises
        ------
        SpadeError
            If it is another image's already.
        """
        stem = Path(os.path.normpath(image.with_suffix("")))
        for name in (stem.with_name(f"{stem.name}_mask"), stem):
            if mask := self._found.get(name):
                first = self._images.setdefault(mask, image)
                if first != image:
                    raise SpadeError(
                        f"{mask} would be the mask of {first} and of {image}: rename one of the two"
                    )
                return (mask,)
        return ()

    def name_unused(self, problems: Problems) -> None:
        """Report the masks that are no defect's."""
        for mask in self._found.values():
            if mask not in self._images:
                problems(mask, "is a mask without a defect", "passed over")


def _finished(
    category: Category, truth: _Masks | None, problems: Problems, train: str, good: str, bad: str
) -> Category:
    """Return a category without what should not count, and report what is broken."""
    if truth:
        truth.name_unused(problems)
        if not category.masked:
            problems(truth.folder, "holds no mask of any defect", "there are no pixel metrics")
        name_unmasked(category.test, truth.folder, problems)
    category = replace(without_overlaps(category, problems), notes=tuple(problems.notes))
    return checked(category, category.name, train, good, bad)


def _check_apart(folders: Sequence[Path]) -> None:
    """Refuse folders that are not there, and one that lies in another."""
    for folder in folders:
        if not folder.is_dir():
            raise SpadeError(
                f"{folder} is a file; name a folder"
                if folder.exists()
                else f"{folder}: no such folder"
            )
    places = [folder.resolve() for folder in folders]
    for at, one in enumerate(places):
        for other, within in enumerate(places):
            if at != other and within.is_relative_to(one):
                raise SpadeError(
                    f"{folders[other]} lies in {folders[at]}, so its images would be "
                    "both: name folders of which none holds another"
                )


def _images(folder: Path, problems: Problems) -> list[Found]:
    def complain(name: str, why: str) -> None:
        problems(name, why, "left out")

    found = find_images([folder], complain, on_note=problems.notes.append)
    if not found:
        raise SpadeError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    return found


def _name(folder: Path) -> str:
    return folder.resolve().name or "folder"


def _rows(table: Path, *, split: bool) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield each row of a table, and the number of its line; what is over is under _OVER."""
    try:
        text = table.read_text("utf-8-sig")
        head = text.split("\n", 1)[0]
        rows = csv.DictReader(
            io.StringIO(text, newline=""),
            restkey=_OVER,
            strict=True,
            delimiter=max(",;\t", key=head.count),
        )
        names = rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or ()]
        for column in ("path", "label", *(["split"] if split else [])):
            if column not in names:
                more = "; add it (train or test), or name `train`" if column == "split" else ""
                raise SpadeError(
                    f"{table} has no column {column}, but {', '.join(names) or 'none'}{more}"
                )
        for row in rows:
            yield rows.line_num, {name: str(value or "").strip() for name, value in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SpadeError(f"{table} cannot be read as a table: {why}") from None


def _meaning(where: str, row: Mapping[str, str], *, split: bool) -> tuple[str, str]:
    """Return the kind of a row's image, and whether it is for train or test.

    Raises
    ------
    BrokenError
        If the row does not say.
    """
    label, part = row["label"], row["split"].lower() if split else "test"
    if _OVER in row:
        raise BrokenError(
            where, "it has more fields than the first line; quote a path that holds a comma"
        )
    if not row["path"] or not label:
        raise BrokenError(where, f"it has no {'label' if row['path'] else 'path'}")
    kind = GOOD if label.lower() in GOOD_LABELS else label
    if part not in _SPLITS:
        raise BrokenError(where, f"its split is {part!r} and must be train or test")
    if part == "train" and kind != GOOD:
        raise BrokenError(where, f"it is to be learnt from and labelled {label!r}, a defect")
    return kind, part
