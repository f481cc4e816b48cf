"""A pyramid level's training patches, searched by the engine that suits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from math import ceil, sqrt
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .choice import Kind, fastest, has_fast_products, keeps_float32, kind, known
from .exhaustive import exhaustive_in_images, faiss_has_gpu
from .integers import MOST_CHANNELS
from .product import HELD
from .screen import Screen
from .screened import low_bytes, make_screen, screened
from .timing import seconds_of

if TYPE_CHECKING:
    from .cuda import PreparedGallery

ENGINES = ("auto", "faiss", "screened", "triton")
"""What an exact search may be done by."""

KEEP = 64 << 20
"""Bytes of a gallery that may be kept in low precision from one search to the next."""
SMALL = 1 << 25
"""Multiplications from which on it pays to measure engines."""
_PROBES, _PROBE_ANEW = (1 << 28, 1 << 30), 1 << 31
"""Multiplications that engines are measured with: where what they make is kept, and where not."""
_FEWEST = 12
"""Images that they are measured with, at the least."""
_ONE_AT_A_TIME = Lock()
"""Triton's autotuner is not made for several threads."""
_PRECISIONS = {
    f"screened in {name}": getattr(torch, name) for name in ("int8", "bfloat16", "float32")
}
_NAMES = {dtype: name for name, dtype in _PRECISIONS.items()}
_ROUNDED = (
    "torch rounds products of float32 to bfloat16 on this processor: call "
    "torch.set_float32_matmul_precision('highest')"
)
_WIDE = range(128, MOST_CHANNELS + 1)
"""Channels that pay for what a screen in integers does besides multiplying."""


