"""The ResNets of SPADE; parameters bear torchvision's names, so that its checkpoints load.

He et al., *Deep Residual Learning for Image Recognition*, 2015; Zagoruyko & Komodakis, *Wide
Residual Networks*, 2016. As in the published checkpoints, a bottleneck strides in its 3x3
convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn


def _conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs)


class _Block(nn.Module):
    """What both kinds of block share: a shortcut, projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(*_conv_norm(inputs, outputs, 1, stride))

    def _join(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.relu_(y.add_(x if self.downsample is None else self.downsample(x)))


class BasicBlock(_Block):
    """Two 3x3 convolutions, as in ResNet-18."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__(inputs, planes, stride)
        self.conv1, self.bn1 = _conv_norm(inputs, planes, 3, stride)
        self.conv2, self.bn2 = _conv_norm(planes, planes, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, planes, h / stride, w / stride]."""
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self._join(x, y)


class Bottleneck(_Block):
    """1x1, 3x3 and 1x1 convolutions; `width_per_64` planes inside, 64 or (wide) 128."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, width_per_64: int = 64) -> None:
        super().__init__(inputs, planes * self.expansion, stride)
        width = planes * width_per_64 // 64
        self.conv1, self.bn1 = _conv_norm(inputs, width, 1)
        self.conv2, self.bn2 = _conv_norm(width, width, 3, stride)
        self.conv3, self.bn3 = _conv_norm(width, planes * self.expansion, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] to [B, 4 planes, h / stride, w / stride]."""
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = torch.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self._join(x, y)


class ResNet(nn.Module):
    """A residual network that gives its inner levels.

    Parameters
    ----------
    block : callable
        Builds one block from (inputs, planes, stride).
    expansion : int
        Output channels a plane of that block.
    depths : sequence of four ints
        Blocks in each layer.
    """

    def __init__(
        self, block: Callable[[int, int, int], nn.Module], expansion: int, depths: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv_norm(3, 64, 7, 2)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = 64
        layers: list[nn.Sequential] = []
        for number, depth in enumerate(depths):
            planes = 64 << number
            blocks: list[nn.Module] = []
            for at in range(depth):
                blocks.append(block(channels, planes, 2 if number and not at else 1))
                channels = planes * expansion
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        # Not used here, but part of every published checkpoint.
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the pooled last layer [B, D] and the outputs of layers 1 to 3 [B, C, h, w].

        Sides are 1/4, 1/8 and 1/16 of the input's (SPADE, section 3.3).
        """
        x = self.maxpool(torch.relu_(self.bn1(self.conv1(x))))
        levels: list[Tensor] = []
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            levels.append(x)
        return torch.flatten(nn.functional.adaptive_avg_pool2d(self.layer4(x), 1), 1), levels


RESNETS: dict[str, Callable[[], ResNet]] = {
    "wide_resnet50_2": partial(ResNet, partial(Bottleneck, width_per_64=128), 4, (3, 4, 6, 3)),
    "resnet18": partial(ResNet, BasicBlock, 1, (2, 2, 2, 2)),
    "resnet50": partial(ResNet, Bottleneck, 4, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, 4, (3, 4, 23, 3)),
}
"""Untrained networks by torchvision's names."""
