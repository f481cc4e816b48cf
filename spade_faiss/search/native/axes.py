"""How a gallery's rows are shortened: centre, principal axes, and how many of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, sqrt

import torch
from torch import Tensor

_ASKED = 64
"""Rows whose nearest others tell how far neighbours are."""
_LEFT = 0.2
"""Share of a neighbour's squared distance that the axes may leave out."""
_WORTH = 0.01
"""Share of the energy that must be left out for its norm to be worth a coordinate."""
_TURNED = 640
"""Channels up to which it pays to turn rows."""


@dataclass(frozen=True)
class Axes:
    """A map of rows that moves none apart: `kernel.h` has it.

    Attributes
    ----------
    centre : float32 [C]
    turned : float32 [C, kept and some more] or None
        Orthonormal axes as columns, and columns of zeros; None for all coordinates as they are.
    kept : int
    unit : float
        A power of two: about what a row's norm is.
    rests : bool
        Whether the norm of what the axes leave out is a coordinate, too.
    rest : float
        About what that is, in units.
    """

    centre: Tensor
    turned: Tensor | None
    kept: int
    unit: float
    rests: bool = False
    rest: float = 0.0

    @classmethod
    def of(cls, rows: Tensor, *, turn: bool) -> Axes:
        """Return axes that suit a sample of rows, float32 [n, C]."""
        channels = rows.shape[1]
        centre = rows.mean(0)
        centre = torch.where(centre.isfinite(), centre, 0)
        sizes = torch.linalg.vector_norm(rows - centre, dim=1, dtype=torch.float64).square()
        sizes = sizes[sizes.isfinite()]
        norm = sqrt(float(sizes.mean())) if len(sizes) else 0.0
        unit = 2.0 ** min(120, max(-100, ceil(log2(norm)))) if norm > 0 else 2.0**-100
        if not turn or channels > _TURNED or len(rows) < 2 * _ASKED or len(sizes) < len(rows):
            return cls(centre, None, channels, unit)
        v = rows.double() - centre.double()
        v /= unit
        energies, vectors = torch.linalg.eigh(v.T @ v / len(v))
        energies, vectors = energies.flip(0).clamp_min(0), vectors.flip(1)
        asked = v[:: max(1, len(v) // _ASKED)]
        gaps = torch.cdist(asked.float(), v.float()).topk(2, largest=False).values[:, 1]
        near = float(gaps.square().median())
        left = energies.sum() - energies.cumsum(0)
        enough = (left <= _LEFT * near).nonzero()
        kept = int(enough[0]) + 1 if len(enough) else channels
        kept = max(1, min(kept, channels))
        mixed = vectors[:, :kept] @ _mixing(kept)
        turned = torch.zeros(channels, -(-kept // 16) * 16)
        turned[:, :kept] = mixed.float()
        rest = (v.square().sum(1) - (v @ mixed).square().sum(1)).clamp_min(0).sqrt().mean()
        rests = bool(left[kept - 1] > _WORTH * energies.sum())
        return cls(centre, turned, kept, unit, rests, float(rest) if rests else 0.0)


def _mixing(n: int) -> Tensor:
    """Return an orthogonal matrix that spreads each axis over all coordinates."""
    generator = torch.Generator().manual_seed(0)
    mixed: Tensor = torch.linalg.qr(torch.randn(n, n, generator=generator).double())[0]
    return mixed
