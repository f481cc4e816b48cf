"""ConvNeXt; parameters bear Meta's names, and torchvision's checkpoints load too.

Liu et al., *A ConvNet for the 2020s*, 2022.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from .cells import whole_cells

_CELL = 32
"""Input pixels a side of a place of the last stage."""


class _Norm(nn.LayerNorm):
    """Normalises each place of a map [B, C, h, w] over its channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """A 7x7 convolution of each channel by itself, and a perceptron of each place."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(y)))
        z: Tensor = x + y.permute(0, 3, 1, 2)
        return z


class ConvNeXt(nn.Module):
    """A convolutional network that gives its inner levels.

    Parameters
    ----------
    depths : sequence of four ints
        Blocks in each stage.
    dims : sequence of four ints
        Channels in each stage.
    """

    def __init__(self, depths: Sequence[int], dims: Sequence[int]) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, 4), _Norm(dims[0], eps=1e-6))
        self.downsample_layers = nn.ModuleList([stem])
        for inputs, outputs in pairwise(dims):
            self.downsample_layers.append(
                nn.Sequential(_Norm(inputs, eps=1e-6), nn.Conv2d(inputs, outputs, 2, 2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Block(dim) for _ in range(depth)))
            for depth, dim in zip(depths, dims, strict=True)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        # Not used here, but part of every published checkpoint.
        self.head = nn.Linear(dims[-1], 1000)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the pooled last stage [B, D] and the outputs of stages 1 to 3 [B, C, h, w].

        Sides are 1/4, 1/8 and 1/16 of the input's. An input whose sides are no multiples of 32 is
        scaled to the nearest ones first.
        """
        x = whole_cells(x, _CELL)
        levels: list[Tensor] = []
        for shrink, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(shrink(x))
            levels.append(x)
        return self.norm(levels.pop().mean((2, 3))), levels


CONVNEXTS: dict[str, Callable[[], ConvNeXt]] = {
    "convnext_tiny": partial(ConvNeXt, (3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": partial(ConvNeXt, (3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": partial(ConvNeXt, (3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnext_large": partial(ConvNeXt, (3, 3, 27, 3), (192, 384, 768, 1536)),
}
"""Untrained networks by the names that Meta and torchvision give them."""

_OF_BLOCK = {"0": "dwconv", "2": "norm", "3": "pwconv1", "5": "pwconv2"}
"""Meta's names of what torchvision numbers."""


def with_own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint of Meta or of torchvision by Meta's names."""
    return dict(_own_name(key, value) for key, value in state.items())


def _own_name(key: str, value: Tensor) -> tuple[str, Tensor]:
    if part := re.fullmatch(r"features\.(\d+)\.(\d+)\.(.+)", key):
        number, rest = int(part[1]) // 2, part[3]
        if int(part[1]) % 2 == 0:  # what shrinks and what does not take turns
            return f"downsample_layers.{number}.{part[2]}.{rest}", value
        block = f"stages.{number}.{part[2]}"
        if rest == "layer_scale":
            return f"{block}.gamma", value.flatten()
        if (inner := re.fullmatch(r"block\.(\d)\.(.+)", rest)) and inner[1] in _OF_BLOCK:
            return f"{block}.{_OF_BLOCK[inner[1]]}.{inner[2]}", value
    if key.startswith("classifier.0."):
        return key.replace("classifier.0.", "norm."), value
    if key.startswith("classifier.2."):
        return key.replace("classifier.2.", "head."), value
    return key, value
