"""Inputs of whole cells: what a network that cuts its input into squares needs."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate


def whole_cells(images: Tensor, cell: int) -> Tensor:
    """Return images [B, C, H, W] scaled so that both sides are multiples of `cell`.

    Each side becomes the nearest multiple, so that it changes by half a cell at most; images
    whose sides are multiples already are returned as they are. What does not fill a cell would
    be cut off at the right and at the bottom, and maps would lie beside what they tell of.
    """
    size = [max(1, round(side / cell)) * cell for side in images.shape[2:]]
    if list(images.shape[2:]) == size:
        return images
    return interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
