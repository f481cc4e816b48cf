"""MemAE: an autoencoder that may only use what is in a memory of normal codes.

Gong et al., *Memorizing normality to detect anomaly: memory-augmented deep autoencoder for
unsupervised anomaly detection* (ICCV 2019). The encoder sees 16 grey frames:

    convolutions 3 x 3 x 3, strides 1, 2 in time and 2 in space, then 2 (96, 128, 256, 256)
    transposed convolutions that mirror these (256, 128, 96, 1)

with batch normalisation and leaky ReLUs (0.2) between them. Each place's code is replaced by a
mixture of 2000 rows of the memory, which is trained, too. The weights are the softmax of the
cosines between the code and the rows; those under a threshold become zero, and the others are
divided by their sum. Loss: the mean squared error, plus 0.0002 times the entropy of the weights,
averaged over places. Score of a frame: its squared error.

Differences: cosines are multiplied by `sharpness` before the softmax. Cosines lie between -1 and
1, so without it no weight among 2000 could be more than e squared times another, nearly every row
would be mixed in, and a threshold could not tell rows apart. The threshold is 1 / rows, the least
of the range that the paper names. A frame is in several windows, one each `hop` frames, whose
errors are averaged. `small` sees 96 x 144 pixels, has a quarter of the channels and 500 rows, and
is given frames less the mean good one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .training import Schedule
from .video import WindowNetwork, WindowSetting

_STRIDES = (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)
_TINY = 1e-12


@dataclass(frozen=True)
class Setting(WindowSetting):
    """Settings of the network and its memory.

    Attributes
    ----------
    rows : int
        Of the memory.
    sharpness : float
        What cosines are multiplied by.
    entropy : float
        How much the entropy of the weights counts.
    """

    rows: int = 2000
    sharpness: float = 10.0
    entropy: float = 2e-4


class Memory(nn.Module):
    """Mixes what it has learnt to stand for codes.

    Parameters
    ----------
    rows, channels : int
    sharpness : float
    """

    def __init__(self, rows: int, channels: int, sharpness: float) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(rows, channels).uniform_(-1, 1) / channels**0.5)
        self._sharpness = sharpness

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixtures [B, C, …] for codes [B, C, …], and the weights [n, rows], n codes."""
        asked = codes.movedim(1, -1)
        cosines = (
            nn.functional.normalize(asked.flatten(0, -2), dim=1)
            @ nn.functional.normalize(self.rows, dim=1).T
        )
        weights = (self._sharpness * cosines).softmax(1)
        weights = shrunk_weights(weights, 1 / len(self.rows))
        return (weights @ self.rows).unflatten(0, asked.shape[:-1]).movedim(-1, 1), weights


def shrunk_weights(weights: Tensor, threshold: float) -> Tensor:
    """Return weights [n, rows] of which those up to a threshold are 0, and that sum to 1.

    Equation 7 of the paper, which lets gradients pass, and the division after it.
    """
    over = weights - threshold
    kept = over.relu() * weights / (over.abs() + _TINY)
    return kept / kept.sum(1, keepdim=True).clamp_min(_TINY)


class _Network(nn.Module):
    def __init__(self, setting: Setting) -> None:
        super().__init__()
        one = setting.channels
        widths = 1, one, one * 4 // 3, one * 8 // 3, one * 8 // 3
        layers: list[nn.Module] = []
        for before, after, stride in zip(widths, widths[1:], _STRIDES, strict=False):
            layers += [
                nn.Conv3d(before, after, 3, stride, 1),
                nn.BatchNorm3d(after),
                nn.LeakyReLU(0.2),
            ]
        self.encoder = nn.Sequential(*layers)
        self.memory = Memory(setting.rows, widths[-1], setting.sharpness)
        layers = []
        for before, after, stride in zip(
            widths[:0:-1], widths[-2::-1], _STRIDES[::-1], strict=True
        ):
            more = stride[0] - 1, stride[1] - 1, stride[2] - 1
            layers += [
                nn.ConvTranspose3d(before, after, 3, stride, 1, more),
                nn.BatchNorm3d(after),
                nn.LeakyReLU(0.2),
            ]
        self.decoder = nn.Sequential(*layers[:-2])

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        codes, weights = self.memory(self.encoder(windows))
        return self.decoder(codes), weights


class MemAe(WindowNetwork):
    """See the module."""

    budgets: ClassVar = {
        "small": Setting(
            Schedule(steps=500, batch=4, rate=1e-3, decay=0),
            size=(96, 144),
            channels=24,
            hop=4,
            centred=True,
            rows=500,
        ),
        "paper": Setting(
            Schedule(steps=20_000, batch=14, rate=1e-4, decay=0, keep_every=1000),
            size=(256, 256),
            channels=96,
            hop=1,
        ),
    }
    length: ClassVar = 16
    setting: Setting

    def make(self) -> nn.Module:
        """Return encoder, memory and decoder."""
        return _Network(self.setting)

    def loss(self, windows: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the mean squared error plus the weights' entropy."""
        back, weights = self.trained(windows)
        entropy = -(weights * (weights + _TINY).log()).sum(1).mean()
        loss: Tensor = (back - windows).square().mean() + self.setting.entropy * entropy
        return loss

    def errors(self, windows: Tensor) -> Tensor:
        """Return squared errors."""
        squared: Tensor = (self.trained(windows)[0] - windows).square()[:, 0]
        return squared
