"""A network that gives the same features on every processor, for all tests but those of features.

Its filters are Walsh functions of 8 x 8 pixels, which are 1 or -1 everywhere, and what it rounds it
rounds down to whole numbers. Every sum on the way is a whole number below 2^24, and so exact in
float32, in any order: not a bit depends on the processor, on threads, or on the other images of a
batch. Distances of its patches are whole numbers below 2^24 before their root is taken.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d

from spade_faiss.features.backbone import ARCHITECTURES, Architecture

WEIGHTS = Path(__file__).with_name("tiny.safetensors")
CHANNELS = 8


class Tiny(nn.Module):
    """Eight Walsh functions of squares of 8, 16 and 32 pixels, in absolute value."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.zeros(CHANNELS, 3, 8, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return a descriptor [B, 8] and levels [B, 8, h, w] of whole numbers, from pixels."""
        levels = []
        for shrunk in (1, 2, 4):
            sums = conv2d(avg_pool2d(x, shrunk), self.filters, stride=8)
            levels.append(torch.floor(sums.abs() / 32))
        last = levels[-1].flatten(2)
        return torch.floor(last.sum(2) / last.shape[2]), levels


def walsh() -> Tensor:
    """Return the filters, int8 [8, 3, 8, 8]: six of brightness, and two of colour."""
    rows = torch.tensor([[1 - 2 * ((at & k).bit_count() % 2) for at in range(8)] for k in range(8)])
    grey, red_blue, green = (torch.tensor(one) for one in ((1, 1, 1), (1, 0, -1), (1, -2, 1)))
    of_brightness = [(0, 0), (0, 4), (4, 0), (4, 4), (0, 6), (6, 0)]
    parts = [(grey, y, x) for y, x in of_brightness] + [(red_blue, 0, 0), (green, 0, 0)]
    return torch.stack(
        [colour[:, None, None] * rows[y][:, None] * rows[x] for colour, y, x in parts]
    ).to(torch.int8)


def register() -> None:
    """Have `load_backbone` and the command line know the network by the name "tiny"."""
    # Pixels from 0 to 255 are what it takes.
    ARCHITECTURES["tiny"] = Architecture(Tiny, lambda: WEIGHTS, (0.0,) * 3, (1 / 255,) * 3)
