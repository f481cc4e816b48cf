"""The Triton kernels of the fused search; `fused` says what they compute and why it is exact."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def lower(
    values, centre, low, stats, n, channels, scale, grow,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, FIT: tl.constexpr,
):
    """Centre, scale and round rows [n, channels]; find their norms and what rounding took.

    `stats` is [4, n]: the norm and the rounding's norm, both bounded from above, the row's own
    scale (a power of two; 1 without `FIT`), and the squared norm.
    """
    at = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    here = at < n
    rows = values + at.to(tl.int64)[:, None] * channels
    unit = tl.full([ROWS], 1.0, tl.float32)
    if FIT:
        largest = tl.zeros([ROWS], tl.float32)
        for c in range(0, CHANNELS, BLOCK):
            column = c + tl.arange(0, BLOCK)
            mask = here[:, None] & (column < channels)[None, :]
            x = tl.load(rows + column[None, :], mask=mask, other=0.0)
            x = (x - tl.load(centre + column, mask=column < channels, other=0.0)[None, :]) * scale
            largest = tl.maximum(largest, tl.max(tl.where(mask, tl.abs(x), 0.0), 1))
        exponent = (largest.to(tl.int32, bitcast=True) >> 23) - 127
        shift = tl.minimum(14 - exponent, 60)
        unit = ((shift + 127) << 23).to(tl.float32, bitcast=True)
    square = tl.zeros([ROWS], tl.float32)
    lost = tl.zeros([ROWS], tl.float32)
    for c in range(0, CHANNELS, BLOCK):
        column = c + tl.arange(0, BLOCK)
        mask = here[:, None] & (column < channels)[None, :]
        x = tl.load(rows + column[None, :], mask=mask, other=0.0)
        x = (x - tl.load(centre + column, mask=column < channels, other=0.0)[None, :]) * scale
        x = tl.where(mask, x * unit[:, None], 0.0)
        rounded = x.to(tl.float16)
        rest = x - rounded.to(tl.float32)
        square += tl.sum(x * x, 1)
        lost += tl.sum(rest * rest, 1)
        out = low + at.to(tl.int64)[:, None] * CHANNELS + column[None, :]
        tl.store(out, rounded, mask=here[:, None])
    # 2^-100 is more than underflow can have taken from a sum of squares.
    tiny = 7.888609052210118e-31
    tl.store(stats + at, tl.sqrt(square + tiny) * grow, mask=here)
    tl.store(stats + n + at, tl.sqrt(lost + tiny) * grow, mask=here)
    tl.store(stats + 2 * n + at, unit, mask=here)
    tl.store(stats + 3 * n + at, square, mask=here)


@triton.jit
def _error(norm, rounding, unit, reach, slack, half_gamma):
    """Return how far a group's scores may lie from the exact ones."""
    return rounding * reach + (norm + rounding) * slack + (unit * half_gamma) * (reach * reach)


