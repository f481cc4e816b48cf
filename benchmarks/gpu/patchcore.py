"""PatchCore as two projects do it, rewritten as its paper and their public pages describe it.

Roth et al., *Towards total recall in industrial anomaly detection* (CVPR 2022). Both take layers 2
and 3, average 3 x 3 patches, bring layer 3 to layer 2's grid, keep a tenth of all patches by greedy
k-centre on a random projection, and search these exactly for each patch of an image.

- `LikeAnomalib`: 1536 channels; the projection's size is by Johnson and Lindenstrauss's bound with
  eps = 0.9; `torch.cdist`; the image score is weighted by 9 neighbours (the paper's equation 7);
  maps are enlarged and smoothed on the device.
- `LikeInspection`, of patchcore-inspection: each layer's patches are averaged to 1024 channels, and
  both layers together to 1024; a projection to 128, and ten rows to start from; features go to the
  host, and FAISS's flat index, on a GPU if FAISS has one, searches them there; the image score is
  the largest distance; maps are smoothed on the host.

Where these do work whose outcome can be had sooner, it is done so here, and the host is not
waited for while rows are chosen: a rewrite is meant to be no slower than what it stands for.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import (
    adaptive_avg_pool1d,
    avg_pool2d,
    conv2d,
    interpolate,
    pad,
    unfold,
)

from .device import faiss_kind, faiss_place
from .entrant import NEIGHBOURS, SHARE, Entrant, Floats
from .setting import Pixels, Setting

SIGMA = 4.0
CHANNELS = 1024
"""Of a patch in patchcore-inspection."""
QUERIES = 1024
"""That anomalib compares with all rows at a time."""


class Trunk:
    """Layers 2 and 3 of a ResNet, float32 [b, C, h, w]; what comes after is not computed."""

    def __init__(self, setting: Setting) -> None:
        from spade_faiss.features.resnet import RESNETS

        network: Any = RESNETS[setting.backbone]().eval().requires_grad_(False)
        network.load_state_dict(setting.state())
        self._network = network.to(setting.device)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return both levels of images [b, 3, h, w]."""
        network = self._network
        x = network.maxpool(torch.relu_(network.bn1(network.conv1(images))))
        second = network.layer2(network.layer1(x))
        return second, network.layer3(second)


class PatchCore(Entrant):
    """What both share."""

    starts: int
    """Rows that the choice begins from."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._trunk = Trunk(setting)

    @abstractmethod
    def patches(self, levels: tuple[Tensor, Tensor]) -> Tensor:
        """Return patches [b, C, h, w] of both levels."""

    @abstractmethod
    def projected_to(self, rows: int) -> int:
        """Return the channels of the projection that so many rows are chosen on."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Keep the rows [m, C] that were chosen, to be searched."""

    @torch.inference_mode()
    def learn(self, images: Pixels) -> None:
        """Choose a tenth of all patches."""
        rows = torch.cat([self.rows(self.patches(self._trunk(b))) for b in self.batches(images)])
        count = max(1, int(SHARE * len(rows)))
        self.keep(rows[k_centres(rows, count, self.projected_to(len(rows)), self.starts)])

    @staticmethod
    def rows(patches: Tensor) -> Tensor:
        """Return patches as rows [b h w, C]."""
        return patches.permute(0, 2, 3, 1).flatten(0, 2)

    def enlarged(self, distances: Tensor) -> Tensor:
        """Return distances [b, h, w] on the input's pixels."""
        size = (self.setting.crop, self.setting.crop)
        return interpolate(distances[:, None], size, mode="bilinear")


class LikeAnomalib(PatchCore):
    """See the module."""

    by = "a rewrite of anomalib's steps"
    starts = 1

    def patches(self, levels: tuple[Tensor, Tensor]) -> Tensor:
        """Average each level, and put one behind the other."""
        second, third = (avg_pool2d(level, 3, 1, 1) for level in levels)
        return torch.cat([second, interpolate(third, second.shape[2:], mode="bilinear")], 1)

    def projected_to(self, rows: int) -> int:
        """Return Johnson and Lindenstrauss's bound."""
        return math.ceil(4 * math.log(rows) / (0.9**2 / 2 - 0.9**3 / 3))

    def keep(self, rows: Tensor) -> None:
        """Keep rows on the device."""
        self._memory = rows

    @torch.inference_mode()
    def judge(self, images: Pixels) -> tuple[Floats, Floats]:
        """Search, weight, enlarge and smooth."""
        scores, maps = [], []
        for batch in self.batches(images):
            patches = self.patches(self._trunk(batch))
            rows = self.rows(patches)
            near, ids = (one[:, 0].view(len(batch), -1) for one in nearest(rows, self._memory, 1))
            scores.append(self._weighted(rows.view(*near.shape, -1), near, ids).cpu())
            grid = near.view(len(batch), *patches.shape[2:])
            maps.append(smoothed(self.enlarged(grid), SIGMA)[:, 0].cpu())
        return torch.cat(scores).numpy(), torch.cat(maps).numpy()

    def _weighted(self, patches: Tensor, near: Tensor, ids: Tensor) -> Tensor:
        """Return the largest distances, weighted by what is around the patches they are to."""
        worst = near.argmax(1, keepdim=True)
        patch = patches.take_along_dim(worst[:, :, None], 1)
        match = self._memory[ids.take_along_dim(worst, 1)[:, 0]]
        _, around = nearest(match, self._memory, min(NEIGHBOURS, len(self._memory)))
        others = torch.linalg.vector_norm(self._memory[around] - patch, dim=2)
        largest = near.take_along_dim(worst, 1)[:, 0]
        return (1 - torch.softmax(others, 1)[:, 0]) * largest


