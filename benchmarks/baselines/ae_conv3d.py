"""AE-Conv3D: an autoencoder by convolutions in space and time, which also foretells what comes.

Zhao et al., *Spatio-temporal autoencoder for video anomaly detection* (ACM Multimedia 2017). An
encoder sees 16 grey frames. One decoder gives them back, another foretells the next 16:

    four times: convolution 3 x 3 x 3 (32, 48, 64, 64), batch normalisation, leaky ReLU, pooling 2
    four times: transposed convolution, stride 2 (64, 48, 32, 1), the first three likewise

Loss: the mean squared error of what is given back, plus that of what is foretold, whose frames
weigh the less the later they are. Score of a frame: the squared error of what is given back; the
branch that foretells makes the code hold how things move, and is used in training alone.

Differences: transposed convolutions have kernels of 4 x 4 x 4, which cover all places equally. A
frame is in several windows, one each `hop` frames, whose errors are averaged. `small` sees 96 x
144 pixels, has half of the channels, and is given frames less the mean good one.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .training import Schedule
from .video import WindowNetwork, WindowSetting

_LENGTH = 16
_AHEAD = 16


def encoder(widths: tuple[int, ...]) -> nn.Sequential:
    """Return windows [B, 1, 16, h, w] to [B, C, 1, h / 16, w / 16]."""
    layers: list[nn.Module] = []
    for before, after in zip((1, *widths), widths, strict=False):
        layers += [
            nn.Conv3d(before, after, 3, padding=1, bias=False),
            nn.MaxPool3d(2),
            nn.BatchNorm3d(after),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers)


def decoder(widths: tuple[int, ...]) -> nn.Sequential:
    """Return codes [B, C, 1, h / 16, w / 16] to windows [B, 1, 16, h, w]."""
    layers: list[nn.Module] = []
    for before, after in zip(widths[::-1], widths[-2::-1], strict=False):
        layers += [
            nn.ConvTranspose3d(before, after, 4, 2, 1, bias=False),
            nn.BatchNorm3d(after),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers, nn.ConvTranspose3d(widths[0], 1, 4, 2, 1))


class _Network(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = channels, channels * 3 // 2, channels * 2, channels * 2
        self.encoder = encoder(widths)
        self.back, self.ahead = decoder(widths), decoder(widths)


class AeConv3d(WindowNetwork):
    """See the module."""

    budgets: ClassVar = {
        "small": WindowSetting(
            Schedule(steps=500, batch=4, rate=2e-3),
            size=(96, 144),
            channels=16,
            hop=4,
            centred=True,
        ),
        "paper": WindowSetting(
            Schedule(steps=20_000, batch=16, rate=1e-4, keep_every=1000),
            size=(128, 128),
            channels=32,
            hop=1,
        ),
    }
    length: ClassVar = _LENGTH
    ahead: ClassVar = _AHEAD

    def make(self) -> nn.Module:
        """Return encoder and both decoders."""
        return _Network(self.setting.channels)

    def loss(self, windows: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the error of what is given back, plus the weighted one of what is foretold."""
        seen, next_ones = windows.split((_LENGTH, _AHEAD), 2)
        code = self.trained.encoder(seen)
        back = (self.trained.back(code) - seen).square().mean()
        apart = (self.trained.ahead(code) - next_ones).square().mean((0, 1, 3, 4))
        weights = torch.arange(_AHEAD, 0, -1, device=apart.device)
        loss: Tensor = back + (apart * weights).sum() / weights.sum()
        return loss

    def errors(self, windows: Tensor) -> Tensor:
        """Return squared errors of what is given back."""
        back = self.trained.back(self.trained.encoder(windows))
        squared: Tensor = (back - windows).square()[:, 0]
        return squared
