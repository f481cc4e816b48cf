"""How a gallery's rows are shortened: centre, principal axes, and how many of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2, sqrt

import torch
from torch import Tensor

_ASKED = 32
"""Rows of a sample that are searched for among the others, to see what each choice would cost."""
_TURNED = 640
"""Channels up to which it pays to turn rows."""
_CHOICES = 8
"""Widths that are looked at."""
_AMONG = 1024
"""Rows of the sample that they are searched for among."""
_STEP, _SCORE, _COMPARE, _CHANNEL = 1 / 64, 3 / 16, 250.0, 1 / 8
"""About what is spent, in cycles of a processor with AVX-512: on an integer of a pair, on what
follows from its product, on comparing it by differences, and on each channel in that."""
_EARLY = 2.0
"""How many doublings before the last most rows are seen by what is known of the nearest."""
_ROUNDED = 2.75 / 127 / sqrt(12) * 1.1
"""What 8 bits take from a row whose largest coordinate is 2.75 times the mean one, of its norm."""


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
    def of(cls, rows: Tensor, searched: int, multiple: int, *, turn: bool) -> Axes:
        """Return axes that suit a sample of rows.

        Parameters
        ----------
        rows : float32 [n, C]
        searched : int
            Rows of the gallery that are searched at a time.
        multiple : int
            Coordinates are filled up to a multiple of it.
        turn : bool
            Whether what rows are turned by is worth its time.
        """
        channels = rows.shape[1]
        centre = rows.mean(0)
        centre = torch.where(centre.isfinite(), centre, 0)
        sizes = torch.linalg.vector_norm(rows - centre, dim=1, dtype=torch.float64).square()
        sizes = sizes[sizes.isfinite()]
        norm = sqrt(float(sizes.mean())) if len(sizes) else 0.0
        unit = 2.0 ** min(120, max(-100, ceil(log2(norm)))) if norm > 0 else 1.0
        few = len(rows) < 2 * _ASKED or len(sizes) < len(rows) or norm == 0
        if not turn or channels > _TURNED or few:
            return cls(centre, None, channels, unit)
        v = (rows.double() - centre.double()) / unit
        vectors = torch.linalg.eigh(v.T @ v).eigenvectors.flip(1)
        along = (v @ vectors).float()
        some = along[:: -(-len(along) // _AMONG)]
        kept, rests = min(_costs(some, searched, multiple))[1:]
        mixed = vectors[:, :kept] @ _mixing(kept)
        turned = torch.zeros(channels, -(-kept // 16) * 16)
        turned[:, :kept] = mixed.float()
        rest = float(along[:, kept:].square().sum(1).sqrt().mean()) if rests else 0.0
        return cls(centre, turned, kept, unit, rests, rest)


def _costs(along: Tensor, searched: int, multiple: int) -> Iterator[tuple[float, int, bool]]:
    """Yield what a pair costs by a choice, the axes it keeps, and if there is a rest.

    `along` are a sample's coordinates along the principal axes, float32 [n, C].
    """
    n, channels = along.shape
    step = -(-n // _ASKED)
    asked = along[::step]
    norms = along.square().sum(1)
    whole = torch.cdist(asked, along)
    whole[torch.arange(len(asked)), torch.arange(0, n, step)] = torch.inf  # itself
    near = whole.amin(1, keepdim=True)
    # Among more rows the nearest is nearer: by as much, each time they double, as here.
    nearer = float((whole[:, ::2].amin(1, keepdim=True) / near.clamp_min(1e-30)).median())
    near = near / max(1.0, nearer) ** max(0.0, log2(searched / n) - _EARLY)
    sizes = norms.sqrt()
    reach = near + _ROUNDED * (sizes[::step, None] + sizes)
    square, done = torch.zeros(len(asked), n), 0
    widths = {ceil(channels * i / _CHOICES / multiple) for i in range(1, _CHOICES + 1)}
    for width in sorted(width * multiple for width in widths):
        for rests in (True, False):
            kept = min(width - rests, channels)
            if kept < 1 or (rests and kept == channels):
                continue
            square += torch.cdist(asked[:, done:kept], along[:, done:kept]).square()
            done = kept
            lower, far = square, reach
            if rests:
                rest = (norms - along[:, :kept].square().sum(1)).clamp_min(0).sqrt()
                lower = square + (rest[::step, None] - rest).square()
                off = (2 * sqrt(kept) * (24 + channels / 16) * 2.0**-24 + 2.0**-20) * norms
                lost = off / torch.maximum(rest, off.sqrt()).clamp_min(1e-30)
                far = reach + lost[::step, None] + lost
            passed = float((lower <= far.square()).float().mean())
            yield (
                width * _STEP + _SCORE + passed * (_COMPARE + _CHANNEL * channels),
                kept,
                rests,
            )


def _mixing(n: int) -> Tensor:
    """Return an orthogonal matrix that spreads each axis over all coordinates."""
    generator = torch.Generator().manual_seed(0)
    mixed: Tensor = torch.linalg.qr(torch.randn(n, n, generator=generator).double())[0]
    return mixed
