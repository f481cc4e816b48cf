"""Training patches on a GPU, made ready to be searched many times."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .device import interpreted, on
from .half import TOO_LARGE, filled_up, limit, round_to_half, tau

STRIDE = 64
"""Rows of an image this far apart share an upper bound."""
GROUP = 32
"""Rows that share one, or more where an image has many."""
_TAIL = 256
"""Rows after the gallery's last that a tile may read (and then leaves out)."""


@dataclass(frozen=True)
class PreparedGallery:
    """Training patches, and what a screen needs of them; made by `prepare`.

    Attributes
    ----------
    patches : float32 [N, C]
        As passed to `prepare`, not copied.
    per_image : int
        Patches a training image; the last image may have fewer.
    centre : float32 [C]
    scale : float
        A power of two.
    rows : float16 [N + tail, channels]
        (patches - centre) * scale, rounded; filled up with zeros.
    half : float32 [N]
        Half the squared norms of the scaled rows.
    reach, slack : float32 [images, groups]
        N and R of each group of rows (see `docs/search.md`).
    fold : int
        Neighbouring rows that share a group.
    """

    patches: Tensor
    per_image: int
    centre: Tensor
    scale: float
    rows: Tensor
    half: Tensor
    reach: Tensor
    slack: Tensor
    fold: int

    @property
    def channels(self) -> int:
        """Channels of `rows`: those of the patches, filled up."""
        return self.rows.shape[1]

    @property
    def images(self) -> int:
        """Training images."""
        return self.reach.shape[0]

    @property
    def groups(self) -> int:
        """Groups an image."""
        return self.reach.shape[1]

    @property
    def members(self) -> int:
        """Rows a group, filled up to whole `GROUP`s."""
        tiles = -(-self.per_image // STRIDE)
        return -(-tiles * self.fold // GROUP) * GROUP


def prepare(patches: Tensor, per_image: int) -> PreparedGallery:
    """Return a gallery ready to be searched many times; it adds half the patches' bytes.

    Parameters
    ----------
    patches : float32 [N, C], contiguous, on a CUDA device
        Row `i * per_image + j` is patch j of image i. Norms under 2⁶⁰.
    per_image : int

    Raises
    ------
    ValueError
        If the shape does not fit, or the patches are on the CPU (where only Triton's
        interpreter runs: TRITON_INTERPRET=1).
    OverflowError
        If values are not finite or too large.
    """
    _check(patches, per_image)
    patches = patches.contiguous()
    n, c = patches.shape
    with on(patches.device):
        centre = patches[:: max(1, n // 4096)].mean(0)
        least, largest = (float(v) for v in patches.aminmax())
        spread = max(largest - float(centre.min()), float(centre.max()) - least)
        if not spread < limit(c):
            raise OverflowError(TOO_LARGE.format("patches"))
        scale = 2.0 ** min(60, 15 - math.frexp(spread)[1])
        rows = torch.empty(n + _TAIL, filled_up(c), dtype=torch.float16, device=patches.device)
        rows[n:] = 0
        norm, rounding, _, square = round_to_half(patches, centre, scale, rows)
    tiles = -(-per_image // STRIDE)
    fold = max(1, GROUP >> (tiles - 1).bit_length())
    reach = _largest_of_groups(norm, per_image, fold)
    slack = _largest_of_groups(rounding + tau(c) * (norm + rounding), per_image, fold)
    return PreparedGallery(patches, per_image, centre, scale, rows, square / 2, reach, slack, fold)


def _check(patches: Tensor, per_image: int) -> None:
    if not (patches.is_cuda or interpreted()):
        raise ValueError("the triton engine needs tensors on a CUDA device")
    if patches.ndim != 2 or 0 in patches.shape or patches.dtype != torch.float32:
        raise ValueError(f"patches are {patches.dtype} {list(patches.shape)}; pass float32 [N, C]")
    if len(patches) >= 2**31 - 1:
        raise ValueError(f"{len(patches)} patches are too many; search in parts of 2^31")
    if not 1 <= per_image <= len(patches):
        raise ValueError(f"per_image = {per_image} must lie between 1 and {len(patches)}")


def _largest_of_groups(values: Tensor, per_image: int, fold: int) -> Tensor:
    """Return the largest of each group's values, [images, groups], of one value a row."""
    images, tiles = -(-len(values) // per_image), -(-per_image // STRIDE)
    full = values.new_zeros(images * per_image)
    full[: len(values)] = values
    padding = (0, tiles * STRIDE - per_image)
    padded = torch.nn.functional.pad(full.view(images, per_image), padding)
    return padded.view(images, tiles, STRIDE // fold, fold).amax((1, 3)).contiguous()
