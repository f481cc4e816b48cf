"""Exact nearest neighbours by FAISS's exhaustive search, checked for what cancellation may hide.

FAISS expands |x - y|² into norms and a product, which loses digits where norms are large and
distances small. Its result is off by γ(|x| + |y|)² at most, with γ = (C + 8) 2⁻²³ at least
twice what the sums can lose. So it is asked for a few neighbours more than are wanted. Those
that, less this error, are no nearer than what was found, by differences, cannot be: if the last
one is such, nothing that it did not name can be either. The queries of which this cannot be said
are searched again for more neighbours, and what is left then is compared with every row by
differences in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from .._faiss import faiss
from .pairs import pair_distances
from .threads import in_parts

_TILE_BYTES = 64 << 20
"""How much of a gallery that lies in pieces is gathered at a time."""
_DIFFERENCES = 32 << 20
"""Bytes of differences at a time."""
_MORE = 4, 32
"""Neighbours to ask for beyond those wanted: at first, and where that proves nothing. Up to ten
cost FAISS no more than two, and a second search for few queries as much as a pass over memory."""


def exhaustive_in_images(
    queries: Tensor, patches: Tensor, images: Tensor, per_image: int, k: int,
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
    scale = cache(partial(_scale, queries, patches, images, per_image, largest))
    best: tuple[Tensor, Tensor] | None = None
    for tile, rows in _tiles(patches, images.sort().values, per_image):
        distances, places = _knn(queries, tile, min(k, len(tile)), scale)
        ids = rows.to(places.device)[places]
        if best is not None:
            distances, ids = torch.cat([best[0], distances], 1), torch.cat([best[1], ids], 1)
            distances, order = distances.sort(stable=True)
            distances, ids = distances[:, :k], ids.gather(1, order[:, :k])
        best = distances, ids
    assert best is not None
    return best


def _tiles(patches: Tensor, images: Tensor, per_image: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield tiles of the gallery with their row numbers; runs of images are not copied."""
    breaks = torch.nonzero(images.diff() != 1).view(-1) + 1
    runs = images.tensor_split(breaks)
    per_tile = max(1, _TILE_BYTES // (per_image * patches.shape[1] * 4))
    loose: list[Tensor] = []
    for run in runs:
        if patches.dtype == torch.float32 and len(run) * 4 >= min(per_tile, len(images)):
            start = int(run[0]) * per_image
            stop = min((int(run[-1]) + 1) * per_image, len(patches))
            yield patches[start:stop], torch.arange(start, stop)
        else:
            loose.append(run)
    if not loose:
        return
    for part in torch.split(torch.cat(loose), per_tile):
        rows = (part[:, None] * per_image + torch.arange(per_image)).view(-1)
        rows = rows[rows < len(patches)]
        yield patches[rows.to(patches.device)].float(), rows


def _scale(
    queries: Tensor, patches: Tensor, images: Tensor, per_image: int, largest: Tensor
) -> Tensor:
    """Return for each query x a number [Q] that is no less than (|x| + |y|)² of any row y."""
    def of_each(some: Tensor) -> Tensor:
        rows = (patches[i * per_image : (i + 1) * per_image] for i in some.tolist())
        return torch.tensor([float(_norms(own.float()).max()) for own in rows])

    unknown = images[largest[images].isnan()]
    if len(unknown):
        largest[unknown] = torch.cat(in_parts(of_each, unknown))
    norm, sizes = largest[images].max(), torch.cat(in_parts(_norms, queries))
    if not bool(norm.isfinite()):
        for i in images.tolist():
            _must_be_finite("gallery", patches[i * per_image : (i + 1) * per_image])
    if not bool(sizes.max().isfinite()):
        _must_be_finite("queries", queries)
    return (sizes + float(norm)).square()


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def _must_be_finite(name: str, rows: Tensor) -> None:
    """Norms are not finite either where their squares leave the range of float32."""
    if not all(bool(end.isfinite()) for end in rows.aminmax()):
        raise ValueError(f"{name} hold NaN or infinite values")


def _knn(
    queries: Tensor, gallery: Tensor, k: int, scale: Callable[[], Tensor]
) -> tuple[Tensor, Tensor]:
    """Search one tile.

    FAISS goes first: its threads are slow to find idle CPUs once others have run.
    """
    distances = queries.new_empty(len(queries), k)
    ids = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    doubtful = torch.arange(len(queries), device=queries.device)
    gamma = (gallery.shape[1] + 8) * 2.0**-23
    for more in _MORE:
        asked = queries[doubtful]
        wanted = min(k + more, len(gallery))
        near, places = _faiss_knn(asked, gallery, wanted)
        near -= gamma * scale()[doubtful][:, None]
        exact, order = by_differences(asked, gallery, places[:, :k]).sort(1)
        found = places.gather(1, order)
        may_be_nearer = _may_be_nearer(near, exact, gamma)
        rivals = may_be_nearer[:, k:].any(1).nonzero().view(-1)
        if len(rivals):
            true, order = by_differences(asked[rivals], gallery, places[rivals]).sort(1)
            exact[rivals], found[rivals] = true[:, :k], places[rivals].gather(1, order[:, :k])
            may_be_nearer[rivals, -1:] = _may_be_nearer(near[rivals, -1:], exact[rivals], gamma)
        distances[doubtful], ids[doubtful] = exact, found
        if wanted == len(gallery):
            return distances, ids
        doubtful = doubtful[may_be_nearer[:, -1]]
        if not len(doubtful):
            return distances, ids
    for query in doubtful.tolist():
        distances[query], ids[query] = _among_all(queries[query], gallery, k)
    return distances, ids


def _may_be_nearer(near: Tensor, exact: Tensor, gamma: float) -> Tensor:
    """Say which of FAISS's distances, less their error, may be under the last exact one, [Q, any].

    One that is NaN may be; none is under 0.
    """
    last = exact[:, -1:]
    return ~(near >= last * (1 + gamma)) & (last != 0)


def by_differences(queries: Tensor, gallery: Tensor, places: Tensor) -> Tensor:
    """Return the squared distances [Q, k] to rows of the gallery, int64 [Q, k]."""
    who = torch.arange(len(queries), device=queries.device).repeat_interleave(places.shape[1])
    return pair_distances(queries, who, gallery, places.reshape(-1)).view(places.shape)


def _among_all(query: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Compare one query with every row."""
    step = max(1, _DIFFERENCES // (8 * gallery.shape[1]))
    distances = torch.cat([
        (part.double() - query.double()).square_().sum(1) for part in torch.split(gallery, step)
    ])
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