class LevelSearch:
    """The training patches of one pyramid level.

    What an engine makes of them is made once and kept, within `KEEP` bytes on the CPU.

    Parameters
    ----------
    patches : float32 or float16 [rows, C], NumPy array or torch tensor
        Row `i * per_image + j` is patch j of image i; the last image may have fewer. Only
        read: it may be a file that is mapped into memory. Of float16 no more than a tile is
        turned into float32 at a time; on a GPU, all.
    per_image : int
        Patches an image at this level, h * w.
    once : bool
        Whether it will be searched but once, so that what is made of it counts as well.
    """

    def __init__(
        self, patches: npt.NDArray[np.floating[Any]] | Tensor, per_image: int, once: bool = False
    ) -> None:
        self.patches = patches if isinstance(patches, Tensor) else tensor(patches)
        self.per_image = per_image
        self.once = once
        self._screens: dict[str, Screen] = {}
        self._prepared: PreparedGallery | None = None
        self._largest = torch.full((-(-len(self.patches) // per_image),), torch.nan)

    def search(
        self, queries: Tensor, images: Tensor, k: int = 1, engine: str = "auto"
    ) -> tuple[Tensor, Tensor]:
        """Return for each query its `k` nearest patches among those of its own training images.

        No gallery is gathered where that can be avoided, and what images of a batch have in
        common is prepared once for all of them.

        Parameters
        ----------
        queries : float32 [B, Q, C]
            Where they are, there the search is done: patches are brought to a GPU once if they
            fill no more than half of its free memory, and else those of the images in question.
        images : int64 [B, K], on the CPU, each training image once in a row
        k : int, 1 to the patches of the K images
        engine : one of ENGINES

        Returns
        -------
        distances : float32 [B, Q, k], squared Euclidean, ascending
        ids : int64 [B, Q, k], rows of `patches`

        Raises
        ------
        ValueError
            If `k` is out of range, values are not finite, or the engine is unknown or not to be
            had on this device.
        """
        if engine not in ENGINES:
            raise ValueError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
        fewest = rows_of(images, len(self.patches), self.per_image)
        if not 1 <= k <= fewest:
            raise ValueError(f"k = {k} must lie between 1 and the gallery's {fewest} rows")
        if queries.device != self.patches.device:
            return self._search_there(queries, images, k, engine)
        name = self._choose(queries, images, k, engine)
        return self._run(name, queries, images, k)

    def _search_there(
        self, queries: Tensor, images: Tensor, k: int, engine: str
    ) -> tuple[Tensor, Tensor]:
        """Search on the queries' device."""
        device = queries.device
        if _fits(self.patches, device):
            self.patches = self.patches.to(device, torch.float32)
            self._screens.clear()
            self._prepared = None
            return self.search(queries, images, k, engine)
        some, among, rows = self.only(images)
        some.patches = some.patches.to(device, torch.float32)
        near, ids = some.search(queries, among, k, engine)
        return near, rows.to(device)[ids]

    def only(self, images: Tensor) -> tuple[LevelSearch, Tensor, Tensor]:
        """Return a gallery of some images alone, their places in it, and its rows in this one."""
        kept, places = np.unique(images.numpy(), return_inverse=True)
        rows = torch.from_numpy(kept)[:, None] * self.per_image + torch.arange(self.per_image)
        rows = rows.view(-1)
        rows = rows[rows < len(self.patches)]
        among = torch.from_numpy(places).view(images.shape)
        return LevelSearch(self.patches[rows.to(self.patches.device)], self.per_image), among, rows

    def _choose(self, queries: Tensor, images: Tensor, k: int, engine: str) -> str:
        b, q, channels = queries.shape
        g = images.shape[1] * self.per_image
        if self.patches.is_cuda:
            if engine == "auto":
                return "triton" if _triton_serves(self.patches) else "faiss"
            if engine == "screened":
                raise ValueError("the engine 'screened' is for the CPU: choose triton or faiss")
            return engine
        if engine == "triton":
            raise ValueError("the engine 'triton' needs CUDA: choose screened or faiss")
        if engine == "faiss":
            return engine
        if engine == "auto" and b * q * g * channels < SMALL:
            return "product"
        if not keeps_float32():
            if engine == "screened":
                raise ValueError(_ROUNDED)
            warnings.warn(f"{_ROUNDED}: FAISS searches instead", RuntimeWarning, stacklevel=3)
            return "faiss"
        names = _precisions(channels)
        least = min(low_bytes(len(self.patches), channels, _PRECISIONS[name]) for name in names)
        anew = self.once or least > KEEP
        if engine == "auto":
            names += ["faiss", "product"][: 1 + (q * g <= HELD)]
        if len(names) == 1:
            return names[0]
        of = kind(
            q, g, channels, k, engine, anew, torch.get_num_threads(), self.patches.dtype, b > 1
        )
        return known(of) or self._measure(of, names, queries, images, k, anew)

    def _measure(
        self, of: Kind, names: list[str], queries: Tensor, images: Tensor, k: int, anew: bool
    ) -> str:
        """Measure engines on a part of a search: of one item, or of several that are small.

        Where what an engine makes is kept, it is made before, and few of the images tell, or all
        if it is close; where it is made `anew` each time, fewer of both queries and images.
        """
        work = queries[0].numel() * images.shape[1] * self.per_image

        def part(most: int) -> tuple[Tensor, Tensor]:
            items, share = max(1, most // work), min(1.0, most / work)
            wanted = max(ceil(images.shape[1] * (sqrt(share) if anew else share)), _FEWEST, k)
            some = images[:items, :wanted]
            step = max(1, round(some.shape[1] / (images.shape[1] * share)))
            return queries[:items, ::step], some

        cost = self._cost_anew if anew else self._cost_kept
        probes = (_PROBE_ANEW,) if anew else _PROBES[: 1 + (len(queries) * work > _PROBES[0])]
        chosen = fastest(of, names, [cost(*part(most), k) for most in probes])
        for name in set(self._screens) - {chosen}:
            del self._screens[name]
        return chosen

    def _cost_kept(self, queries: Tensor, images: Tensor, k: int) -> Callable[[str], float]:
        """Return what tells the seconds of a search once what an engine makes is there."""

        @cache
        def make(name: str) -> None:
            if name in _PRECISIONS:
                self._run(name, queries[:, :1], images, k)

        def cost(name: str) -> float:
            make(name)
            return seconds_of(partial(self._run, name, queries, images, k))

        return cost

    def _cost_anew(self, queries: Tensor, images: Tensor, k: int) -> Callable[[str], float]:
        """Return what tells the seconds of a search that makes it all."""

        def cost(name: str) -> float:
            gallery = LevelSearch(self.patches, self.per_image, self.once)
            return seconds_of(partial(gallery._run, name, queries, images, k))

        return cost

    def _run(self, name: str, queries: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if name == "triton":
            return self._fused(queries, images, k)
        if name in ("faiss", "product"):
            if self.patches.is_cuda and not faiss_has_gpu():
                host = LevelSearch(self.patches.cpu(), self.per_image)
                near, ids = host.search(queries.cpu(), images, k, "auto")
                return near.to(queries.device), ids.to(queries.device)
            parts = [
                exhaustive_in_images(
                    one, self.patches, among, self.per_image, k, self._largest, name == "product"
                )
                for one, among in zip(queries, images, strict=True)
            ]
            return torch.stack([part[0] for part in parts]), torch.stack([p[1] for p in parts])
        try:
            return self._screened(name, queries, images, k)
        except OverflowError:
            return self._run("faiss", queries, images, k)

    def _fused(self, queries: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        from .cuda import fused_in_images, prepare

        try:
            with _ONE_AT_A_TIME:
                if self._prepared is None:
                    self._prepared = prepare(self.patches, self.per_image)
                return fused_in_images(
                    queries, self._prepared, images.to(queries.device), self.per_image, k
                )
        except OverflowError:
            return self._run("faiss", queries, images, k)

    def _screened(
        self, name: str, queries: Tensor, images: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        if name not in self._screens:
            self._screens[name] = make_screen(
                self.patches, self.per_image, _PRECISIONS[name], KEEP, images[0].numpy(), self.once
            )
        b, q, channels = queries.shape
        distances = torch.empty(b, q, k)
        ids = torch.empty(b, q, k, dtype=torch.int64)
        # Items of the batch that search among the same images make one set.
        members: dict[bytes, list[int]] = {}
        for item, among in enumerate(np.sort(images.numpy())):
            members.setdefault(among.tobytes(), []).append(item)
        found = screened(
            self._screens[name],
            [queries[who].view(-1, channels) for who in members.values()],
            [images[who[0]].numpy() for who in members.values()],
            k,
        )
        for who, (near, rows) in zip(members.values(), found, strict=True):
            distances[who] = torch.from_numpy(near).view(-1, q, k)
            ids[who] = torch.from_numpy(rows).view(-1, q, k)
        return distances, ids


def rows_of(images: Tensor, rows: int, per_image: int) -> int:
    """Return how many of a level's rows any K images [..., K] have, at least.

    That is less than `per_image` each where the last image is among them and was cut short.
    """
    cut = -rows % per_image
    if cut and not bool((images == (rows - 1) // per_image).any()):
        cut = 0
    return images.shape[-1] * per_image - cut


def tensor(values: npt.NDArray[np.floating[Any]]) -> Tensor:
    """Return a tensor over an array's memory, which may be a read-only file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def _precisions(channels: int) -> list[str]:
    """Return the precisions that are worth screening in."""
    low = [torch.int8] if channels in _WIDE else []
    fast = [dtype for dtype in (*low, torch.bfloat16) if has_fast_products(dtype)]
    return [_NAMES[dtype] for dtype in fast or [torch.float32]]


def _fits(patches: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return patches.numel() * 4 <= free // 2


def _triton_serves(patches: Tensor) -> bool:
    """Say whether Triton is installed and the GPU's tensor cores are those it was written for."""
    try:
        import_module("triton")
    except ModuleNotFoundError:
        return False
    return bool(torch.cuda.get_device_capability(patches.device) >= (8, 0))