@triton.jit
def _finish_tile(
    product, half, reach, slack, floor, norm, rounding, unit, half_gamma, maxima, stride, q_here,
    g_here, QUERIES: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr,
):
    """Store the upper bound of each group of a tile; return the best lower bound so far."""
    score = product - unit[:, None] * half[None, :]
    score = tl.max(tl.reshape(score, [QUERIES, ROWS // GROUP, GROUP]), 2)
    error = _error(
        norm[:, None], rounding[:, None], unit[:, None], reach[None, :], slack[None, :], half_gamma
    )
    tl.store(maxima[:, None] + stride[None, :], score + error,
             mask=q_here[:, None] & g_here[None, :])
    return tl.maximum(floor, tl.max(score - error, 1))


@triton.jit
def bound(
    queries, stats, rows, half, reach, slack, images, maxima, floors,
    n_queries, n_images, per_image, n_rows, groups, per_section, half_gamma,
    CHANNELS: tl.constexpr, GROUP: tl.constexpr,
    QUERIES: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):
    """Bound the scores of each (query, group of gallery rows) from above.

    One program takes QUERIES queries of one batch item through a section of its training
    images, ROWS gallery rows at a time. Where a row fits in one BLOCK of channels, the queries
    stay in shared memory. The grid is (tiles of queries, batch items, sections), so programs
    that run at the same time read the same gallery rows, from L2.
    """
    item, section = tl.program_id(1), tl.program_id(2)
    batch = tl.num_programs(1)
    q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    q_here = q < n_queries
    flat = item * n_queries + q
    total = batch * n_queries
    norm = tl.load(stats + flat, mask=q_here, other=0.0)
    rounding = tl.load(stats + total + flat, mask=q_here, other=0.0)
    unit = tl.load(stats + 2 * total + flat, mask=q_here, other=1.0)
    row = tl.arange(0, ROWS)
    group = tl.arange(0, ROWS // GROUP)
    column = tl.arange(0, BLOCK)
    query_rows = queries + flat.to(tl.int64)[:, None] * CHANNELS + column[None, :]
    floor = tl.full([QUERIES], float("-inf"), tl.float32)
    first = section * per_section
    if BLOCK == CHANNELS:
        x = tl.load(query_rows, mask=q_here[:, None], other=0.0)
        for slot in range(first, tl.minimum(first + per_section, n_images)):
            image = tl.load(images + item * n_images + slot)
            start = image * per_image
            length = tl.minimum(per_image, n_rows - start).to(tl.int32)
            out = maxima + (item * n_images + slot).to(tl.int64) * groups * n_queries + q
            for at in range(0, per_image, ROWS):
                y = tl.load(rows + (start + at) * CHANNELS + row[:, None] * CHANNELS
                            + column[None, :])
                g = at // GROUP + group
                # Asked for before the product, so that they come while it runs.
                h = tl.load(half + (start + at) + row, mask=row < length - at, other=float("inf"))
                far = tl.load(reach + image * groups + g, mask=g < groups, other=0.0)
                loose = tl.load(slack + image * groups + g, mask=g < groups, other=0.0)
                product = tl.dot(x, tl.trans(y))
                floor = _finish_tile(
                    product, h, far, loose, floor, norm, rounding, unit, half_gamma, out,
                    g.to(tl.int64) * n_queries, q_here, g < groups, QUERIES, ROWS, GROUP,
                )
    else:
        BLOCKS: tl.constexpr = CHANNELS // BLOCK
        product = tl.zeros([QUERIES, ROWS], tl.float32)
        for slot in range(first, tl.minimum(first + per_section, n_images)):
            image = tl.load(images + item * n_images + slot)
            start = image * per_image
            length = tl.minimum(per_image, n_rows - start).to(tl.int32)
            out = maxima + (item * n_images + slot).to(tl.int64) * groups * n_queries + q
            # One flat loop over tiles and blocks: its loads run ahead across tiles.
            for step in range(tl.cdiv(per_image, ROWS) * BLOCKS):
                at = step // BLOCKS * ROWS
                c = step % BLOCKS * BLOCK
                x = tl.load(query_rows + c, mask=q_here[:, None], other=0.0)
                y = tl.load(rows + (start + at) * CHANNELS + c + row[:, None] * CHANNELS
                            + column[None, :])
                product = tl.dot(x, tl.trans(y), product)
                if step % BLOCKS == BLOCKS - 1:
                    g = at // GROUP + group
                    h = tl.load(half + (start + at) + row, mask=row < length - at,
                                other=float("inf"))
                    far = tl.load(reach + image * groups + g, mask=g < groups, other=0.0)
                    loose = tl.load(slack + image * groups + g, mask=g < groups, other=0.0)
                    floor = _finish_tile(
                        product, h, far, loose, floor, norm, rounding, unit, half_gamma, out,
                        g.to(tl.int64) * n_queries, q_here, g < groups, QUERIES, ROWS, GROUP,
                    )
                    product = tl.zeros([QUERIES, ROWS], tl.float32)
    sections = tl.num_programs(2)
    tl.store(floors + (item * sections + section) * n_queries + q, floor, mask=q_here)


@triton.jit
def collect(
    maxima, floor, who, where, count, n_queries, total, first, last, capacity, per_program,
    QUERIES: tl.constexpr, GROUPS: tl.constexpr,
):
    """List the (query, group) pairs, of groups `first` to `last`, whose bound is not too low.

    `count` goes on past `capacity`, so that the caller sees what did not fit. Pairs of one
    group stand together, so that its rows are in cache.
    """
    item = tl.program_id(1)
    q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    here = q < n_queries
    least = tl.load(floor + item * n_queries + q, mask=here, other=float("inf"))
    begin = first + tl.program_id(2) * per_program
    for at in range(begin, tl.minimum(begin + per_program, last), GROUPS):
        g = at + tl.arange(0, GROUPS)
        mask = (g < tl.minimum(begin + per_program, last))[:, None] & here[None, :]
        place = (item.to(tl.int64) * total + g)[:, None] * n_queries + q[None, :]
        upper = tl.load(maxima + place, mask=mask, other=float("-inf"))
        keep = (mask & (upper >= least[None, :])).to(tl.int32)
        kept = tl.sum(tl.sum(keep, 1), 0)
        if kept > 0:
            flat = tl.reshape(keep, [GROUPS * QUERIES])
            to = tl.atomic_add(count, kept) + tl.cumsum(flat, 0) - 1
            mine = (flat > 0) & (to < capacity)
            pair_q = tl.broadcast_to((item * n_queries + q)[None, :], [GROUPS, QUERIES])
            pair_g = tl.broadcast_to(g[:, None], [GROUPS, QUERIES])
            tl.store(who + to, tl.reshape(pair_q, [GROUPS * QUERIES]), mask=mine)
            tl.store(where + to, tl.reshape(pair_g, [GROUPS * QUERIES]), mask=mine)


@triton.jit
def rescore(
    who, where, count, capacity, maxima, floor, stats, queries, low_queries, patches, rows, half,
    reach, slack, images, best, near, found,
    n_queries, n_all, n_images, per_image, n_rows, groups, channels, half_gamma, scale_squared,
    CHANNELS: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr, ONE: tl.constexpr,
):
    """Score by differences in float32 what the bounds leave of the listed pairs.

    With `ONE` a query's `best` takes the least of (distance, row), as one integer. Otherwise
    `found` [pairs, GROUP] takes the distances, or -1 where the bound excludes a row, and
    `near` holds the k-th distance so far.
    """
    n = tl.minimum(tl.load(count), capacity)
    programs = tl.num_programs(0)
    run = tl.minimum(tl.maximum(n // programs, 1), 16)
    inside = tl.arange(0, GROUP)
    for block in range(tl.program_id(0), tl.cdiv(n, run), programs):
        for pair in range(block * run, tl.minimum(block * run + run, n)):
            i = tl.load(who + pair)
            virtual = tl.load(where + pair)
            item, q = i // n_queries, i % n_queries
            slot, g = virtual // groups, virtual % groups
            image = tl.load(images + item * n_images + slot)
            start = image * per_image + g * GROUP
            norm = tl.load(stats + i)
            rounding = tl.load(stats + n_all + i)
            unit = tl.load(stats + 2 * n_all + i)
            # In float64: two large numbers may all but cancel.
            square = tl.load(stats + 3 * n_all + i).to(tl.float64)
            if ONE:
                # Another program may have lowered it since: an older one is a bound too.
                packed = tl.load(best + i, volatile=True)
                nearest = (packed >> 32).to(tl.int32).to(tl.float32, bitcast=True)
                # Row numbers decide ties, so that the result is the same in any order.
                done = (nearest == 0.0) & ((packed & 0x7FFFFFFF) <= start)
            else:
                nearest = tl.load(near + i)
                done = False
            wide = unit.to(tl.float64)
            # 2^-110 is more than underflow can have taken from a distance.
            farther = nearest.to(tl.float64) * (1 + 2 * half_gamma) + 7.703719777548943e-34
            cut = (square / wide * (1 - 2 * half_gamma) - wide * scale_squared * farther) / 2
            cut = tl.maximum(cut.to(tl.float32), tl.load(floor + i))
            place = (item.to(tl.int64) * n_images * groups + virtual) * n_queries + q
            if (tl.load(maxima + place) >= cut) & (done == False):  # noqa: E712
                here = (g * GROUP + inside < per_image) & (start + inside < n_rows)
                score = tl.zeros([GROUP], tl.float32)
                for c in range(0, CHANNELS, BLOCK):
                    column = c + tl.arange(0, BLOCK)
                    x = tl.load(low_queries + i.to(tl.int64) * CHANNELS + column).to(tl.float32)
                    y = tl.load(rows + (start + inside)[:, None] * CHANNELS + column[None, :])
                    score += tl.sum(x[None, :] * y.to(tl.float32), 1)
                score -= unit * tl.load(half + start + inside, mask=here, other=float("inf"))
                error = _error(norm, rounding, unit, tl.load(reach + image * groups + g),
                               tl.load(slack + image * groups + g), half_gamma)
                here = here & (score + error >= cut)
                distance = tl.zeros([GROUP], tl.float32)
                for c in range(0, CHANNELS, BLOCK):
                    column = c + tl.arange(0, BLOCK)
                    real = column < channels
                    x = tl.load(queries + i.to(tl.int64) * channels + column, mask=real, other=0.0)
                    y = tl.load(patches + (start + inside)[:, None] * channels + column[None, :],
                                mask=here[:, None] & real[None, :], other=0.0)
                    difference = tl.where(real[None, :], x[None, :] - y, 0.0)
                    distance += tl.sum(difference * difference, 1)
                if ONE:
                    key = distance.to(tl.int32, bitcast=True).to(tl.int64) << 32
                    key = tl.where(here, key | (start + inside), 0x7FFFFFFFFFFFFFFF)
                    tl.atomic_min(best + i, tl.min(key, 0))
                else:
                    tl.store(found + pair * GROUP + inside,
                             tl.where(here, distance, -1.0))
            elif not ONE:
                tl.store(found + pair * GROUP + inside,
                         tl.full([GROUP], -1.0, tl.float32))
