"""One level's queries and gallery, and the ways of searching it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch

from .setting import Setting

CHUNK = 100
TILE = 1 << 26
"""Distances that the float32 ways hold at a time."""


class Level:
    """One level's queries and gallery, and the ways of searching it."""

    def __init__(self, setting: Setting, number: int) -> None:
        args = setting.args
        network = setting.network()
        most = max(args.batch)
        patches, self.queries = (
            torch.cat([batch.levels[number].flatten(1, 2).float() for batch in batches])
            for batches in (
                setting.features(network, setting.framed(setting.views(count, seed)))
                for count, seed in ((args.train, 1), (most, 2))
            )
        )
        self.per_image, self.channels = self.queries.shape[1:]
        self.patches = patches.view(-1, self.channels)
        generator = torch.Generator().manual_seed(0)
        ids = [torch.randperm(args.train, generator=generator)[: args.k] for _ in range(most)]
        self.images = torch.stack(ids).to(setting.device)

    @property
    def flops(self) -> float:
        """Operations of the product, an image."""
        gallery = self.per_image * self.images.shape[1]
        return 2.0 * self.per_image * gallery * self.channels

    def tiles(self, item: int) -> Iterator[torch.Tensor]:
        """Yield an item's gallery [rows, C] in tiles of whole images."""
        images = self.patches.view(-1, self.per_image, self.channels)
        step = max(1, TILE // self.per_image**2)
        for ids in self.images[item].split(step):
            yield images[ids].flatten(0, 1)

    def cdist(self) -> torch.Tensor:
        """Search for the first item's queries by torch.cdist."""
        best = None
        for tile in self.tiles(0):
            near = torch.cdist(self.queries[0], tile).min(1)
            best = near.values if best is None else torch.minimum(best, near.values)
        assert best is not None
        return best.square()

    def bmm(self) -> torch.Tensor:
        """Search for some items' queries at once by norms and a batched product."""
        items = min(4, len(self.queries))
        queries = self.queries[:items]
        best = None
        for tiles in zip(*(self.tiles(item) for item in range(items)), strict=True):
            for rows in torch.stack(tiles).split(max(1, TILE // self.per_image // items), 1):
                distances = torch.baddbmm(rows.square().sum(2)[:, None], queries, rows.mT, alpha=-2)
                near = distances.min(2).values
                best = near if best is None else torch.minimum(best, near)
        assert best is not None
        return (best + queries.square().sum(2)).clamp_(min=0)

    def pairwise(self, chunks: int) -> torch.Tensor:
        """Take some chunks of the first item's gallery through torch.pairwise_distance."""
        best = torch.full((self.per_image,), torch.inf, device=self.queries.device)
        rows = next(self.tiles(0))
        for at in range(chunks):
            # Where in the gallery the rows lie does not change the time.
            chunk = rows[at * CHUNK % max(1, len(rows) - CHUNK) :][:CHUNK]
            near = torch.pairwise_distance(chunk[:, None], self.queries[0][None])
            best = torch.minimum(best, near.min(0).values)
        return best

    @cached_property
    def on_host(self) -> tuple[np.ndarray, np.ndarray]:
        """The first item's queries and gallery as arrays."""
        gallery = torch.cat(list(self.tiles(0)))
        return self.queries[0].cpu().numpy(), gallery.cpu().numpy()

    def faiss_index(self, resources: Any) -> np.ndarray:
        """Build an index of the first item's gallery on the GPU, and search it, from the host."""
        import faiss

        queries, gallery = self.on_host
        index = faiss.GpuIndexFlatL2(resources, self.channels)
        index.add(gallery)
        return index.search(queries, 1)[0]

    def faiss_knn(self, resources: Any) -> torch.Tensor:
        """Search the first item's gallery by faiss.knn_gpu, all on the GPU."""
        import faiss
        import faiss.contrib.torch_utils  # makes faiss take tensors

        best = None
        for tile in self.tiles(0):
            near = faiss.knn_gpu(resources, self.queries[0], tile, 1)[0][:, 0]
            best = near if best is None else torch.minimum(best, near)
        assert best is not None
        return best
