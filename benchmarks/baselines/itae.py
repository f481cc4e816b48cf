"""ITAE: an autoencoder that restores frames from which something was taken.

Huang et al., *Inverse-transform autoencoder for anomaly detection* (2019, arXiv 1911.10676). A
frame is made grey and turned by 0, 90, 180 or 270 degrees; the network is to give the frame back
as it was. What it has to know for that, which way up things are and which colours they have, it
knows of normal things alone. The network is a U-Net: four times two convolutions 3 x 3 with batch
normalisation and ReLUs and a pooling (64, 128, 256, 512), two more convolutions (1024), and the
mirror image of it, which sees the encoder's maps, too.

Loss: the mean absolute error of frames that are turned at random. Score of a frame: its absolute
errors by each of the four turns, each divided by its mean over good frames, averaged.

Differences: the good frames' errors are taken of 200 of them at most. On footage that is grey
already only turning takes something away. It sees single frames, as in the paper, and so no
motion. `small` sees 112 x 112 pixels and has an eighth of the channels.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .training import Schedule
from .video import Stack, WindowNetwork, WindowSetting

_USUAL = 200
"""Of at most so many good frames errors are averaged."""
_DEPTH = 5


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv2d(channels, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Grey images [B, 1, h, w] to coloured ones [B, 3, h, w]; h and w are multiples of 16.

    Parameters
    ----------
    channels : int
        Of the first block; each further one has twice as many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(_DEPTH)]
        self.down = nn.ModuleList(
            _block(before, after) for before, after in zip([1, *widths], widths, strict=False)
        )
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[-2::-1]
        )
        self.up = nn.ModuleList(_block(2 * width, width) for width in widths[-2::-1])
        self.last = nn.Conv2d(channels, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the restored images."""
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            images = block(nn.functional.max_pool2d(images, 2) if level else images)
            kept.append(images)
        for rise, block, same in zip(self.rise, self.up, kept[-2::-1], strict=True):
            images = block(torch.cat([rise(images), same], 1))
        restored: Tensor = self.last(images)
        return restored


class Itae(WindowNetwork):
    """See the module."""

    budgets: ClassVar = {
        "small": WindowSetting(
            Schedule(steps=1000, batch=8, rate=1e-3),
            size=(112, 112),
            channels=8,
            hop=1,
        ),
        "paper": WindowSetting(
            Schedule(steps=20_000, batch=32, rate=1e-4, keep_every=1000),
            size=(256, 256),
            channels=64,
            hop=1,
        ),
    }
    length: ClassVar = 1
    colours: ClassVar = 3

    def make(self) -> nn.Module:
        """Return the network that restores."""
        return UNet(self.setting.channels)

    def loss(self, windows: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the mean absolute error, each frame turned at random."""
        images = windows[:, :, 0]
        turns = rng.integers(0, 4, len(images))
        turned = torch.stack([_turned(*both) for both in zip(images, turns, strict=True)])
        loss: Tensor = (self.trained(turned) - images).abs().mean()
        return loss

    def errors(self, windows: Tensor) -> Tensor:
        """Return absolute errors by the four turns, in units of good frames', averaged."""
        return (self._by_turn(windows[:, :, 0]) / self._usual).mean(1)[:, None]

    @torch.inference_mode()
    def after(self, stack: Stack) -> None:
        """Find the errors of good frames, by each turn."""
        count = len(stack.frames)
        some = np.unique(np.linspace(0, count - 1, min(count, _USUAL)).astype(int))
        found = [
            self._by_turn(self._windows(stack.frames[i][None, None])[:, :, 0]).mean((0, 2, 3))
            for i in some
        ]
        self._usual = torch.stack(found).mean(0).clamp_min(1e-6)[:, None, None]

    def _by_turn(self, images: Tensor) -> Tensor:
        """Return absolute errors, averaged over colours, [B, 4, h, w]."""
        every = [
            (self.trained(_turned(images, turns)) - images).abs().mean(1) for turns in range(4)
        ]
        return torch.stack(every, 1)


def _turned(images: Tensor, turns: int) -> Tensor:
    """Return images [..., 3, h, w], h = w, grey and turned by so many quarters, [..., 1, h, w]."""
    return images.mean(-3, keepdim=True).rot90(int(turns), (-2, -1))
