"""Which patches of a level are stored, and where in an image's input each of them lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..images import Framing
from ..types import Floats, Ids, Mask

Sample = TypeVar("Sample", np.float32, np.int64)


@dataclass(frozen=True)
class Layout:
    """A level's grid of patches, over all of an image's input, and its parts.

    An input is seen in one part, or in several: tiles. Of each part so many patches are stored
    as are looked at in the part that has most of them; a part that has fewer has the patches
    next to these beside them. A row of the level is patch `row % patches` of part
    `row // patches % parts` of image `row // patches // parts`.

    Attributes
    ----------
    part : (int, int)
        Height and width of a part in patches.
    grid : (int, int)
        Height and width of the input in patches.
    corners : tuple of (int, int)
        The top and left of each part in the grid.
    looked_at : bool [H, W] or None
        Which patches of the grid are looked at in part or whole; None if all are.
    """

    part: tuple[int, int]
    grid: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    looked_at: Mask | None = None

    @property
    def parts(self) -> int:
        """Parts of an input."""
        return len(self.corners)

    @property
    def patches(self) -> int:
        """Stored patches of a part."""
        return self.part[0] * self.part[1] if self._kept is None else self._kept.shape[1]

    @cached_property
    def _kept(self) -> Ids | None:
        """The stored patches of each part by their places in it, ascending, [parts, patches]."""
        if self.looked_at is None:
            return None
        height, width = self.part
        own = [self.looked_at[y : y + height, x : x + width] for y, x in self.corners]
        most = max(int(one.sum()) for one in own)
        return np.stack([np.sort(_nearest_to(one)[:most]) for one in own])

    def counted(self, part: int) -> Mask:
        """Return which stored patches of a part are looked at, [patches]."""
        if self.looked_at is None or self._kept is None:
            return np.ones(self.patches, bool)
        (height, width), (y, x) = self.part, self.corners[part]
        counted: Mask = self.looked_at[y : y + height, x : x + width].ravel()[self._kept[part]]
        return counted

    @cached_property
    def _at(self) -> Ids:
        """For each patch of each part its place among the stored ones, or -1, [parts, h * w]."""
        assert self._kept is not None
        at = np.full((self.parts, self.part[0] * self.part[1]), -1)
        np.put_along_axis(at, self._kept, np.arange(self.patches)[None], axis=1)
        return at

    def stored(self, values: Tensor, parts: Sequence[int]) -> Tensor:
        """Return the stored patches of some parts, [b, patches, C], out of all, [b, h, w, C]."""
        flat = values.flatten(1, 2)
        if self._kept is None:
            return flat
        rows = self._on(flat.device)[0]
        rows = rows.expand(len(flat), -1) if self.parts == 1 else rows[list(parts)]
        return flat.gather(1, rows[..., None].expand(-1, -1, flat.shape[-1]))

    def spread(self, values: Tensor, missing: float) -> Tensor:
        """Return the grids [b, H, W] of images that are seen in one part, out of [b, patches].

        Patches that are not looked at get what is `missing`.
        """
        assert self.parts == 1 and self.grid == self.part
        if self._kept is None or self.looked_at is None:
            return values.view(-1, *self.grid)
        kept, looked = self._on(values.device)
        every = values.new_full((len(values), self.grid[0] * self.grid[1]), missing)
        grids: Tensor = every.scatter_(1, kept.expand(len(values), -1), values)
        return torch.where(looked, grids.view(-1, *self.grid), missing)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the stored patches and those that are looked at, on a device; kept."""
        if device not in self._there:
            assert self._kept is not None and self.looked_at is not None
            self._there[device] = (
                torch.from_numpy(self._kept).to(device),
                torch.from_numpy(self.looked_at).to(device),
            )
        return self._there[device]

    @cached_property
    def _there(self) -> dict[torch.device, tuple[Tensor, Tensor]]:
        return {}

    def join(self, values: npt.NDArray[Sample], missing: float) -> npt.NDArray[Sample]:
        """Return what each patch of the grid has, out of what all parts' stored patches have.

        Where parts overlap, floats fade into each other; of other values, the part counts in
        which the patch lies farther from the border.

        Parameters
        ----------
        values : [parts, patches], of an image
        missing : float
            What patches get that are not looked at.

        Returns
        -------
        [H, W]
        """
        height, width = self.part
        if self._kept is not None:
            every = np.full((self.parts, height * width), missing, values.dtype)
            np.put_along_axis(every, self._kept, values, axis=1)
            values = every
        values = values.reshape(self.parts, height, width)
        joined = values[0] if self.parts == 1 and self.grid == self.part else self._merged(values)
        if self.looked_at is not None:
            joined = np.where(self.looked_at, joined, values.dtype.type(missing))
        return joined

    def _merged(self, values: npt.NDArray[Sample]) -> npt.NDArray[Sample]:
        fades = np.issubdtype(values.dtype, np.floating)
        height, width = self.part
        inner = _distance_inwards(height, width)
        weights: Floats = np.zeros(self.grid, np.float32)
        joined = np.zeros(self.grid, values.dtype)
        for (y, x), own in zip(self.corners, values, strict=True):
            here = np.s_[y : y + height, x : x + width]
            if fades:
                joined[here] += own * inner
                weights[here] += inner
            else:
                more = inner > weights[here]
                joined[here] = np.where(more, own, joined[here])
                weights[here] = np.maximum(weights[here], inner)
        if fades:
            np.divide(joined, weights, out=joined, where=weights > 0)
        return joined

    def place(self, row: int) -> tuple[int, int, int]:
        """Return the image that a row of the level is of, and its line and column in the grid."""
        unit, at = divmod(row, self.patches)
        image, part = divmod(unit, self.parts)
        patch = at if self._kept is None else int(self._kept[part, at])
        y, x = divmod(patch, self.part[1])
        return image, self.corners[part][0] + y, self.corners[part][1] + x

    def nearest_looked_at(self, line: int, column: int) -> tuple[int, int]:
        """Return the line and column of the patch next to one of the grid that is looked at."""
        if self.looked_at is None or self.looked_at[line, column]:
            return line, column
        lines, columns = np.nonzero(self.looked_at)
        at = int(np.argmin((lines - line) ** 2 + (columns - column) ** 2))
        return int(lines[at]), int(columns[at])

    def beside(self, rows: Ids, down: int, right: int) -> Ids:
        """Return the patches that lie so far from some in their own parts, both rows of the level.

        Beyond the border it is the patch at it; of one that is not stored, the patch itself.
        """
        height, width = self.part
        unit, at = np.divmod(rows, self.patches)
        patch = at if self._kept is None else self._kept[unit % self.parts, at]
        y, x = np.divmod(patch, width)
        there = np.clip(y + down, 0, height - 1) * width + np.clip(x + right, 0, width - 1)
        if self._kept is not None:
            there = self._at[unit % self.parts, there]
            there = np.where(there < 0, at, there)
        found: Ids = unit * self.patches + there
        return found


