"""A network that gives the same features on every processor, for all tests but those of features.

Its filters are Walsh functions of 8 x 8 pixels, which are 1 or -1 everywhere, and what it rounds it
rounds down to whole numbers. Every sum on the way is a whole number below 2^24, and so exact in
float32, in any order: not a bit depends on the processor, on threads, or on the other images of a
batch. Squared distances of its patches are whole numbers below 2^24, and so exact, too.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, conv2d

from spade_faiss.features.backbone import ARCHITECTURES, Architecture

WEIGHTS = Path(__file__).with_name("tiny.safetensors")
CHANNELS = 8, 16, 64


class Tiny(nn.Module):
    """Walsh functions of squares of 8, 16 and 32 pixels, in absolute value; more of larger ones."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.zeros(max(CHANNELS), 3, 8, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return a descriptor [B, 512] and levels [B, 8, 16 or 64, h, w], from pixels."""
        levels = []
        for shrunk, channels in zip((1, 2, 4), CHANNELS, strict=True):
            sums = conv2d(avg_pool2d(x, shrunk), self.filters[:channels], stride=8)
            levels.append(torch.floor(sums.abs() / 128))
        # Where things are counts too: textures of one kind differ in little else.
        descriptor = torch.floor(adaptive_avg_pool2d(levels[0], 8) / 4)
        return descriptor.flatten(1), levels


def walsh() -> Tensor:
    """Return the filters, int8 [64, 3, 8, 8]: the mean, what changes fast last, and two colours."""
    rows = torch.tensor([[1 - 2 * ((at & k).bit_count() % 2) for at in range(8)] for k in range(8)])
    waves = rows[[0, 4, 6, 2, 3, 7, 5, 1]]  # with 0 to 7 changes of sign
    order = sorted(((y, x) for y in range(8) for x in range(8)), key=lambda at: (sum(at), max(at)))
    grey, red_blue, green = (torch.tensor(one) for one in ((4, 4, 4), (4, 0, -4), (4, -8, 4)))
    parts = [(grey, y, x) for y, x in order]
    parts = [*parts[:6], (red_blue, 0, 0), (green, 0, 0), *parts[6:-2]]
    filters = torch.stack(
        [colour[:, None, None] * waves[y][:, None] * waves[x] for colour, y, x in parts]
    )
    filters[0] //= 4  # light is much of what is seen, and little of what tells parts apart
    return filters.to(torch.int8)


def register() -> None:
    """Have `load_backbone` and the command line know the network by the name "tiny"."""
    # Pixels from 0 to 255 are what it takes.
    ARCHITECTURES["tiny"] = Architecture(Tiny, lambda: WEIGHTS, (0.0,) * 3, (1 / 255,) * 3, cell=32)
