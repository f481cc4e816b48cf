"""How large an index will be, before it is made."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from .._support.memory import human
from ..errors import SpadeError
from ..images import Framing
from .flat_file import header_of
from .layout import layout_of


def patches_of(framing: Framing, shapes: Sequence[tuple[int, int, int]]) -> int:
    """Return how many patches of an image are stored, of levels of shapes (h, w, C)."""
    layouts = [layout_of(framing, (height, width)) for height, width, _ in shapes]
    return sum(layout.parts * layout.patches for layout in layouts)


def bytes_of(
    framing: Framing,
    descriptor_size: int,
    shapes: Sequence[tuple[int, int, int]],
    images: int,
    *,
    half: bool,
    normal_distances: bool,
) -> int:
    """Return how many bytes an index's data files have, but for those of galleries.

    Parameters
    ----------
    framing : Framing
    descriptor_size : int
    shapes : sequence of (h, w, C)
        The pyramid's levels, of what the network sees at once.
    images : int
    half : bool
        Whether patches are kept as float16.
    normal_distances : bool
        Whether they are kept, too.
    """
    units = images * len(framing.corners)
    total = len(header_of(descriptor_size)) + units * descriptor_size * 4
    for height, width, channels in shapes:
        layout = layout_of(framing, (height, width))
        rows = images * layout.parts * layout.patches
        total += len(header_of(channels, half=half)) + rows * channels * (2 if half else 4)
        total += rows * 3 * 4 if normal_distances else 0
    height, width = (side + 2 * framing.margin for side in framing.size)
    return total + images * height * width * 3


def check_room(folder: Path, needed: int) -> None:
    """Refuse what a folder's disk has no room for.

    Raises
    ------
    SpadeError
        If fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SpadeError(
            f"{folder}: the index needs {human(needed)}, and its disk has {human(free)} left: "
            "make room, name another disk, or take fewer images"
        )
