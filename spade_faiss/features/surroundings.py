"""Patches in their surroundings: margins that are cut off, and levels of averaged patches.

At an image's border a network sees padding, and good patches look strange there. So it is shown a
margin around what counts, and its features are cut. What is larger than a patch shows in averages
of patches (Roth et al., *Towards total recall in industrial anomaly detection*, CVPR 2022), which
are levels of their own beside those that they are made of.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ..errors import SpadeError

_ROUNDED = 0.3
"""Of a patch: more than a count of patches is off by that was rounded."""


def without_margin(
    levels: Sequence[Tensor], size: tuple[int, int], margin: int, *, averaged: bool
) -> tuple[Tensor, ...]:
    """Return levels without the patches of a margin, then their averages if these are wanted.

    A level whose next is half as fine is averaged over 4 x 4 patches, two apart, which is that
    one's grid; any other over 3 x 3, on its own. At the border of what the network saw, patches
    are repeated.

    Parameters
    ----------
    levels : sequence of float32 tensors [B, h, w, C]
        From the finest to the coarsest, of images with the margin.
    size : (int, int)
        Height and width of the images without it.
    margin : int
        Pixels on each side, a whole number of patches of each level.
    averaged : bool

    Returns
    -------
    tuple of float32 tensors [B, h, w, C], contiguous
        As many as there are levels, or twice as many.

    Raises
    ------
    SpadeError
        If the margin is no whole number of a level's patches.
    """
    cells = [_cells(level, size, margin) for level in levels]
    cut = [_part(level, wide, 0).contiguous() for level, wide in zip(levels, cells, strict=True)]
    if not averaged:
        return tuple(cut)
    means = []
    for i, (level, wide) in enumerate(zip(levels, cells, strict=True)):
        following = cut[i + 1].shape[1:3] if i + 1 < len(cut) else None
        halved = following == tuple(side // 2 for side in cut[i].shape[1:3])
        around = _part(level, wide, min(wide, 1)).permute(0, 3, 1, 2)
        if not wide:
            around = pad(around, (1, 1, 1, 1), mode="replicate")
        mean = avg_pool2d(around, 4, 2) if halved else avg_pool2d(around, 3, 1)
        means.append(mean.permute(0, 2, 3, 1).contiguous())
    return (*cut, *means)


def _cells(level: Tensor, size: tuple[int, int], margin: int) -> int:
    """Return how many patches of a level the margin is wide.

    Where a side of the input is no whole number of patches, a network rounds their count.
    """
    exact = margin * level.shape[1] / (size[0] + 2 * margin)
    if abs(exact - round(exact)) > _ROUNDED:
        raise SpadeError(
            f"a margin of {margin} pixels is {exact:.2f} patches of a level, and must be a whole "
            "number of them: take the preset 'paper', or give the Backbone the cell of its levels"
        )
    return round(exact)


def _part(level: Tensor, cells: int, kept: int) -> Tensor:
    """Return a level without the patches of a margin, but for some of these."""
    edge = cells - kept
    return level[:, edge : level.shape[1] - edge, edge : level.shape[2] - edge]
