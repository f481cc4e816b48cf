"""Read VisA's table of which image is for training and which for the test, as downloaded."""

from __future__ import annotations

import csv
from pathlib import Path

from ..errors import SpadeError

SPLIT = "split_csv/1cls.csv"
"""The table, one row an image, within the data set's folder."""
CATEGORIES = frozenset(
    {
        "candle",
        "capsules",
        "cashew",
        "chewinggum",
        "fryum",
        "macaroni1",
        "macaroni2",
        "pcb1",
        "pcb2",
        "pcb3",
        "pcb4",
        "pipe_fryum",
    }
)
_COLUMNS = ("object", "split", "label", "image", "mask")


def read_split(root: Path) -> dict[str, list[dict[str, str]]]:
    """Return the table's rows by category.

    A row has `split` (train or test), `label` (normal or anomaly), `image`, and the `mask` of
    an image with a defect, both as paths within `root`.

    Raises
    ------
    SpadeError
        If the table cannot be read or lacks a column.
    """
    path = root / SPLIT
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpadeError(f"{path} cannot be read as a table: {error}") from None
    categories: dict[str, list[dict[str, str]]] = {}
    for number, row in enumerate(rows, 2):
        if any(row.get(column) is None for column in _COLUMNS):
            raise SpadeError(f"{path}, row {number}: it must hold {', '.join(_COLUMNS)}")
        if Path(row["object"]).name != row["object"] or row["object"].startswith("."):
            raise SpadeError(f"{path}, row {number}: {row['object']!r} is no category's name")
        categories.setdefault(row["object"], []).append(row)
    return dict(sorted(categories.items()))
