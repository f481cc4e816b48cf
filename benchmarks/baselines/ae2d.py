"""AE(2D): an autoencoder of stacks of ten grey frames.

Hasan et al., *Learning temporal regularity in video sequences* (CVPR 2016), section 3.2. Ten grey
frames are the channels of one image. Encoder and decoder are mirror images, with hyperbolic
tangents between their layers:

    convolution 11, stride 4 (512), pooling 2, convolution 5 (256), pooling 2, convolution 3 (128)
    deconvolution 3 (256), unpooling 2, deconvolution 5 (512), unpooling 2,
    deconvolution 11, stride 4

Loss: the squared distance between a stack and what is given back. Windows of training take each
frame, every second or every third. Score of a frame: its squared error.

Differences: Adam instead of AdaGrad, which needs far more steps. Convolutions are padded, so that
the code's sides are those of the frame over 16. Unpooling repeats a value instead of putting it at
the place of the maximum, which would tell the decoder more than the code holds. A frame is in
several windows, one each `hop` frames, whose errors are averaged. `small` sees 128 x 192 pixels,
and has 64 channels in place of 512.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from .training import Schedule
from .video import WindowNetwork, WindowSetting

_LENGTH = 10


def network(channels: int) -> nn.Sequential:
    """Return stacks [B, 10, h, w] to what is given back of them; h and w are multiples of 16."""
    wide, half, few = channels, channels // 2, channels // 4
    return nn.Sequential(
        nn.Conv2d(_LENGTH, wide, 11, 4, 4),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(wide, half, 5, padding=2),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(half, few, 3, padding=1),
        nn.Tanh(),
        nn.ConvTranspose2d(few, half, 3, padding=1),
        nn.Tanh(),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(half, wide, 5, padding=2),
        nn.Tanh(),
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(wide, _LENGTH, 11, 4, 4, output_padding=1),
    )


class Ae2d(WindowNetwork):
    """See the module."""

    budgets: ClassVar = {
        "small": WindowSetting(
            Schedule(steps=1000, batch=8, rate=1e-3),
            size=(128, 192),
            channels=64,
            hop=5,
            centred=True,
        ),
        "paper": WindowSetting(
            Schedule(steps=16_000, batch=32, rate=1e-4, keep_every=1000),
            size=(224, 224),
            channels=512,
            hop=1,
            centred=True,
        ),
    }
    length: ClassVar = _LENGTH
    steps: ClassVar = (1, 2, 3)

    def make(self) -> nn.Module:
        """Return the autoencoder."""
        return network(self.setting.channels)

    def loss(self, windows: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the mean squared error."""
        return self.errors(windows).mean()

    def errors(self, windows: Tensor) -> Tensor:
        """Return squared errors."""
        stacks = windows[:, 0]
        squared: Tensor = (self.trained(stacks) - stacks).square()
        return squared
