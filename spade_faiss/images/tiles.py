"""Overlapping squares that cover a picture, which a network sees one by one."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SpadeError

OVERLAP = 0.125
"""The least overlap of two neighbours, as a share of a tile's side, where none is asked for.

But a whole unit at least: with none, scores of a flaw vary by 3 % where tiles of 128 pixels meet.
"""


@dataclass(frozen=True)
class Tiles:
    """How a picture is cut.

    Attributes
    ----------
    side : int
        Pixels a side of a tile.
    overlap : int
        Pixels that neighbours share, at least.
    unit : int
        Pixels of which all places are multiples: a patch of the network's coarsest level.
    picture : (int, int)
        Height and width of the picture in pixels, as it is cut.
    """

    side: int
    overlap: int
    unit: int
    picture: tuple[int, int]

    @classmethod
    def choose(cls, side: int, overlap: int | None, unit: int, picture: tuple[int, int]) -> Tiles:
        """Return the tiles of pictures of a height and width.

        Parameters
        ----------
        side : int
        overlap : int, optional
            By default an eighth of the side, in whole units, one at least.
        unit : int
        picture : (int, int)

        Raises
        ------
        SpadeError
            If a tile is larger than the picture, or no whole number of units, or all overlap.
        """
        low = side // unit * unit
        if side % unit or side < 2 * unit:
            near = ", or ".join(str(one) for one in (low, low + unit) if one >= 2 * unit)
            raise SpadeError(
                f"`tile={side}` must be a multiple of the network's patches of {unit} pixels: "
                f"take {near or 2 * unit}"
            )
        if side > min(picture):
            raise SpadeError(
                f"`tile={side}` is larger than the picture, {picture[1]}x{picture[0]} pixels: "
                "take smaller tiles, or none"
            )
        if overlap is None:
            overlap = max(1, round(side * OVERLAP / unit)) * unit
        if not 0 <= overlap <= side - unit:
            raise SpadeError(
                f"`overlap={overlap}` must lie between 0 and {side - unit} pixels for tiles of "
                f"{side}"
            )
        return cls(side, overlap, unit, picture)

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of what the tiles cover: the picture, and less than a unit more."""
        height, width = (-(-side // self.unit) * self.unit for side in self.picture)
        return height, width

    def corners(self) -> tuple[tuple[int, int], ...]:
        """Return the top and left of each tile in the canvas, row by row."""
        rows, columns = (self._starts(side) for side in self.canvas)
        return tuple((top, left) for top in rows for left in columns)

    def _starts(self, length: int) -> list[int]:
        """Return where tiles begin along a side: as few as suffice, evenly spread."""
        room = length - self.side
        step = (self.side - self.overlap) // self.unit * self.unit
        count = -(-room // step) if room else 0
        starts = [room * i // (count * self.unit) * self.unit for i in range(count)]
        return [*starts, room]
