"""Find the images that are in a data set more than once, and so flatter or contradict it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .category import Category
from .problems import Problems


def overlaps(category: Category) -> dict[int, str]:
    """Return which images should not count, each with why; images are told by their bytes.

    An image that was learnt from says nothing of new ones. One that is good here and a defect
    there is wrong in one of the two places, and nobody knows in which, so that no copy of it
    should count. Of an image that is tested twice, the first should. Training images may be
    repeated among themselves.

    Returns
    -------
    dict of int to str
        By place: the training images are counted first, then the test images.
    """
    learnt = len(category.train)
    paths = [*category.train, *(test.path for test in category.test)]
    wrong = [False] * learnt + [test.wrong for test in category.test]
    found: dict[int, str] = {}
    for places in _same_bytes(paths):
        first = places[0]
        if len({wrong[at] for at in places}) == 2:
            for at in places:
                other = next(one for one in places if wrong[one] != wrong[at])
                said = "a defect and is good" if wrong[at] else "good and is a defect"
                found[at] = f"is given as {said} as {paths[other]}"
            continue
        for at in places:
            if at >= learnt and at != first:
                said = "is learnt from" if first < learnt else "is tested"
                found[at] = f"{said} as {paths[first]}, too"
    return found


def without_overlaps(category: Category, problems: Problems) -> Category:
    """Return a category without the images that should not count; each is reported."""
    found = overlaps(category)
    paths = [*category.train, *(test.path for test in category.test)]
    for at in sorted(found):
        problems(paths[at], found[at], "left out")
    learnt = len(category.train)
    return replace(
        category,
        train=tuple(path for at, path in enumerate(category.train) if at not in found),
        test=tuple(test for at, test in enumerate(category.test, learnt) if at not in found),
    )


def _same_bytes(paths: Sequence[Path]) -> Iterator[list[int]]:
    """Yield the places of files that have the same bytes, two or more at a time.

    Files are read only if another has their size.
    """
    by_size: dict[int, list[int]] = {}
    for at, path in enumerate(paths):
        try:
            by_size.setdefault(path.stat().st_size, []).append(at)
        except OSError:
            continue  # it is reported when it is decoded
    for places in by_size.values():
        by_digest: dict[str, list[int]] = {}
        for at in places if len(places) > 1 else ():
            try:
                with paths[at].open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                continue
            by_digest.setdefault(digest, []).append(at)
        yield from (same for same in by_digest.values() if len(same) > 1)
