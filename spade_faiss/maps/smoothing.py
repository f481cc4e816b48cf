"""From the distances of each pyramid level to one anomaly map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..images.resample import Axis, resample, smoothed_to
from ..types import Floats, Mask


def anomaly_map(
    distances: Sequence[Floats],
    size: tuple[int, int],
    sigma: float = 4.0,
    looked_at: Sequence[Mask] | None = None,
) -> Floats:
    """Return the anomaly map of one image on the network's input grid.

    Each level is brought to the input's size bilinearly, the levels are averaged, and the
    mean is smoothed by a Gaussian (SPADE, sections 3.3 and 4.1).

    Parameters
    ----------
    distances : sequence of float32 [h, w]
        Per level, each patch's distance to its nearest gallery patches, 0 or more.
    size : (int, int)
        Height and width of the network's input, in pixels.
    sigma : float
        Standard deviation of the Gaussian in input pixels, cut off at 4 sigma; 0 leaves
        the map as it is.
    looked_at : sequence of bool [h, w], optional
        Per level, the patches that count: what others have is left out of every mean. By default
        all.

    Returns
    -------
    float32 [H, W], 0 or more

    Raises
    ------
    ValueError
        If sigma is below 0, or no finite number.

    Examples
    --------
    >>> import numpy as np
    >>> level = np.zeros((4, 4), np.float32)
    >>> level[1, 1] = 1
    >>> values = anomaly_map([level], (32, 32))
    >>> values.shape, np.unravel_index(values.argmax(), values.shape)[0] in (11, 12)
    ((32, 32), True)
    """
    levels = [torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in distances]
    smoothing = smoothing_of(tuple(one.shape for one in distances), size, sigma, levels[0].device)
    values: Floats = smoothing(levels).numpy()
    if looked_at is not None:
        counted = [torch.from_numpy(one.astype(np.float32)) for one in looked_at]
        shares = smoothing(counted).numpy()
        np.divide(values, shares, out=values, where=shares > 0)
    return values


@dataclass(frozen=True)
class Smoothing:
    """How the distances of levels become a map; made by `smoothing_of`.

    Attributes
    ----------
    axes : tuple of (Axis, Axis)
        Of each level's lines and columns.
    """

    axes: tuple[tuple[Axis, Axis], ...]

    def __call__(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the maps [..., H, W] of distances, per level [..., h, w], on their device."""
        total: Tensor | None = None
        for level, axes in zip(levels, self.axes, strict=True):
            own = resample(level, *axes)
            total = own if total is None else total.add_(own)
        assert total is not None
        return total.div_(len(self.axes))


@lru_cache(16)
def smoothing_of(
    shapes: tuple[tuple[int, ...], ...],
    size: tuple[int, int],
    sigma: float,
    device: torch.device,
) -> Smoothing:
    """Return what makes maps of a size of levels of some heights and widths; see `anomaly_map`."""
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma {sigma} must be a finite number, 0 or more")
    return Smoothing(
        tuple(
            (
                smoothed_to(height, size[0], sigma, device),
                smoothed_to(width, size[1], sigma, device),
            )
            for height, width in shapes
        )
    )
