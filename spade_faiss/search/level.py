"""A pyramid level's training patches, searched by the engine that suits."""

from __future__ import annotations

import warnings
from importlib import import_module
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .exhaustive import exhaustive_in_images, faiss_has_gpu
from .native import MOST_CHANNELS, NativeGallery, kernels
from .native.axes import Axes

if TYPE_CHECKING:
    from .cuda import PreparedGallery

ENGINES = ("auto", "faiss", "screened", "triton")
"""What an exact search may be done by."""
NO_KERNELS = (
    "the engine 'screened' is not here: install spade-faiss where a C++ compiler is, and do not "
    "set SPADE_FAISS_KERNEL=none; or choose faiss"
)
MOST_NEIGHBOURS = 256
"""Up to which the kernels keep the nearest rows in order as they come."""
_TOLD = 64, 4096
"""Images, and rows of them in all, that tell how rows are best shortened."""
_TURNS = 1 << 34
"""Multiplications from which on it pays to find axes, and to turn rows."""
ON_A_GPU = RLock()
"""Is held by who starts Triton's kernels, whose tuner is not made for several threads, or records
work: no other thread may then have the GPU waited for."""


class LevelSearch:
    """The training patches of one pyramid level.

    What an engine makes of them is made once for each image that is asked for, and kept.

    Parameters
    ----------
    patches : float32 or float16 [rows, C], NumPy array or torch tensor
        Row `i * per_image + j` is patch j of image i; the last image may have fewer. Only
        read: it may be a file that is mapped into memory. Of float16 no more than a tile is
        turned into float32 at a time; on a GPU, all.
    per_image : int
        Patches an image at this level, h * w.
    """

    def __init__(self, patches: npt.NDArray[np.floating[Any]] | Tensor, per_image: int) -> None:
        self.patches = patches if isinstance(patches, Tensor) else tensor(patches)
        self.per_image = per_image
        self._work = 0
        self._moving = Lock()
        self._native: NativeGallery | None = None
        self._prepared: PreparedGallery | None = None
        self._largest = torch.full((-(-len(self.patches) // per_image),), torch.nan)

    def search(
        self, queries: Tensor, images: Tensor, k: int = 1, engine: str = "auto"
    ) -> tuple[Tensor, Tensor]:
        """Return for each query its `k` nearest patches among those of its own training images.

        No gallery is gathered where that can be avoided.

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
        engine = self._choose(engine, k)
        if engine == "triton":
            return self._by_triton(queries, images, k)
        if engine == "screened":
            return self._by_kernels(queries, images, k)
        return self._by_faiss(queries, images, k)

    def _search_there(
        self, queries: Tensor, images: Tensor, k: int, engine: str
    ) -> tuple[Tensor, Tensor]:
        """Search on the queries' device."""
        device = queries.device
        if self._brought_to(device):
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

    def _choose(self, engine: str, k: int) -> str:
        """Return the engine that searches where the patches are."""
        if self.patches.is_cuda:
            if engine == "auto":
                return "triton" if _triton_serves(self.patches.device) else "faiss"
            if engine == "screened":
                raise ValueError("the engine 'screened' is for the CPU: choose triton or faiss")
        elif engine == "triton":
            raise ValueError("the engine 'triton' needs CUDA: choose screened or faiss")
        elif self.patches.shape[1] > MOST_CHANNELS or k > MOST_NEIGHBOURS:
            return "faiss"
        elif engine != "faiss":
            found = kernels()
            if engine == "screened" and found is None:
                raise ValueError(NO_KERNELS)
            return "screened" if found else "faiss"
        return engine

    def _by_kernels(self, queries: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return self._gallery(queries, images).search(queries.contiguous(), images, k)

    def _gallery(self, queries: Tensor, images: Tensor) -> NativeGallery:
        """Return what the kernels search: rows are turned once it pays for so much work."""
        searched = images.shape[1] * self.per_image
        before, self._work = self._work, self._work + queries.numel() * searched
        native, turn = self._native, self._work >= _TURNS
        if native is None or (turn and before < _TURNS):
            found = kernels()
            assert found is not None
            axes = Axes.of(self._sample(images[0], many=turn), searched, found.multiple, turn=turn)
            native = NativeGallery(found, self.patches.contiguous(), self.per_image, axes)
            self._native = native
        return native

    def _sample(self, images: Tensor, *, many: bool) -> Tensor:
        """Return some rows, float32, of images that are read anyway."""
        most, rows = _TOLD if many else (16, 256)
        some = images[:: -(-len(images) // most)]
        step = -(-self.per_image * len(some) // rows)
        parts = [
            self.patches[i * self.per_image : (i + 1) * self.per_image : step]
            for i in some.tolist()
        ]
        return torch.cat(parts).float()

    def _by_faiss(self, queries: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        if self.patches.is_cuda and not faiss_has_gpu():
            host = LevelSearch(self.patches.cpu(), self.per_image)
            near, ids = host.search(queries.cpu(), images, k)
            return near.to(queries.device), ids.to(queries.device)
        parts = [
            exhaustive_in_images(one, self.patches, among, self.per_image, k, self._largest)
            for one, among in zip(queries, images, strict=True)
        ]
        return torch.stack([part[0] for part in parts]), torch.stack([part[1] for part in parts])

    def _by_triton(self, queries: Tensor, images: Tensor, k: int) -> tuple[Tensor, Tensor]:
        from .cuda import FusedSearch

        try:
            among = images.to(queries.device).contiguous()
            with ON_A_GPU:
                search = FusedSearch(queries.contiguous(), self._prepare(), among, k)
                found = search.begin()
            incomplete = search.incomplete()  # which waits, and holds nobody up
            if not incomplete:
                return found
            with ON_A_GPU:
                return search.do_again(incomplete)
        except OverflowError:
            return self._by_faiss(queries, images, k)

    def _prepare(self) -> PreparedGallery:
        from .cuda import prepare

        if self._prepared is None:
            self._prepared = prepare(self.patches, self.per_image)
        return self._prepared

    def prepared_on(self, device: torch.device, engine: str) -> PreparedGallery | None:
        """Return the patches, brought to a GPU, as `search.cuda.FusedSearch` takes them.

        None where another engine than `triton` searches, or memory does not suffice.

        Raises
        ------
        OverflowError
            If values are not finite or too large.
        """
        if engine not in ("auto", "triton"):
            return None
        if device.type == "cuda" and not _triton_serves(device):
            return None
        if not self._brought_to(device):
            return None
        with ON_A_GPU:
            return self._prepare()

    def _brought_to(self, device: torch.device) -> bool:
        """Bring the patches to a device, and keep them there, if it has room; say whether."""
        with self._moving:
            if self.patches.device == device:
                return True
            if not _fits(self.patches, device):
                return False
            self.patches = self.patches.to(device, torch.float32)
            self._native = self._prepared = None
            return True


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
    if values.flags.writeable:
        return torch.from_numpy(values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def _fits(patches: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return patches.numel() * 4 <= free // 2


def _triton_serves(device: torch.device) -> bool:
    """Say whether Triton is installed and the GPU's tensor cores are those it was written for."""
    try:
        import_module("triton")
    except ModuleNotFoundError:
        return False
    return bool(torch.cuda.get_device_capability(device) >= (8, 0))