class LikeInspection(PatchCore):
    """See the module."""

    starts = 10

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._on_gpu = bool(faiss_kind()[1])
        self.by = f"a rewrite of patchcore-inspection's steps, {faiss_place()}"

    def patches(self, levels: tuple[Tensor, Tensor]) -> Tensor:
        """Average the 3 x 3 patches of each level to 1024 channels, and both to as many.

        Averages over channels and the enlargement of the grid may be done in either order.
        """
        grid = levels[0].shape[2:]
        averaged = []
        for level in levels:
            cells = unfold(level, 3, padding=1).mT
            few = adaptive_avg_pool1d(cells, CHANNELS).mT.unflatten(2, level.shape[2:])
            averaged.append(interpolate(few, grid, mode="bilinear"))
        both = torch.cat(averaged, 1).permute(0, 2, 3, 1).flatten(0, 2)
        pooled = adaptive_avg_pool1d(both, CHANNELS)
        return pooled.view(len(levels[0]), *grid, CHANNELS).permute(0, 3, 1, 2)

    def projected_to(self, rows: int) -> int:
        """Return 128."""
        return 128

    def keep(self, rows: Tensor) -> None:
        """Build an index."""
        import faiss

        self._index: Any = faiss.IndexFlatL2(rows.shape[1])
        if self._on_gpu:
            self._index = faiss.GpuIndexFlatL2(faiss.StandardGpuResources(), rows.shape[1])
        self._index.add(rows.cpu().numpy())

    @torch.inference_mode()
    def judge(self, images: Pixels) -> tuple[Floats, Floats]:
        """Search on the host's side, enlarge, and smooth there."""
        scores, maps = [], []
        for batch in self.batches(images):
            patches = self.patches(self._trunk(batch))
            squared, _ = self._index.search(self.rows(patches).cpu().numpy(), 1)
            near = squared.reshape(len(batch), *patches.shape[2:])
            scores.append(near.max((1, 2)))
            larger = self.enlarged(torch.from_numpy(near).to(batch.device))[:, 0]
            maps += [gaussian_filter(one, SIGMA) for one in larger.cpu().numpy()]
        return np.concatenate(scores), np.stack(maps)


def k_centres(rows: Tensor, count: int, channels: int, starts: int, seed: int = 0) -> Tensor:
    """Choose rows greedily, each the farthest from all that were chosen before.

    Parameters
    ----------
    rows : float32 [n, C]
    count : int
        Rows to choose.
    channels : int
        Of a random projection on which distances are computed, if it has fewer than the rows.
    starts : int
        Rows drawn at random. One is the first that is chosen; of several, none is, but what is far
        from all that were chosen must be as far as these are on average.
    seed : int

    Returns
    -------
    int64 [count]
    """
    generator = torch.Generator(rows.device).manual_seed(seed)
    if channels < rows.shape[1]:
        shape = rows.shape[1], channels
        random = torch.randn(shape, generator=generator, device=rows.device)
        rows = rows @ random / math.sqrt(channels)
    norms = rows.square().sum(1)

    def squared(at: Tensor) -> Tensor:
        row = rows.index_select(0, at)
        apart = torch.addmv(norms, rows, row[0], alpha=-2) + norms.index_select(0, at)
        return apart.clamp_min_(0)

    drawn = torch.randperm(len(rows), generator=generator, device=rows.device)[:starts]
    bound = torch.stack([squared(at) for at in drawn.split(1)]).mean(0)
    chosen = torch.empty(count, dtype=torch.int64, device=rows.device)
    for number in range(count):
        at = drawn if number == 0 and starts == 1 else bound.argmax(0, keepdim=True)
        chosen[number : number + 1] = at
        torch.minimum(bound, squared(at), out=bound)
        bound.index_fill_(0, at, -1.0)
    return chosen


def nearest(queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return distances to the k nearest rows, ascending, and the rows, [Q, k], by torch.cdist."""
    near, ids = [], []
    for part in queries.split(QUERIES):
        apart = torch.cdist(part, rows)
        found = apart.min(1, keepdim=True) if k == 1 else apart.topk(k, largest=False)
        near.append(found[0])
        ids.append(found[1])
    return torch.cat(near), torch.cat(ids)


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Return maps [b, 1, h, w] under a Gaussian of four standard deviations, mirrored at edges."""
    reach = int(4 * sigma + 0.5)
    x = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    wide = pad(maps, (reach, reach, reach, reach), "reflect")
    return conv2d(conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
