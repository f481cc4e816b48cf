"""Resampling and smoothing of maps: what is linear along each axis is a matrix a side.

A map that is brought to another size, smoothed and placed on an image is `D V Rᵀ`, with one matrix
for its lines and one for its columns. So several such steps are one product a side, for many maps
at once, on any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..types import Doubles

_ON_CPU, _ELSEWHERE = 128, 1024
"""Outputs at a time: what they do not depend on is left out. A GPU has fewer, larger products."""


@dataclass(frozen=True)
class Axis:
    """A linear map along one axis.

    Attributes
    ----------
    blocks : tuple of (slice, float32 tensor [m, n])
        Of which n values the next m ones come, and their weights.
    """

    blocks: tuple[tuple[slice, Tensor], ...]

    @classmethod
    def of(cls, weights: Doubles, device: torch.device) -> Axis:
        """Return the map of a matrix [out, in]."""
        blocks, step = [], _ON_CPU if device.type == "cpu" else _ELSEWHERE
        for at in range(0, len(weights), step):
            rows = weights[at : at + step]
            some = np.flatnonzero(rows.any(0))
            first, end = (int(some[0]), int(some[-1]) + 1) if len(some) else (0, 1)
            part = torch.from_numpy(rows[:, first:end].astype(np.float32))
            if device.type == "cuda":
                part = part.pin_memory()  # so that the copy waits for nothing
            part = part.to(device, non_blocking=True)
            blocks.append((slice(first, end), part))
        return cls(tuple(blocks))


def resample(values: Tensor, down: Axis, right: Axis) -> Tensor:
    """Return maps [..., h, w] after a linear map of their lines and one of their columns."""
    lines = [part @ values[..., columns, :] for columns, part in down.blocks]
    whole = lines[0] if len(lines) == 1 else torch.cat(lines, -2)
    across = [whole[..., columns] @ part.T for columns, part in right.blocks]
    return across[0] if len(across) == 1 else torch.cat(across, -1)


def smoothed_to(n: int, size: int, sigma: float, device: torch.device) -> Axis:
    """Return the map of n values to a size, bilinearly, then smoothed by a Gaussian.

    The Gaussian is cut off at 4 sigma; beyond the border lies the mirror image.
    """
    at = (np.arange(size) + 0.5) * (n / size) - 0.5
    weights = _bilinear(at, n)
    if sigma > 0:
        weights = _gaussian(size, sigma) @ weights
    return Axis.of(weights, device)


def placed_at(
    first: int, end: int, scale: float, offset: int, n: int, device: torch.device
) -> Axis:
    """Return the map of n values to pixels `first` to `end` of an image, bilinearly.

    Parameters
    ----------
    scale : float
        Pixels of the image a value.
    offset : int
        Values before the first one, in the resized image.
    """
    at = (np.arange(first, end) + 0.5) / scale - offset - 0.5
    return Axis.of(_bilinear(at, n), device)


def _bilinear(at: npt.NDArray[np.floating[Any]], n: int) -> Doubles:
    """Return the weights [m, n] of n values at m places; beyond the ends, those hold."""
    at = np.clip(at, 0, n - 1)
    low = at.astype(np.intp)
    high, beside, every = np.minimum(low + 1, n - 1), at - low, np.arange(len(at))
    weights = np.zeros((len(at), n))
    np.add.at(weights, (every, low), 1 - beside)
    np.add.at(weights, (every, high), beside)
    return weights


def _gaussian(size: int, sigma: float) -> Doubles:
    radius = int(4 * sigma + 0.5)
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    kernel /= math.fsum(kernel)
    where = (np.arange(size)[:, None] + steps) % (2 * size)
    where = np.minimum(where, 2 * size - 1 - where)  # the mirror image
    weights = np.zeros((size, size))
    np.add.at(weights, (np.arange(size)[:, None], where), kernel)
    return weights
