"""List the groups of rows that a screen leaves."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def collect(
    upper,
    floor,
    who,
    where,
    count,
    n_queries,
    total,
    first,
    last,
    capacity,
    QUERIES: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """List the (query, group) pairs, of groups `first` to `last`, whose bound is not too low.

    `count` goes on past `capacity`, so that the caller sees what did not fit.
    """
    item = tl.program_id(1)
    q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    here = q < n_queries
    flat = item * n_queries + q
    least = tl.load(floor + flat, mask=here, other=float("inf"))
    g = first + tl.program_id(2) * GROUPS + tl.arange(0, GROUPS)
    mask = (g < last)[:, None] & here[None, :]
    place = (item.to(tl.int64) * total + g)[:, None] * n_queries + q[None, :]
    bound = tl.load(upper + place, mask=mask, other=float("-inf"))
    keep = mask & (bound >= least[None, :])
    if tl.max(tl.max(keep.to(tl.int32), 1), 0) > 0:
        to = tl.atomic_add(count + tl.zeros([GROUPS, QUERIES], tl.int32), 1, mask=keep)
        mine = keep & (to < capacity)
        tl.store(who + to, tl.broadcast_to(flat[None, :], [GROUPS, QUERIES]), mask=mine)
        tl.store(where + to, tl.broadcast_to(g[:, None], [GROUPS, QUERIES]), mask=mine)
