"""Student: networks that learn a pretrained one's answers on good images, and err elsewhere.

Bergmann et al., *Uninformed Students* (CVPR 2020): several students of one architecture and
different first weights learn to predict the descriptors that a pretrained teacher gives to every
place of a good image. A place's score is the squared error of the students' mean, plus the
variance between them, each less its mean and divided by its standard deviation over good images
that were not trained on. Each student sees 65 x 65 pixels around a place:

    convolution 5 (128), pooling 2, convolution 5 (128), pooling 2, convolution 5 (128), pooling 2,
    convolution 4 (256), convolution 3 (128), convolution 1 (the descriptor's channels)

with leaky ReLUs (0.005). Trained by Adam (rate 1e-4, decay 1e-5) for 100 epochs, an image a step:
25 000 steps, as a category of MVTec AD has some 250 images.

Differences: the teacher is the backbone's middle level (one descriptor every 8 pixels), not a
network distilled to see as much as a student and trained on patches of ImageNet, which is not
published. The paper computes a descriptor for every pixel, by dilation; here the poolings' stride
leaves one every 8, just where the teacher has them, and the map is enlarged. One of ten good images
is held back, and at least one if there are two. One receptive field only. `small` has 24 channels
in place of 128, and takes 1500 steps of an image a student at a rate of 1e-3. Image score: the
map's maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .method import Floats, Image, Method, enlarged
from .training import Schedule, key_of, seeded, train

_LEVEL = 1
"""The teacher's pyramid level, whose sides are 1/8 of the image's."""
_HELD_BACK = 10
"""One of so many good images is not trained on."""


@dataclass(frozen=True)
class Setting:
    """Settings of the students.

    Attributes
    ----------
    schedule : Schedule
    channels : int
        Of the first convolution; the others' follow.
    students : int
    """

    schedule: Schedule
    channels: int = 128
    students: int = 3


def student(channels: int, outputs: int) -> nn.Sequential:
    """Return images [B, 3, H, W] to descriptors [B, outputs, H / 8, W / 8]."""
    layers: list[nn.Module] = []
    before = 3
    for _ in range(3):
        layers += [nn.Conv2d(before, channels, 5, padding=2), nn.LeakyReLU(0.005), nn.MaxPool2d(2)]
        before = channels
    return nn.Sequential(
        *layers,
        nn.ZeroPad2d((1, 2, 1, 2)),
        nn.Conv2d(channels, 2 * channels, 4),
        nn.LeakyReLU(0.005),
        nn.Conv2d(2 * channels, channels, 3, padding=1),
        nn.LeakyReLU(0.005),
        nn.Conv2d(channels, outputs, 1),
    )


class Student(Method):
    """See the module."""

    budgets: ClassVar = {
        "small": Setting(Schedule(steps=1500, batch=1, rate=1e-3), channels=24),
        "paper": Setting(Schedule(steps=25_000, batch=1, rate=1e-4, keep_every=1000)),
    }

    def fit(self, images: Sequence[Image]) -> None:
        """Train the students on most good images, and scale errors by the others'."""
        order = np.random.default_rng(self.seed).permutation(len(images))
        back = max(1, len(images) // _HELD_BACK) if len(images) > 1 else 0
        held, seen = order[:back], order[back:]
        pixels = [self._pixels(images[i]) for i in seen]
        answers = [self._answer(images[i]) for i in seen]
        every = torch.stack(answers)
        self._mean = every.mean((0, 2, 3))[:, None, None]
        self._std = every.std((0, 2, 3))[:, None, None].clamp_min(1e-6)
        targets = [(answer - self._mean) / self._std for answer in answers]
        channels = every.shape[1]
        self._students = seeded(
            lambda: nn.ModuleList(
                student(self.setting.channels, channels) for _ in range(self.setting.students)
            ),
            self.seed,
        ).to(
            self.network.device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        schedule: Schedule = self.setting.schedule

        def loss(step: int) -> Tensor:
            rng = np.random.default_rng((self.seed, step))
            losses = []
            for one in self._students:  # each its own images, so that they differ where they guess
                which = rng.integers(0, len(pixels), schedule.batch)
                made = one(torch.stack([pixels[i] for i in which]))
                losses.append(
                    nn.functional.mse_loss(made, torch.stack([targets[i] for i in which]))
                )
            return torch.stack(losses).sum()

        self.taken_up = train(self._students, loss, schedule, self.checkpoint, key_of(self, images))
        judged = [self._judge(images[i]) for i in (held if back else seen)]
        error, variance = (torch.stack(both) for both in zip(*judged, strict=True))
        self._usual = [(both.mean(), both.std().clamp_min(1e-12)) for both in (error, variance)]

    def map(self, image: Image) -> Floats:
        """Return error and variance, each in standard deviations of good images', summed."""
        scaled = [
            (values - mean) / std
            for values, (mean, std) in zip(self._judge(image), self._usual, strict=True)
        ]
        return enlarged(torch.stack(scaled).sum(0).cpu().numpy(), image)

    @torch.inference_mode()
    def _judge(self, image: Image) -> tuple[Tensor, Tensor]:
        """Return the students' squared error and their variance, both [h, w]."""
        answer = (self._answer(image) - self._mean) / self._std
        made = torch.stack([one(self._pixels(image)[None])[0] for one in self._students])
        return ((made.mean(0) - answer).square().sum(0), made.var(0, correction=0).sum(0))

    def _pixels(self, image: Image) -> Tensor:
        """Return an image as the students see it, [3, H, W]."""
        whole = torch.from_numpy(np.array(image)).to(self.network.device)
        return whole.permute(2, 0, 1).float() / 127.5 - 1

    def _answer(self, image: Image) -> Tensor:
        """Return the teacher's descriptors [C, h, w]."""
        level = self.network(image[None]).levels[_LEVEL]
        return level[0].permute(2, 0, 1).clone()