@lru_cache(64)
def layout_of(framing: Framing, part: tuple[int, int]) -> Layout:
    """Return the layout of a level that has so many patches of a part that is seen at once."""
    grid: tuple[int, int] = part
    corners: tuple[tuple[int, int], ...] = ((0, 0),)
    if framing.tiles:
        cells = [side // own for side, own in zip(framing.seen_at_once, part, strict=True)]
        grid = framing.size[0] // cells[0], framing.size[1] // cells[1]
        corners = tuple((top // cells[0], left // cells[1]) for top, left in framing.corners)
    looked = framing.looked_at
    return Layout(part, grid, corners, None if looked is None else _any_in_cells(looked, grid))


def _any_in_cells(looked: Mask, grid: tuple[int, int]) -> Mask:
    """Return in which cells of a grid over a mask anything is looked at."""
    rows, columns = (
        (np.arange(cells) * side // cells) for cells, side in zip(grid, looked.shape, strict=True)
    )
    found: Mask = np.logical_or.reduceat(np.logical_or.reduceat(looked, rows, 0), columns, 1)
    return found


def _nearest_to(looked: Mask) -> Ids:
    """Return all patches of a part, those that are looked at first, then by how near they are."""
    if not looked.any():
        return np.arange(looked.size)
    away = cv2.distanceTransform((~looked).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.argsort(away, axis=None, kind="stable")


def _distance_inwards(height: int, width: int) -> Floats:
    """Return how far each patch of a part lies from its border, [h, w], more than 0."""
    y, x = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5 for n in (height, width))
    inner: Floats = np.minimum(y[:, None], x).astype(np.float32)
    return inner
