"""PaDiM: a Gaussian at every position, and how far from its middle a patch lies.

Defard et al., *PaDiM: a patch distribution modeling framework for anomaly detection and
localization* (2021): the pyramid's three levels are brought to the finest one's grid and
concatenated, some channels are chosen at random, and the good images' mean and covariance are
taken at each position (0.01 added on its diagonal). A patch's score is its Mahalanobis distance;
the map is enlarged bilinearly and smoothed (sigma 4). Image score: the map's maximum, as in the
paper.

Differences: none that is meant. `small` keeps 100 channels, the paper's number for ResNet-18,
and `paper` 550, its number for Wide-ResNet-50-2; a backbone that has fewer keeps all. The inverse
of each covariance is kept as that of its Cholesky factor: 3.8 GB at 550 channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spade_faiss.maps.smoothing import anomaly_map

from .method import Floats, Image, Method

_RIDGE = 0.01
_POSITIONS = 256
"""Covariances that are factored at once."""


@dataclass(frozen=True)
class Setting:
    """Settings: how many channels are chosen."""

    channels: int


class Padim(Method):
    """See the module."""

    budgets: ClassVar = {"small": Setting(100), "paper": Setting(550)}

    def fit(self, images: Sequence[Image]) -> None:
        """Take the mean and covariance of good images at each position."""
        total = sum(level.shape[-1] for level in self.network(images[0][None]).levels)
        order = np.random.default_rng(self.seed).permutation(total)
        self._chosen = torch.from_numpy(np.sort(order[: self.setting.channels]))
        rows = torch.stack([self._patches(image) for image in images])
        self._mean = rows.mean(0)
        rows -= self._mean
        self._whiten = torch.empty(*self._mean.shape, self._mean.shape[1], device=rows.device)
        ridge = _RIDGE * torch.eye(rows.shape[2], dtype=torch.float64, device=rows.device)
        for at in range(0, rows.shape[1], _POSITIONS):
            some = rows[:, at : at + _POSITIONS].permute(1, 2, 0).double()
            covariance = some @ some.mT / max(1, len(rows) - 1) + ridge
            factor = torch.linalg.cholesky(covariance)
            inverse = torch.linalg.solve_triangular(
                factor,
                torch.eye(rows.shape[2], dtype=torch.float64, device=rows.device),
                upper=False,
            )
            self._whiten[at : at + _POSITIONS] = inverse.float()

    def map(self, image: Image) -> Floats:
        """Return Mahalanobis distances."""
        apart = self._patches(image) - self._mean
        distances = (self._whiten @ apart[:, :, None])[:, :, 0].norm(dim=1)
        grid = distances.reshape(self._grid).cpu().numpy()
        return anomaly_map([grid], (image.shape[0], image.shape[1]))

    def _patches(self, image: Image) -> Tensor:
        """Return the chosen channels of each position, [positions, channels]."""
        levels = [level.permute(0, 3, 1, 2) for level in self.network(image[None]).levels]
        self._grid = levels[0].shape[2:]
        joined = torch.cat([interpolate(level, self._grid) for level in levels], 1)[0]
        return joined[self._chosen.to(joined.device)].flatten(1).T.contiguous()
