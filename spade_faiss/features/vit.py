"""The vision transformers of DINOv2; parameters bear Meta's names, so that its checkpoints load.

Dosovitskiy et al., *An Image is Worth 16x16 Words*, 2020; Oquab et al., *DINOv2: Learning Robust
Visual Features without Supervision*, 2023; Darcet et al., *Vision Transformers Need Registers*,
2023.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

from .cells import whole_cells

_norm = partial(nn.LayerNorm, eps=1e-6)


class _PatchEmbed(nn.Module):
    """Squares of the image to tokens [B, C, h, w]."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x)
        return y


class _Attention(nn.Module):
    """Every token looks at all tokens, in several heads."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y: Tensor = self.proj(
            scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        )
        return y


class _Mlp(nn.Module):
    """Two layers, four times as wide between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(gelu(self.fc1(x)))
        return y


class _Scale(nn.Module):
    """A factor a channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Block(nn.Module):
    """Attention and a perceptron; what each adds is scaled."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = _norm(dim), _Attention(dim, heads), _Scale(dim)
        self.norm2, self.mlp, self.ls2 = _norm(dim), _Mlp(dim), _Scale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        y: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return y


class VisionTransformer(nn.Module):
    """A transformer over squares of 14 x 14 pixels that gives inner blocks as levels.

    The levels are three blocks that divide the depth evenly, the last one among them: the 4th,
    8th and 12th of 12. *Dinomaly* (2025) compares the middle ones, the 3rd to the 10th;
    *AnomalyDINO* (2025) compares the last. Each is normalised by the network's last layer, as
    Meta's `get_intermediate_layers` does it: the residual stream grows from block to block, and
    the last level would otherwise outweigh the others.

    Parameters
    ----------
    dim : int
        Channels of a token.
    depth : int
        Blocks, 3 or more.
    heads : int
        Of the attention; they divide `dim`.
    registers : int
        Further tokens that are of no place. As in Meta's networks, those that have them
        interpolate positions with a filter against aliasing.
    side : int
        Squares a side of the images that the positions were learnt for.
    offset : float
        What Meta's networks without registers add to the number of squares a side when positions
        are interpolated. It was meant against rounding errors, and the weights are used with it.
    """

    patch = 14

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        registers: int = 0,
        side: int = 37,
        offset: float = 0.1,
    ) -> None:
        super().__init__()
        self.offset = 0.0 if registers else offset
        self.antialias = registers > 0
        self.patch_embed = _PatchEmbed(dim, self.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        # Not used here, but part of every published checkpoint.
        self.mask_token = nn.Parameter(torch.zeros(1, dim))
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(depth))
        self.norm = _norm(dim)
        self._levels = inner_blocks(depth)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the class token [B, D] and the levels [B, D, h, w], all of sides 1/14.

        An input whose sides are no multiples of 14 is scaled to the nearest ones first.
        """
        squares = self.patch_embed(whole_cells(x, self.patch))
        size = squares.shape[2], squares.shape[3]
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), _listed(squares)], 1)
        tokens = tokens + self.positions(*size)
        first = 1
        if self.register_tokens is not None:
            registers = self.register_tokens.expand(len(x), -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
            first += registers.shape[1]
        levels: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number in self._levels:
                levels.append(self.norm(tokens)[:, first:].transpose(1, 2).unflatten(2, size))
        return self.norm(tokens[:, 0]), levels

    def positions(self, height: int, width: int) -> Tensor:
        """Return what is added to the class token and to height x width squares, [1, 1 + n, D]."""
        side = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if height == width == side:
            return self.pos_embed
        learnt = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        more = self.offset
        resized = interpolate(
            learnt,
            size=None if more else (height, width),
            scale_factor=((height + more) / side, (width + more) / side) if more else None,
            mode="bicubic",
            align_corners=False,
            antialias=self.antialias,
        )
        return torch.cat([self.pos_embed[:, :1], _listed(resized)], 1)


def inner_blocks(depth: int) -> tuple[int, ...]:
    """Return the blocks, counted from 0, that end each third of a network's depth."""
    return tuple(depth * part // 3 - 1 for part in (1, 2, 3))


def _listed(grid: Tensor) -> Tensor:
    """Return a grid [B, C, h, w] as tokens [B, h * w, C]."""
    return grid.flatten(2).transpose(1, 2)


_SIZES = {"vits14": (384, 12, 6), "vitb14": (768, 12, 12), "vitl14": (1024, 24, 16)}
_REGISTERS = {"": 0, "_reg": 4}

VITS: dict[str, Callable[[], VisionTransformer]] = {
    f"dinov2_{size}{suffix}": partial(VisionTransformer, *shape, registers)
    for suffix, registers in _REGISTERS.items()
    for size, shape in _SIZES.items()
}
"""Untrained networks by the names that Meta gives them in torch's hub."""
VIT_CHECKPOINTS = {
    f"dinov2_{size}{suffix}": "https://dl.fbaipublicfiles.com/dinov2/"
    f"dinov2_{size}/dinov2_{size}{suffix and f'_reg{registers}'}_pretrain.pth"
    for suffix, registers in _REGISTERS.items()
    for size in _SIZES
}
"""Where Meta has their checkpoints. No checksum of these is published."""
