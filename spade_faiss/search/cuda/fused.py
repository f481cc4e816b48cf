"""Search for batches of queries on a GPU, each among the patches of its own training images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .device import on
from .gallery import PreparedGallery, prepare
from .half import TOO_LARGE
from .neighbours import find_k_nearest, find_nearest, unpacked
from .screen import Limits, Workspace, parts_of, screen_queries

_PSEUDO_IMAGE = 1024
"""Rows that stand for an image in a gallery that is no set of images."""
LIMITS = Limits()


def fused(queries: Tensor, gallery: Tensor | PreparedGallery, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return the squared distances [Q, k], ascending, and the rows [Q, k] of the nearest rows.

    Parameters
    ----------
    queries : float32 [Q, C]
        Finite, norms under 2⁶⁰.
    gallery : float32 [G, C], or prepared
    k : int, 1 to G
    """
    if isinstance(gallery, Tensor):
        gallery = prepare(gallery, min(_PSEUDO_IMAGE, max(1, len(gallery))))
    images = torch.arange(gallery.images, device=queries.device)[None]
    distances, ids = fused_in_images(queries[None], gallery, images, gallery.per_image, k)
    return distances[0], ids[0]


def fused_in_images(
    queries: Tensor,
    patches: Tensor | PreparedGallery,
    images: Tensor,
    per_image: int,
    k: int = 1,
    limits: Limits = LIMITS,
) -> tuple[Tensor, Tensor]:
    """Search for batches of queries, each among the patches of its own training images.

    Parameters
    ----------
    queries : float32 [B, Q, C], on a CUDA device
        Finite, norms under 2⁶⁰.
    patches : float32 [N, C], or prepared
        Row `i * per_image + j` is patch j of image i; the last image may have fewer. Prepare
        what is searched more than once.
    images : int64 [B, K]
        For each batch item the images to search in, distinct, in any order.
    per_image : int
    k : int
        Neighbours a query, at most the patches of an item's images.
    limits : Limits, optional
        Memory to work in. The result is the same in less of it.

    Returns
    -------
    distances : float32 [B, Q, k]
        Squared Euclidean, ascending, computed from differences.
    ids : int64 [B, Q, k]
        Rows of `patches`. Of rows at equal distance the first comes first.

    Raises
    ------
    ValueError
        If shapes or devices do not fit, or `k` is out of range.
    OverflowError
        If values are not finite or too large.
    """
    gallery = patches if isinstance(patches, PreparedGallery) else prepare(patches, per_image)
    _check(queries, gallery, images, per_image, k)
    search = FusedSearch(queries.contiguous(), gallery, images.contiguous(), k, limits)
    found = search.begin()
    incomplete = search.incomplete()
    return search.do_again(incomplete) if incomplete else found


class FusedSearch:
    """One search, part after part of its queries.

    Parameters
    ----------
    queries, images, k, limits
        As `fused_in_images` takes them, contiguous.
    gallery : PreparedGallery
    """

    def __init__(
        self,
        queries: Tensor,
        gallery: PreparedGallery,
        images: Tensor,
        k: int = 1,
        limits: Limits = LIMITS,
    ) -> None:
        self._queries, self._gallery, self._images, self._k = queries, gallery, images, k
        batch, n, _ = queries.shape
        groups = images.shape[1] * gallery.groups
        self._parts = list(parts_of(batch, n, groups, limits, k))
        most = max((i.stop - i.start) * (q.stop - q.start) for i, q in self._parts)
        self._space = Workspace(most * groups, limits.pairs, queries.device)
        # Four numbers apart, since kernels are compiled anew for another alignment.
        self._counts = torch.zeros(
            1 + len(self._parts), 4, dtype=torch.int32, device=queries.device
        )
        self._best = images.new_empty(batch, n)
        self._distances = queries.new_empty(batch, n, k)
        self._ids = images.new_empty(batch, n, k)

    def begin(self) -> tuple[Tensor, Tensor]:
        """Start it, and return distances and rows, both [B, Q, k]; they count if it is complete.

        For k = 1 the GPU is not waited for.
        """
        with on(self._queries.device):
            for number in range(len(self._parts)):
                self._search_part(number, careful=False)
            return self._found()

    @property
    def complete(self) -> Tensor:
        """Whether queries are numbers and all pairs found room, bool []; not waited for."""
        return (self._counts[0, 0] == 0) & (self._counts[1:, 0] <= self._space.pairs).all()

    def incomplete(self) -> list[int]:
        """Wait, and return the parts that had more pairs than there was room for.

        Raises
        ------
        OverflowError
            If queries are not finite or too large.
        """
        bad, *pairs = self._counts[:, 0].tolist()
        if bad:
            raise OverflowError(TOO_LARGE.format("queries"))
        return [number for number, count in enumerate(pairs) if count > self._space.pairs]

    def do_again(self, parts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Search some parts with room for all pairs; return what `begin` does."""
        with on(self._queries.device):
            for number in parts:
                self._search_part(number, careful=True)
            return self._found()

    def _found(self) -> tuple[Tensor, Tensor]:
        return unpacked(self._best) if self._k == 1 else (self._distances, self._ids)

    def _search_part(self, number: int, *, careful: bool) -> None:
        gallery, space = self._gallery, self._space
        items, some = self._parts[number]
        part = screen_queries(
            self._queries[items, some].contiguous(),
            gallery,
            self._images[items],
            space,
            self._best[items, some],
            self._counts[0, :1],
        )
        count = self._counts[1 + number, :1]
        if self._k == 1:
            find_nearest(part, gallery, space, count, careful=careful)
        else:
            self._distances[items, some], self._ids[items, some] = find_k_nearest(
                part, gallery, space, count, self._k, careful=careful
            )


def _check(
    queries: Tensor, gallery: PreparedGallery, images: Tensor, per_image: int, k: int
) -> None:
    c = gallery.patches.shape[1]
    if queries.ndim != 3 or 0 in queries.shape or queries.dtype != torch.float32:
        raise ValueError(
            f"queries are {queries.dtype} {list(queries.shape)}; pass float32 [B, Q, C]"
        )
    if queries.shape[2] != c:
        raise ValueError(f"queries have {queries.shape[2]} channels and the gallery has {c}")
    if queries.device != gallery.patches.device:
        raise ValueError(
            f"queries are on {queries.device} and the gallery is on {gallery.patches.device}"
        )
    if images.ndim != 2 or len(images) != len(queries) or images.shape[1] == 0:
        raise ValueError(f"images have shape {list(images.shape)}; pass [{len(queries)}, K]")
    if per_image != gallery.per_image:
        raise ValueError(
            f"the gallery was prepared with {gallery.per_image} patches an image, not {per_image}"
        )
    last = gallery.images - 1
    here = images.shape[1] * per_image
    missing = gallery.images * per_image - len(gallery.patches)
    if here - missing < k <= here and (images == last).any():
        here -= missing
    if not 1 <= k <= here:
        raise ValueError(f"k = {k} must lie between 1 and {here} patches")
