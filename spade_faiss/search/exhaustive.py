"""Exact nearest neighbours by FAISS's exhaustive search, checked for what cancellation may hide.

FAISS expands |x - y|² into norms and a product, which loses digits where norms are large and
distances small. Its result is off by γ(|x| + |y|)² at most, with γ = (C + 8) 2⁻²³ at least
twice what the sums can lose. So it is asked for a few neighbours more than are wanted. Those
that, less this error, are no nearer than what was found, by differences, cannot be: if the last
one is such, nothing that it did not name can be either. The queries of which this cannot be said
are searched again for more neighbours, and what is left then is compared with every row by
differences in float64.

The smallest searches FAISS itself makes by differences, and nothing is left to check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._support.faiss import faiss
from .pairs import gamma, norms, pair_distances

_TILE_BYTES = 64 << 20
"""How much of a gallery that lies in pieces is gathered at a time."""
_DIFFERENCES = 32 << 20
"""Bytes of differences at a time."""
_MORE = 4, 32
"""Neighbours to ask for beyond those wanted: at first, and where that proves nothing. Up to ten
cost FAISS no more than two, and a second search for few queries as much as a pass over memory."""


def exhaustive_in_images(
    queries: Tensor,
    patches: Tensor,
    images: Tensor,
    per_image: int,
    k: int,
    largest: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the `k` patches nearest to each query among those of some training images.

    Parameters
    ----------
    queries : float32 [Q, C], on the CPU or a GPU that FAISS can use
    patches : float32 or float16 [rows, C], there too
        Row `i * per_image + j` is patch j of image i; the last image may have fewer.
    images : int64 [K], on the CPU
        The images to search in. Neighbouring ones are searched where they lie, and scattered
        ones in tiles of at most 64 MiB, so memory stays bounded whatever K is.
    per_image : int
    k : int
    largest : float32 [n], on the CPU, optional
        Each training image's largest norm, NaN where it is not known yet; what is found out of
        it is kept here.

    Returns
    -------
    distances : float32 [Q, k], squared Euclidean, ascending
    ids : int64 [Q, k], rows of `patches`

    Raises
    ------
    ValueError
        If values are not finite.
    """
    if largest is None:
        largest = torch.full((-(-len(patches) // per_image),), torch.nan)
    sizes = cache(partial(norms, queries))
    best: tuple[Tensor, Tensor] | None = None
    for some, tile in _tiles(patches, images, per_image):
        norm = partial(_largest_norm, tile, some, per_image, largest)
        scale = cache(partial(_scale, queries, sizes, tile, norm))
        distances, places = _knn(queries, tile, min(k, len(tile)), scale)
        ids = some.to(places.device)[places // per_image] * per_image + places % per_image
        if best is not None:
            distances, ids = torch.cat([best[0], distances], 1), torch.cat([best[1], ids], 1)
            distances, order = distances.sort(stable=True)
            distances, ids = distances[:, :k], ids.gather(1, order[:, :k])
        best = distances, ids
    assert best is not None
    return best


def _tiles(patches: Tensor, images: Tensor, per_image: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some of the images and their patches, in float32; runs of images are not copied."""
    all_of_them = np.sort(images.numpy())
    runs = np.split(all_of_them, np.flatnonzero(np.diff(all_of_them) != 1) + 1)
    per_tile = max(1, _TILE_BYTES // (per_image * patches.shape[1] * 4))
    loose = []
    for run in runs:
        if patches.dtype == torch.float32 and len(run) * 4 >= min(per_tile, len(images)):
            yield torch.from_numpy(run), patches[run[0] * per_image : (run[-1] + 1) * per_image]
        else:
            loose.append(run)
    if not loose:
        return
    for part in torch.split(torch.from_numpy(np.concatenate(loose)), per_tile):
        rows = (part[:, None] * per_image + torch.arange(per_image)).view(-1)
        rows = rows[rows < len(patches)]
        yield part, patches[rows.to(patches.device)].float()


def _largest_norm(tile: Tensor, images: Tensor, per_image: int, largest: Tensor) -> float:
    """Return the largest norm of images' rows, which are a tile, and keep what is new."""
    if bool(largest[images].isnan().any()):
        each = norms(tile).cpu()
        whole = torch.nn.functional.pad(each, (0, len(images) * per_image - len(each)))
        largest[images] = whole.view(-1, per_image).amax(1)
    return float(largest[images].max())


def _scale(
    queries: Tensor, sizes: Callable[[], Tensor], tile: Tensor, largest: Callable[[], float]
) -> Tensor:
    """Return for each query x a number [Q] that is no less than (|x| + |y|)² of any row y."""
    norm, size = largest(), sizes()
    if not isfinite(norm):
        _must_be_finite("gallery", tile)
    if not bool(size.max().isfinite()):
        _must_be_finite("queries", queries)
    return (size + norm).square()


def _must_be_finite(name: str, rows: Tensor) -> None:
    """Norms are not finite either where their squares leave the range of float32."""
    if not all(bool(end.isfinite()) for end in rows.aminmax()):
        raise ValueError(f"{name} hold NaN or infinite values")


def _knn(
    queries: Tensor, gallery: Tensor, k: int, scale: Callable[[], Tensor]
) -> tuple[Tensor, Tensor]:
    """Search one tile; `scale`, a pass over it, is asked for only where it is needed."""
    q, c = queries.shape
    # So many values of queries, or in older versions so many queries: below, FAISS compares by
    # differences.
    if not queries.is_cuda and q * c < faiss().cvar.distance_compute_blas_threshold:
        near, places = _faiss_knn(queries, gallery, k)
        if bool((places >= 0).all()) and isfinite(near.sum() + norms(gallery).sum()):
            return near, places
    distances = queries.new_empty(q, k)
    ids = torch.empty(q, k, dtype=torch.int64, device=queries.device)
    doubtful = torch.arange(q, device=queries.device)
    lost = gamma(c)
    for more in _MORE:
        asked = queries[doubtful]
        wanted = min(k + more, len(gallery))
        near, places = _faiss_knn(asked, gallery, wanted)
        near -= lost * scale()[doubtful][:, None]
        exact, order = by_differences(asked, gallery, places[:, :k]).sort(1)
        found = places.gather(1, order)
        may_be_nearer = _may_be_nearer(near, exact, lost)
        rivals = may_be_nearer[:, k:].any(1).nonzero().view(-1)
        if len(rivals):
            true, order = by_differences(asked[rivals], gallery, places[rivals]).sort(1)
            exact[rivals], found[rivals] = true[:, :k], places[rivals].gather(1, order[:, :k])
            may_be_nearer[rivals, -1:] = _may_be_nearer(near[rivals, -1:], exact[rivals], lost)
        distances[doubtful], ids[doubtful] = exact, found
        if wanted == len(gallery):
            return distances, ids
        doubtful = doubtful[may_be_nearer[:, -1]]
        if not len(doubtful):
            return distances, ids
    for query in doubtful.tolist():
        distances[query], ids[query] = _among_all(queries[query], gallery, k)
    return distances, ids


def _may_be_nearer(near: Tensor, exact: Tensor, lost: float) -> Tensor:
    """Say which of FAISS's distances, less their error, may be under the last exact one, [Q, any].

    One that is NaN may be; none is under 0.
    """
    last = exact[:, -1:]
    return ~(near >= last * (1 + lost)) & (last != 0)


def by_differences(queries: Tensor, gallery: Tensor, places: Tensor) -> Tensor:
    """Return the squared distances [Q, k] to rows of the gallery, int64 [Q, k]."""
    who = torch.arange(len(queries), device=queries.device).repeat_interleave(places.shape[1])
    return pair_distances(queries, who, gallery, places.reshape(-1)).view(places.shape)


def _among_all(query: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Compare one query with every row."""
    step = max(1, _DIFFERENCES // (8 * gallery.shape[1]))
    distances = torch.cat(
        [(part.double() - query.double()).square_().sum(1) for part in torch.split(gallery, step)]
    )
    near, ids = distances.topk(k, largest=False)
    return near.float(), ids


def _faiss_knn(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    module = faiss()
    if queries.is_cuda:
        import_module("faiss.contrib.torch_utils")  # FAISS then takes tensors where they lie

        with torch.cuda.device(queries.device):
            near, ids = module.knn_gpu(_resources(), queries.contiguous(), gallery, k)
        return near, ids
    near, ids = module.knn(queries.numpy(), gallery.numpy(), k)
    return torch.from_numpy(near), torch.from_numpy(ids)


@cache
def _resources() -> Any:
    return faiss().StandardGpuResources()


def faiss_has_gpu() -> bool:
    """Say whether the FAISS that is installed searches on GPUs."""
    return hasattr(faiss(), "StandardGpuResources") and faiss().get_num_gpus() > 0
