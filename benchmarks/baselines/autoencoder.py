"""The convolutional autoencoder that three of the methods share.

Bergmann et al., *Improving unsupervised defect segmentation by applying structural similarity to
autoencoders* (VISAPP 2019), Table 1. Windows of 128 x 128 pixels go through nine convolutions,
leaky ReLUs (0.2) between them, to a code of 100 numbers without one, and back through the mirror
image of these:

    kernel  4  4  3  4  3  4  3  3  8
    stride  2  2  1  2  1  2  1  1  1
    out    32 32 32 64 64 128 64 32 100

Trained with Adam (rate 2e-4, decay 1e-5) on random windows of good images. An image's map is put
together from windows that overlap, averaged where they do.

Differences: colour instead of grey, and no smaller scale for images of objects: what is a texture
and what an object is not known of a user's own images. `small` has half the channels and takes 2000
steps of 16 windows at a rate of 1e-3, where the paper has 200 epochs of 10 000 windows in batches
of 128: 15 600 steps.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .method import Floats, Image, Method
from .training import Schedule, key_of, seeded, train

_KERNELS = 4, 4, 3, 4, 3, 4, 3, 3
_STRIDES = 2, 2, 1, 2, 1, 2, 1, 1
_CHANNELS = 1, 1, 1, 2, 2, 4, 2, 1


@dataclass(frozen=True)
class Setting:
    """Settings of an autoencoder.

    Attributes
    ----------
    schedule : Schedule
    channels : int
        Of the first convolution; the others' follow.
    code : int
        Numbers that a window is squeezed into.
    side : int
        Of a window, in pixels; a multiple of 16.
    stride : int
        At most so many pixels lie between neighbouring windows of a map.
    """

    schedule: Schedule
    channels: int = 32
    code: int = 100
    side: int = 128
    stride: int = 30


BUDGETS = {
    "small": Setting(Schedule(steps=2000, batch=16, rate=1e-3), channels=16, stride=48),
    "paper": Setting(Schedule(steps=15_600, batch=128, rate=2e-4, keep_every=1000)),
}


def encoder(setting: Setting, outputs: int) -> nn.Sequential:
    """Return windows [B, 3, side, side] to [B, outputs, 1, 1]."""
    layers: list[nn.Module] = []
    before = 3
    for kernel, stride, wide in zip(_KERNELS, _STRIDES, _CHANNELS, strict=True):
        after = wide * setting.channels
        layers += [nn.Conv2d(before, after, kernel, stride, 1), nn.LeakyReLU(0.2)]
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, outputs, setting.side // 16))


def decoder(setting: Setting) -> nn.Sequential:
    """Return codes [B, code, 1, 1] to windows [B, 3, side, side]."""
    befores = [3, *(wide * setting.channels for wide in _CHANNELS)]
    layers: list[nn.Module] = [
        nn.ConvTranspose2d(setting.code, befores[-1], setting.side // 16),
        nn.LeakyReLU(0.2),
    ]
    for number in reversed(range(len(_KERNELS))):
        layers += [
            nn.ConvTranspose2d(
                befores[number + 1], befores[number], _KERNELS[number], _STRIDES[number], 1
            ),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers[:-1])


class Autoencoder(Method):
    """Trains a network to give good windows back; what it cannot give back is wrong."""

    budgets: ClassVar = BUDGETS

    def fit(self, images: Sequence[Image]) -> None:
        """Train on random windows of good images."""
        device = self.network.device
        self._autoencoder = seeded(self.make, self.seed).to(
            device,
            # the faster layout, on the CPU too
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        good = torch.from_numpy(np.stack(images)).to(device)
        schedule, side = self.setting.schedule, self.setting.side
        free = [len(good), good.shape[1] - side + 1, good.shape[2] - side + 1]
        along = torch.arange(side, device=device)

        def loss(step: int) -> Tensor:
            rng = np.random.default_rng((self.seed, step))
            places = np.stack([rng.integers(0, end, schedule.batch) for end in free])
            which, tops, lefts = torch.from_numpy(places).to(device)[..., None, None]
            windows = good[which, tops + along[:, None], lefts + along]
            return self.loss(_tensor(windows), self._noise(step))

        self.taken_up = train(
            self._autoencoder, loss, schedule, self.checkpoint, key_of(self, images)
        )

    def map(self, image: Image) -> Floats:
        """Return how badly each pixel is given back."""
        side = self.setting.side
        corners = [
            (y, x) for y in self._places(image.shape[0]) for x in self._places(image.shape[1])
        ]
        windows = np.stack([image[y : y + side, x : x + side] for y, x in corners])
        with torch.inference_mode():
            errors = self.errors(
                _tensor(torch.from_numpy(windows).to(self.network.device)), self._noise(-1)
            )
        total = np.zeros(image.shape[:2], np.float32)
        times = total.copy()
        for (y, x), error in zip(corners, errors.cpu().numpy(), strict=True):
            total[y : y + side, x : x + side] += error
            times[y : y + side, x : x + side] += 1
        return total / times

    @abstractmethod
    def make(self) -> nn.Module:
        """Return the network, untrained."""

    @abstractmethod
    def loss(self, windows: Tensor, noise: torch.Generator) -> Tensor:
        """Return what is made smaller over windows [B, 3, side, side], values 0 to 1."""

    @abstractmethod
    def errors(self, windows: Tensor, noise: torch.Generator) -> Tensor:
        """Return how badly the windows' pixels are given back, [B, side, side]."""

    def given_back(self, windows: Tensor) -> Tensor:
        """Return what the network makes of windows, of their shape."""
        made: Tensor = self._autoencoder(windows)
        return made

    def _places(self, length: int) -> list[int]:
        free = length - self.setting.side
        count = -(-free // self.setting.stride) + 1
        return [round(place) for place in np.linspace(0, free, count)]

    def _noise(self, step: int) -> torch.Generator:
        generator = torch.Generator(self.network.device)
        return generator.manual_seed((self.seed << 32) + step + 1)


def _tensor(windows: Tensor) -> Tensor:
    """Return windows uint8 [B, side, side, 3] as the network takes them."""
    return windows.permute(0, 3, 1, 2).float() / 255
