"""The Triton kernels of the fused search; `fused` says what they compute and why it is exact."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def lower(
    values,
    centre,
    low,
    stats,
    floor,
    best,
    bad,
    n,
    channels,
    scale,
    limit,
    grow,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    FIT: tl.constexpr,
):
    """Centre, scale and round rows [n, channels]; find their norms and what rounding took.

    `stats` is [4, n]: the norm and the rounding's norm, both bounded from above, the row's own
    scale (a power of two; 1 without `FIT`), and the squared norm. With `FIT`, of queries,
    `floor` and `best` are set to what is true before a search, and `bad` counts rows that are
    not finite or have a channel of `limit` or more.
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
    if FIT:
        # Comparisons with NaN are false.
        fine = (largest < limit) & (square < float("inf"))
        wrong = tl.sum((here & (fine == False)).to(tl.int32), 0)  # noqa: E712
        if wrong > 0:
            tl.atomic_add(bad, wrong)
        tl.store(floor + at, float("-inf"), mask=here)
        # Infinitely far, and no row's number.
        tl.store(best + at, 0x7F8000007FFFFFFF, mask=here)
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
def _of_groups(
    scores, QUERIES: tl.constexpr, ROWS: tl.constexpr, STRIDE: tl.constexpr, FOLD: tl.constexpr
):
    """Return the largest score of each group's rows in a tile."""
    if ROWS > STRIDE:
        scores = tl.max(tl.reshape(scores, [QUERIES, ROWS // STRIDE, STRIDE]), 1)
    if FOLD > 1:
        scores = tl.max(tl.reshape(scores, [QUERIES, STRIDE // FOLD, FOLD]), 2)
    return scores


@triton.jit
def screen(
    queries,
    stats,
    rows,
    half,
    reach,
    slack,
    images,
    upper,
    floors,
    n_queries,
    n_images,
    per_image,
    n_rows,
    half_gamma,
    CHANNELS: tl.constexpr,
    STRIDE: tl.constexpr,
    FOLD: tl.constexpr,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Bound the scores of each (query, group of gallery rows) from above, the best from below.

    One program takes QUERIES queries of one batch item through a section of its training
    images, ROWS gallery rows at a time. Where a row fits in one BLOCK of channels, the queries
    stay in shared memory. The grid is (tiles of queries, batch items, sections), so programs
    that run at the same time read the same gallery rows, from L2.
    """
    item, section = tl.program_id(1), tl.program_id(2)
    sections = tl.num_programs(2)
    first, last = section * n_images // sections, (section + 1) * n_images // sections
    q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    q_here = q < n_queries
    flat = item * n_queries + q
    total = tl.num_programs(1) * n_queries
    norm = tl.load(stats + flat, mask=q_here, other=0.0)
    rounding = tl.load(stats + total + flat, mask=q_here, other=0.0)
    unit = tl.load(stats + 2 * total + flat, mask=q_here, other=1.0)
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    query_rows = queries + flat.to(tl.int64)[:, None] * CHANNELS + column[None, :]
    floor = tl.full([QUERIES], float("-inf"), tl.float32)
    groups: tl.constexpr = STRIDE // FOLD
    group = tl.arange(0, groups)
    if BLOCK == CHANNELS:
        x = tl.load(query_rows, mask=q_here[:, None], other=0.0)
    for slot in range(first, last):
        image = tl.load(images + item * n_images + slot)
        start = image * per_image
        length = tl.minimum(per_image, n_rows - start).to(tl.int32)
        if BLOCK == CHANNELS:
            running = tl.full([QUERIES, ROWS], float("-inf"), tl.float32)
            score = tl.full([QUERIES, ROWS], float("-inf"), tl.float32)
            for at in range(0, per_image, ROWS):
                y = tl.load(
                    rows + (start + at) * CHANNELS + row[:, None] * CHANNELS + column[None, :]
                )
                h = tl.load(half + start + at + row, mask=row < length - at, other=float("inf"))
                product = tl.dot(x, tl.trans(y))
                # Of the tile before, while the tensor cores are at this one.
                running = tl.maximum(running, score)
                score = product - unit[:, None] * h[None, :]
            best = _of_groups(tl.maximum(running, score), QUERIES, ROWS, STRIDE, FOLD)
        else:
            BLOCKS: tl.constexpr = CHANNELS // BLOCK
            best = tl.full([QUERIES, groups], float("-inf"), tl.float32)
            product = tl.zeros([QUERIES, ROWS], tl.float32)
            # One flat loop over tiles and blocks: its loads run ahead across tiles.
            for step in range(tl.cdiv(per_image, ROWS) * BLOCKS):
                at = step // BLOCKS * ROWS
                c = step % BLOCKS * BLOCK
                x = tl.load(query_rows + c, mask=q_here[:, None], other=0.0)
                y = tl.load(
                    rows + (start + at) * CHANNELS + c + row[:, None] * CHANNELS + column[None, :]
                )
                product = tl.dot(x, tl.trans(y), product)
                if step % BLOCKS == BLOCKS - 1:
                    h = tl.load(half + start + at + row, mask=row < length - at, other=float("inf"))
                    score = product - unit[:, None] * h[None, :]
                    best = tl.maximum(best, _of_groups(score, QUERIES, ROWS, STRIDE, FOLD))
                    product = tl.zeros([QUERIES, ROWS], tl.float32)
        error = _error(
            norm[:, None],
            rounding[:, None],
            unit[:, None],
            tl.load(reach + image * groups + group)[None, :],
            tl.load(slack + image * groups + group)[None, :],
            half_gamma,
        )
        place = ((item * n_images + slot).to(tl.int64) * groups + group) * n_queries
        tl.store(upper + q[:, None] + place[None, :], best + error, mask=q_here[:, None])
        floor = tl.maximum(floor, tl.max(best - error, 1))
    tl.atomic_max(floors + flat, floor, mask=q_here)


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


@triton.jit
def rescore(
    who,
    where,
    count,
    capacity,
    upper,
    floor,
    stats,
    queries,
    low_queries,
    patches,
    rows,
    half,
    reach,
    slack,
    images,
    best,
    near,
    found,
    n_queries,
    n_all,
    n_images,
    per_image,
    n_rows,
    members,
    channels,
    half_gamma,
    scale_squared,
    CHANNELS: tl.constexpr,
    STRIDE: tl.constexpr,
    FOLD: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    ONE: tl.constexpr,
):
    """Score by differences in float32 what the bounds leave of the listed pairs.

    With `ONE` a query's `best` takes the least of (distance, row), as one integer. Otherwise
    `found` [pairs, members] takes the distances, or -1 where the bound excludes a row, and
    `near` holds the k-th distance so far.
    """
    groups: tl.constexpr = STRIDE // FOLD
    n = tl.minimum(tl.load(count), capacity)
    programs = tl.num_programs(0)
    run = tl.minimum(tl.maximum(n // programs, 1), 16)
    for block in range(tl.program_id(0), tl.cdiv(n, run), programs):
        for pair in range(block * run, tl.minimum(block * run + run, n)):
            i = tl.load(who + pair)
            virtual = tl.load(where + pair)
            item, q = i // n_queries, i % n_queries
            slot, g = virtual // groups, virtual % groups
            image = tl.load(images + item * n_images + slot)
            start = image * per_image
            norm = tl.load(stats + i)
            rounding = tl.load(stats + n_all + i)
            unit = tl.load(stats + 2 * n_all + i)
            # In float64: two large numbers may all but cancel.
            square = tl.load(stats + 3 * n_all + i).to(tl.float64)
            if ONE:
                # An atomic operation: other programs lower it meanwhile, and with a load each
                # thread could see another value and go another way.
                packed = tl.atomic_min(best + i, 0x7FFFFFFFFFFFFFFF)
                nearest = (packed >> 32).to(tl.int32).to(tl.float32, bitcast=True)
                # Row numbers decide ties, so that the result is the same in any order.
                done = (nearest == 0.0) & ((packed & 0x7FFFFFFF) <= start + g * FOLD)
            else:
                nearest = tl.load(near + i)
                done = False
            wide = unit.to(tl.float64)
            # 2^-110 is more than underflow can have taken from a distance.
            farther = nearest.to(tl.float64) * (1 + 2 * half_gamma) + 7.703719777548943e-34
            cut = (square / wide * (1 - 2 * half_gamma) - wide * scale_squared * farther) / 2
            cut = tl.maximum(cut.to(tl.float32), tl.load(floor + i))
            place = (item.to(tl.int64) * n_images * groups + virtual) * n_queries + q
            if (tl.load(upper + place) >= cut) & (done == False):  # noqa: E712
                error = _error(
                    norm,
                    rounding,
                    unit,
                    tl.load(reach + image * groups + g),
                    tl.load(slack + image * groups + g),
                    half_gamma,
                )
                least = tl.full([CHUNK], 0x7FFFFFFFFFFFFFFF, tl.int64)
                for at in range(0, members, CHUNK):
                    inside = at + tl.arange(0, CHUNK)
                    offset = inside // FOLD * STRIDE + g * FOLD + inside % FOLD
                    row = start + offset
                    here = (offset < per_image) & (row < n_rows)
                    score = tl.zeros([CHUNK], tl.float32)
                    for c in range(0, CHANNELS, BLOCK):
                        column = c + tl.arange(0, BLOCK)
                        x = tl.load(low_queries + i.to(tl.int64) * CHANNELS + column)
                        y = tl.load(
                            rows + row[:, None] * CHANNELS + column[None, :],
                            mask=here[:, None],
                            other=0.0,
                        )
                        score += tl.sum(x.to(tl.float32)[None, :] * y.to(tl.float32), 1)
                    score -= unit * tl.load(half + row, mask=here, other=float("inf"))
                    here = here & (score + error >= cut)
                    distance = tl.zeros([CHUNK], tl.float32)
                    for c in range(0, CHANNELS, BLOCK):
                        column = c + tl.arange(0, BLOCK)
                        real = column < channels
                        x = tl.load(
                            queries + i.to(tl.int64) * channels + column, mask=real, other=0.0
                        )
                        y = tl.load(
                            patches + row[:, None] * channels + column[None, :],
                            mask=here[:, None] & real[None, :],
                            other=0.0,
                        )
                        difference = tl.where(real[None, :], x[None, :] - y, 0.0)
                        distance += tl.sum(difference * difference, 1)
                    if ONE:
                        key = distance.to(tl.int32, bitcast=True).to(tl.int64) << 32
                        least = tl.minimum(least, tl.where(here, key | row, 0x7FFFFFFFFFFFFFFF))
                    else:
                        tl.store(found + pair * members + inside, tl.where(here, distance, -1.0))
                if ONE:
                    tl.atomic_min(best + i, tl.min(least, 0))
            elif not ONE:
                for at in range(0, members, CHUNK):
                    tl.store(
                        found + pair * members + at + tl.arange(0, CHUNK),
                        tl.full([CHUNK], -1.0, tl.float32),
                    )
