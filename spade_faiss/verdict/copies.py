"""Which good images show the same part: copies, near-copies and further shots of it.

An image that is scored against the others, to learn how good parts score, must not find itself
among them. A copy saved again, a second shot, or a video's stuck frame is itself, but for noise.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..types import Doubles, Floats, Ids

Copies = tuple[Ids, ...]
"""For each image, the other images that show the same part, ascending."""

CANDIDATES = 50
"""Nearest images, by descriptor, among which copies are sought."""
STEP = 0.7
"""Further shots are nearer than this share of the distance of the nearest other part."""
SHOTS = 9
"""Further shots of one part that are told from a kind of part of its own."""
IDENTICAL = 0.1
"""More than so many are copies only within this share of that distance."""


def find_copies(distances: Floats, images: Ids) -> Copies:
    """Find for each image the others that show the same part.

    The distances of one image to others have no scale that is known beforehand: noise, JPEG and
    the parts themselves set it. So they are compared with each other. Other parts follow each
    other closely: of seven kinds of parts, the next nearest is at most 1.2 times as far as the
    nearest. Further shots with noise of 2 grey levels, a shift of 2 pixels, or another light, and
    copies saved as JPEG, stand before a step: the next is 1.4 times as far as they are, or more.

    Up to `SHOTS` images before such a step are further shots. More may be a kind of part of its
    own, of several kinds in a folder, which must not be left out as a whole; they are copies
    only where the step is that of identical images.

    Parameters
    ----------
    distances : float32 [n, m], 0 or more
        Of each image to its nearest others, in any order; inf for none.
    images : int64 [n, m]
        The places of these others.

    Returns
    -------
    tuple of int64 arrays, n long
        If one image is a copy of another, so is that of the first. At least one other image is
        left of those that an image was compared with.
    """
    found: list[set[int]] = [set() for _ in distances]
    for i, (row, others) in enumerate(zip(distances, images, strict=True)):
        order = np.argsort(row, kind="stable")
        near, beyond = row[order[:-1]], row[order[1:]]
        few = np.arange(len(near)) < SHOTS
        steps = np.flatnonzero(
            (near <= np.where(few, STEP, IDENTICAL) * beyond) & np.isfinite(beyond)
        )
        for j in others[order[: steps[-1] + 1 if len(steps) else 0]].tolist():
            found[i].add(j)
            found[j].add(i)
    return tuple(np.array(sorted(one), np.int64) for one in found)


def to_pairs(copies: Copies) -> tuple[tuple[int, int], ...]:
    """Return copies as a manifest keeps them: pairs of places, the lower first."""
    return tuple((i, j) for i, some in enumerate(copies) for j in some.tolist() if i < j)


def from_pairs(pairs: Iterable[tuple[int, int]], images: int) -> Copies:
    """Return what `to_pairs` was made of, for so many images."""
    found: list[list[int]] = [[] for _ in range(images)]
    for i, j in pairs:
        found[i].append(j)
        found[j].append(i)
    return tuple(np.array(sorted(one), np.int64) for one in found)


def copy_weights(copies: Copies) -> Doubles:
    """Return for how many independent images each of n stands, [n]: 1 / (1 + its copies).

    Their sum is the number of parts, where copies of copies are copies.
    """
    return 1 / (1 + np.array([len(one) for one in copies], np.float64))


def copy_groups(copies: Copies) -> list[list[int]]:
    """Return the images that show one part, a list for each part that is shown several times."""
    seen: set[int] = set()
    joined = []
    for i in range(len(copies)):
        if i in seen or not len(copies[i]):
            continue
        group, todo = set(), [i]
        while todo:
            if (j := todo.pop()) not in group:
                group.add(j)
                todo += copies[j].tolist()
        seen |= group
        joined.append(sorted(group))
    return joined
