"""A pyramid level's training patches spread over several devices.

Each device holds the patches of some training images, one after another, so that together the
devices hold what one has no room for. A query goes to those that hold some of its K nearest
images; all work at once, and what each finds is merged. The result is that of one device.

FAISS's own `IndexShards` searches all that an index holds; SPADE searches a few images of it,
others for each query, so the sharding is done here, over the engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import SpadeError
from .level import LevelSearch, rows_of, tensor


class ShardedLevel:
    """Like a `LevelSearch`, on several devices.

    Parameters
    ----------
    patches : float32 or float16 [rows, C], NumPy array or torch tensor
    per_image : int
    devices : sequence of str
        Torch devices, each given a like share of the images; the same one may stand twice.
    """

    def __init__(
        self,
        patches: npt.NDArray[np.floating[Any]] | Tensor,
        per_image: int,
        devices: Sequence[str],
    ) -> None:
        rows = patches if isinstance(patches, Tensor) else tensor(patches)
        self.patches = rows
        self.per_image = per_image
        self.devices = tuple(devices)
        n = -(-len(rows) // per_image)
        self._bounds = [n * i // len(devices) for i in range(len(devices) + 1)]
        self._shards = [
            LevelSearch(rows[start * per_image : stop * per_image], per_image)
            for start, stop in zip(self._bounds, self._bounds[1:], strict=False)
        ]
        self._pool = ThreadPoolExecutor(len(devices), "spade-faiss-device")

    def search(
        self, queries: Tensor, images: Tensor, k: int = 1, engine: str = "auto"
    ) -> tuple[Tensor, Tensor]:
        """Return what `LevelSearch.search` returns, on the queries' device.

        Raises
        ------
        ValueError
            If `k` is out of range, or the engine unknown or not to be had on a device.
        SpadeError
            If a device fails, by its name.
        """
        fewest = rows_of(images, len(self.patches), self.per_image)
        if not 1 <= k <= fewest:
            raise ValueError(f"k = {k} must lie between 1 and the gallery's {fewest} rows")
        work = [
            self._pool.submit(self._on, number, queries, images, k, engine)
            for number in range(len(self._shards))
        ]
        found = [one.result() for one in work]
        distances, ids = (torch.cat(both, 2) for both in zip(*found, strict=True))
        distances, order = distances.sort(dim=2, stable=True)
        return distances[..., :k], ids.gather(2, order[..., :k])

    def _on(
        self, number: int, queries: Tensor, images: Tensor, k: int, engine: str
    ) -> tuple[Tensor, Tensor]:
        """Search the images of one shard for each item of a batch; infinity where it has none."""
        start, stop = self._bounds[number : number + 2]
        distances = queries.new_full((*queries.shape[:2], k), torch.inf)
        ids = torch.full(distances.shape, -1, dtype=torch.int64, device=queries.device)
        here = (images >= start) & (images < stop)
        name, shard = self.devices[number], self._shards[number]
        held = torch.tensor(
            [
                rows_of(one[among] - start, len(shard.patches), self.per_image)
                for one, among in zip(images, here, strict=True)
            ]
        )
        try:
            # Items with as many rows here make one search: then all can have as many neighbours.
            for rows_here in sorted(set(held.tolist())):
                if rows_here == 0:
                    continue
                who = (held == rows_here).nonzero().view(-1)
                own = images[who][here[who]].view(len(who), -1) - start
                most = min(k, rows_here)
                place = who.to(queries.device)
                near, rows = shard.search(queries[place].to(name), own, most, engine)
                distances[place, :, :most] = near.to(queries.device)
                ids[place, :, :most] = rows.to(queries.device) + start * self.per_image
        except (RuntimeError, MemoryError, AssertionError) as error:
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            others = ",".join(one for i, one in enumerate(self.devices) if i != number)
            raise SpadeError(
                f"device {name} failed: {reason}; go on without it by `device='{others}'`"
            ) from error
        return distances, ids


def level_search(
    patches: npt.NDArray[np.floating[Any]], per_image: int, devices: Sequence[str]
) -> LevelSearch | ShardedLevel:
    """Return the search of a level on one device, that of the queries, or on several."""
    if len(devices) > 1 and len(patches) >= len(devices) * per_image:
        return ShardedLevel(patches, per_image, devices)
    return LevelSearch(patches, per_image)
