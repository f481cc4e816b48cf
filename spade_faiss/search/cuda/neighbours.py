"""The nearest row of each query, or its k nearest rows, out of what a screen leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from .gallery import STRIDE, PreparedGallery
from .half import gamma
from .rescore import collect_pairs, rescore_pairs, windows
from .screen import ScreenedQueries, Workspace


def find_nearest(
    part: ScreenedQueries,
    gallery: PreparedGallery,
    space: Workspace,
    count: Tensor,
    *,
    careful: bool,
) -> None:
    """Find the nearest row of each query, into `part.best`.

    Parameters
    ----------
    part, gallery, space
    count : int32 [1], 0
        The pairs that were left; where they are more than there was room for, and it was not
        `careful`, the result is wrong.
    careful : bool
        Take so few groups at a time that all their pairs find room.
    """
    for first, last in windows(part, space.pairs, careful=careful):
        # The first count is kept for the caller to see.
        listed = count if not careful else torch.zeros_like(count)
        collect_pairs(part, part.floor, space, listed, first, last)
        rescore_pairs(part, gallery, part.floor, space, listed)


def unpacked(best: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances and rows [..., 1] of what `kernels.rescore` left."""
    distances = (best >> 32).to(torch.int32).view(torch.float32)
    return distances[..., None], (best & 0x7FFFFFFF)[..., None]


def find_k_nearest(
    part: ScreenedQueries,
    gallery: PreparedGallery,
    space: Workspace,
    count: Tensor,
    k: int,
    *,
    careful: bool,
) -> tuple[Tensor, Tensor]:
    """Find the `k` nearest rows of each query, [b, q, k] both; see `find_nearest`."""
    b, n, _ = part.queries.shape
    floor = _kth_floor(part, gallery, k)
    near = torch.full((b * n, k), torch.inf, device=part.queries.device)
    ids = torch.full((b * n, k), 2**31, dtype=torch.int64, device=part.queries.device)
    for first, last in windows(part, space.pairs, careful=careful):
        listed = count if not careful else torch.zeros_like(count)
        collect_pairs(part, floor, space, listed, first, last)
        pairs = int(listed)
        if pairs > space.pairs:
            break
        found = torch.empty(pairs, gallery.members, device=near.device)
        kth = near[:, -1].contiguous()
        rescore_pairs(part, gallery, floor, space, listed, (kth, found))
        pair, member = (found >= 0).nonzero(as_tuple=True)
        who, where = space.who[pair].long(), space.where[pair].long()
        image = part.images[who // n, where // gallery.groups]
        offset = (
            member // gallery.fold * STRIDE
            + where % gallery.groups * gallery.fold
            + member % gallery.fold
        )
        rows = image * gallery.per_image + offset
        near, ids = _merge(near, ids, who, found[pair, member], rows)
    return near.view(b, n, k), ids.view(b, n, k)


def _kth_floor(part: ScreenedQueries, gallery: PreparedGallery, k: int) -> Tensor:
    """Return [b, q] what the k-th best score is at least.

    The k best groups hold k rows, each of which scores its group's lower bound or more.
    """
    b, total, n = part.upper.shape
    if k > total:
        return torch.full((b, n), -torch.inf, device=part.upper.device)
    upper, at = part.upper.topk(k, 1)
    image = part.images.gather(1, (at // gallery.groups).view(b, -1)).view_as(at)
    reach = gallery.reach[image, at % gallery.groups]
    slack = gallery.slack[image, at % gallery.groups]
    norm, rounding, unit, _ = part.stats.view(4, b, 1, n)
    half_gamma = gamma(part.queries.shape[2]) / 2
    error = rounding * reach + (norm + rounding) * slack + unit * half_gamma * reach.square()
    lower: Tensor = upper - 2 * error
    return lower.amin(1)


def _merge(
    near: Tensor, ids: Tensor, who: Tensor, distances: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Take more candidates into the nearest rows [n, k] found so far."""
    n, k = near.shape
    owner = torch.cat([torch.arange(n, device=near.device).repeat_interleave(k), who])
    distances = torch.cat([near.view(-1), distances])
    rows = torch.cat([ids.view(-1), rows])
    order = rows.argsort()
    for key in (distances, owner):
        order = order[key[order].argsort(stable=True)]
    starts = torch.searchsorted(owner[order], torch.arange(n, device=near.device))
    chosen = order[starts[:, None] + torch.arange(k, device=near.device)]
    return distances[chosen], rows[chosen]
