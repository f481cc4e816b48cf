"""Round rows to float16, with bounds of what that and sums in float32 can lose."""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from .kernels.lower import lower

WHOLE = 256
"""Channels up to which a row may stay in shared memory whole."""
TOO_LARGE = "{} hold NaN, infinite or too large values; norms must be under 2^60"
_BLOCK = 128
"""Channels that are handled at once."""
_ROWS = 16
"""Rows that one program takes."""


def gamma(channels: int) -> float:
    """Return four times what a sum over the channels can lose in float32, of its size."""
    return (channels + 16) * 2.0**-22


def tau(channels: int) -> float:
    """Return twice what tensor cores can lose by cutting sums, of the norms' product."""
    return (channels + 16) * 2.0**-21


def limit(channels: int) -> float:
    """Return what all channels must be below, so that no square overflows."""
    return 2.0**60 / math.sqrt(channels)


def filled_up(channels: int) -> int:
    """Return the channels of a row in float16: a power of two up to 256, or many blocks."""
    if channels <= WHOLE:
        return max(16, 1 << (channels - 1).bit_length())
    return -(-channels // _BLOCK) * _BLOCK


def round_to_half(
    values: Tensor,
    centre: Tensor,
    scale: float,
    low: Tensor,
    queries: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """Fill `low` with centred, scaled and rounded rows; return what that took from them.

    Parameters
    ----------
    values : float32 [n, C]
    centre : float32 [C]
    scale : float
    low : float16 [n or more, channels]
    queries : tuple of floor [n], best [n] and bad [1], optional
        Set to what is true before a search, where the rows are queries. Each of these gets a
        scale of its own.

    Returns
    -------
    float32 [4, n]
        Norms, norms of what was lost, the rows' own scales, and squared norms; see
        `kernels.lower`.
    """
    n, c = values.shape
    stats = torch.empty(4, n, device=values.device)
    floor, best, bad = queries or (stats, stats, stats)
    lower[(triton.cdiv(n, _ROWS),)](
        values,
        centre,
        low,
        stats,
        floor,
        best,
        bad,
        n,
        c,
        scale,
        limit(c) * scale,
        1 + tau(c),
        CHANNELS=low.shape[1],
        BLOCK=min(low.shape[1], _BLOCK),
        ROWS=_ROWS,
        FIT=queries is not None,
    )
    return stats
