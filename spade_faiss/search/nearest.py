"""The two searches of SPADE: the nearest images, then the nearest patches among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .level import MOST_NEIGHBOURS, LevelSearch, tensor
from .native import is_short, kernels, search_directly

_CPU = torch.device("cpu")
_PIECE, _LARGE = 1 << 19, 1 << 14
"""Values that are worth a thread to pack, and rows that are packed together at the most."""


def nearest(queries: Any, gallery: Any, k: int = 1, engine: str = "auto") -> tuple[Any, Any]:
    """Return the `k` gallery rows nearest to each query.

    Parameters
    ----------
    queries : float32 [Q, C], NumPy array or torch tensor
    gallery : float32 [G, C], of the same kind, on the same device
    k : int, 1 to G
    engine : {"auto", "faiss", "screened", "triton"}
        All of them are exact. "auto" takes the fastest here: Triton on CUDA; on the CPU
        "screened", the compiled kernels, or FAISS where none were compiled.

    Returns
    -------
    distances : float32 [Q, k]
        Squared Euclidean distances, ascending; computed from the differences themselves, so
        that a near-duplicate's distance loses nothing to cancellation.
    ids : int64 [Q, k]
        Rows of the gallery. Both are of the queries' kind (and device, for tensors).

    Raises
    ------
    ValueError
        If shapes do not fit, `k` is out of range, values are not finite, or the engine is
        unknown or not to be had on the device.

    Examples
    --------
    >>> import numpy as np
    >>> from spade_faiss.search import nearest
    >>> gallery = np.array([[0, 0], [3, 0], [0, 5]], np.float32)
    >>> distances, ids = nearest(np.array([[1, 0]], np.float32), gallery, k=2)
    >>> distances.tolist(), ids.tolist()
    ([[1.0, 4.0]], [[0, 1]])
    """
    q, g = _matrix("queries", queries), _matrix("gallery", gallery)
    (n, channels), (rows, others) = q.shape, g.shape
    if channels != others:
        raise ValueError(f"queries have {channels} channels and the gallery has {others}")
    fits = 1 <= k <= min(rows, MOST_NEIGHBOURS) and engine in ("auto", "screened")
    short = fits and is_short(n, rows, channels, k)
    if short and isinstance(q, np.ndarray) and isinstance(g, np.ndarray):
        found = kernels()
        if found is not None:
            return _like(queries, *search_directly(found, q, g, k))
    per_image = pieces_of(rows, channels)
    images = torch.arange(-(-rows // per_image))
    level = LevelSearch(_tensor(g), per_image)
    distances, ids = level.search(_tensor(q)[None], images[None], k, engine)
    return _like(queries, distances[0], ids[0])


def pieces_of(rows: int, channels: int) -> int:
    """Return how many rows stand for an image where a gallery is no set of images."""
    pieces = max(1, min(torch.get_num_threads(), rows * channels // _PIECE), rows // _LARGE)
    return -(-rows // pieces)


def nearest_in_images(
    queries: Any, patches: Any, images: Any, per_image: int, k: int = 1, engine: str = "auto"
) -> tuple[Any, Any]:
    """Return the `k` patches nearest to each query among those of some training images.

    To search one level again and again, keep a `LevelSearch` of it.

    Parameters
    ----------
    queries : float32 [B, Q, C], NumPy array or torch tensor
        The patches of B images.
    patches : float32 [n * per_image, C], of the same kind, on the same device
        All training patches of one level; row `i * per_image + j` is patch j of image i.
    images : int64 [B, K]
        For each of the B images, the training images to search in.
    per_image : int
        Patches an image at this level, h * w.
    k : int
        Neighbours a query (kappa in the paper).
    engine : see `nearest`

    Returns
    -------
    distances : float32 [B, Q, k], squared Euclidean, ascending
    ids : int64 [B, Q, k], rows of `patches`
    """
    among = torch.as_tensor(images).cpu()
    gallery = LevelSearch(_tensor(patches), per_image)
    distances, ids = gallery.search(_tensor(queries), among, k, engine)
    return _like(queries, distances, ids)


def _matrix(name: str, values: Any) -> npt.NDArray[np.float32] | Tensor:
    """Return rows in float32, contiguous: a tensor where they lie on a device, else an array."""
    if isinstance(values, Tensor):
        rows = values.detach().float().contiguous()
        matrix = rows.numpy() if rows.device == _CPU else rows
    else:
        matrix = np.ascontiguousarray(values, np.float32)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} have shape {np.shape(values)}; pass [rows, channels]")
    return matrix


def _tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().float().contiguous()
    return tensor(np.ascontiguousarray(values, np.float32))


def _like(given: Any, *found: Any) -> tuple[Any, ...]:
    """Return arrays or tensors as what was given: arrays, or tensors."""
    if isinstance(given, Tensor):
        return tuple(map(torch.as_tensor, found))
    return tuple(map(np.asarray, found))
