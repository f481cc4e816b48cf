"""The two searches of SPADE: the nearest images, then the nearest patches among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .._faiss import faiss

ENGINES = ("auto", "faiss")

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Array = TypeVar("Array")

_TILE_BYTES = 64 << 20
"""How much of a gallery that lies in pieces is gathered at a time."""


def nearest(
    queries: Any, gallery: Any, k: int = 1, engine: str = "auto"
) -> tuple[Any, Any]:
    """Return the `k` gallery rows nearest to each query.

    Parameters
    ----------
    queries : float32 [Q, C], NumPy array or torch tensor
    gallery : float32 [G, C], of the same kind
    k : int, 1 to G
    engine : {"auto", "faiss"}

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
        unknown.
    """
    _check_engine(engine)
    if not isinstance(queries, np.ndarray):
        import torch

        if isinstance(queries, torch.Tensor):
            distances, ids = nearest(_host(queries), _host(gallery), k, engine)
            return (torch.from_numpy(distances).to(queries.device),
                    torch.from_numpy(ids).to(queries.device))
    q, g = _matrix("queries", queries), _matrix("gallery", gallery)
    if q.shape[1] != g.shape[1]:
        raise ValueError(f"queries have {q.shape[1]} channels and the gallery has {g.shape[1]}")
    if not 1 <= k <= len(g):
        raise ValueError(f"k = {k} must lie between 1 and the gallery's {len(g)} rows")
    return _knn(q, g, k)


def nearest_in_images(
    queries: Floats, patches: Floats, images: Ids, per_image: int, k: int = 1,
    engine: str = "auto",
) -> tuple[Floats, Ids]:
    """Return the `k` patches nearest to each query among those of some training images.

    The gallery is never gathered whole: neighbouring images are searched where they lie, and
    scattered ones in tiles of at most 64 MiB, so memory stays bounded whatever K is.

    Parameters
    ----------
    queries : float32 [Q, C]
    patches : float32 [n * per_image, C]
        All training patches of one level; row `i * per_image + j` is patch j of image i.
    images : int64 [K]
        The training images to search in.
    per_image : int
        Patches an image at this level, h * w.
    k : int
        Neighbours a query (kappa in the paper).

    Returns
    -------
    distances : float32 [Q, k], squared Euclidean, ascending
    ids : int64 [Q, k], rows of `patches`
    """
    _check_engine(engine)
    if not 1 <= k <= len(images) * per_image:
        raise ValueError(f"kappa = {k} must lie between 1 and {len(images) * per_image} patches")
    best: tuple[Floats, Ids] | None = None
    for tile, rows in _tiles(patches, np.sort(images), per_image):
        distances, ids = _knn(queries, tile, min(k, len(tile)))
        best = _merge(best, (distances, rows[ids]), k)
    assert best is not None
    return best


def _tiles(patches: Floats, images: Ids, per_image: int) -> Iterator[tuple[Floats, Ids]]:
    """Yield tiles of the gallery with their row numbers; runs of images are not copied."""
    breaks = np.flatnonzero(np.diff(images) != 1) + 1
    runs = np.split(images, breaks)
    per_tile = max(1, _TILE_BYTES // (per_image * patches.shape[1] * patches.itemsize))
    loose: list[Ids] = []
    for run in runs:
        if len(run) * 4 >= min(per_tile, len(images)):
            start, stop = int(run[0]) * per_image, (int(run[-1]) + 1) * per_image
            yield patches[start:stop], np.arange(start, stop, dtype=np.int64)
        else:
            loose.append(run)
    if not loose:
        return
    scattered = np.concatenate(loose)
    inside = np.arange(per_image, dtype=np.int64)
    for at in range(0, len(scattered), per_tile):
        rows = (scattered[at : at + per_tile, None] * per_image + inside).ravel()
        yield patches[rows], rows


def _merge(
    best: tuple[Floats, Ids] | None, new: tuple[Floats, Ids], k: int
) -> tuple[Floats, Ids]:
    if best is None:
        return new
    distances = np.concatenate([best[0], new[0]], axis=1)
    ids = np.concatenate([best[1], new[1]], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, 1), np.take_along_axis(ids, order, 1)


def _knn(queries: Floats, gallery: Floats, k: int) -> tuple[Floats, Ids]:
    _, ids = faiss().knn(queries, gallery, k)
    # FAISS expands |q - g|^2 into norms and a product; the differences are exact where the
    # expansion cancels.
    distances = np.empty(ids.shape, np.float32)
    step = max(1, (16 << 20) // (4 * gallery.shape[1] * k))
    for at in range(0, len(queries), step):
        rows = slice(at, at + step)
        difference = queries[rows, None, :] - gallery[ids[rows]]
        distances[rows] = np.einsum("qkc,qkc->qk", difference, difference)
    if k > 1:
        order = np.argsort(distances, axis=1, kind="stable")
        distances = np.take_along_axis(distances, order, 1)
        ids = np.take_along_axis(ids, order, 1)
    return distances, ids


def _check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")


def _host(values: Any) -> Any:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def _matrix(name: str, values: Any) -> Floats:
    matrix = np.ascontiguousarray(values, np.float32)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} have shape {np.shape(values)}; pass [rows, channels]")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} hold NaN or infinite values")
    return matrix
