"""Which framing suits most of some images, whole or in tiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..errors import SpadeError
from .framing import Framing
from .tiles import Tiles


def framing_of_most(resize: int, crop: int | None, sizes: Iterable[tuple[int, int]]) -> Framing:
    """Return the framing that most images of these heights and widths ask for.

    Of equally many, that of the image that comes first; of none, a square. Raises what
    `Framing.choose` raises.
    """
    wanted = Counter(Framing.choose(resize, crop, size) for size in sizes)
    return wanted.most_common(1)[0][0] if wanted else Framing.choose(resize, crop, (1, 1))


def tiled_framing(
    side: int,
    overlap: int | None,
    unit: int,
    resize: int | None,
    sizes: Iterable[tuple[int, int]],
) -> Framing:
    """Return the framing by tiles for most images of some heights and widths.

    Parameters
    ----------
    side, overlap, unit
        As `Tiles.choose` takes them.
    resize : int, optional
        Length that the shorter side is brought to; by default the images are cut as they are.
    sizes : iterable of (int, int)

    Raises
    ------
    SpadeError
        If there are none, `resize` would enlarge them, or as `Tiles.choose` does.
    """
    wanted = Counter(sizes)
    if not wanted:
        raise SpadeError("none of the images can be used")
    height, width = wanted.most_common(1)[0][0]
    shorter = min(height, width)
    if resize is not None and resize > shorter:
        raise SpadeError(
            f"`resize={resize}` would enlarge pictures of {width}x{height} pixels: "
            f"take {shorter} or less"
        )
    scale = 1.0 if resize is None else resize / shorter
    tiles = Tiles.choose(side, overlap, unit, (round(height * scale), round(width * scale)))
    return Framing(min(tiles.picture), tiles.canvas, False, tiles=tiles)
