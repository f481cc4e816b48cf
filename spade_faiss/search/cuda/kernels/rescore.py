"""Decide in float32 among the rows that a screen leaves."""

from __future__ import annotations

import triton
import triton.language as tl

from .scores import score_error, score_of_distance


@triton.jit
def _low_scores(
    query,
    unit,
    rows,
    half,
    row,
    here,
    CHANNELS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return the scores of a chunk of rows in float16."""
    score = tl.zeros([CHUNK], tl.float32)
    for c in range(0, CHANNELS, BLOCK):
        column = c + tl.arange(0, BLOCK)
        x = tl.load(query + column)
        y = tl.load(
            rows + row[:, None] * CHANNELS + column[None, :],
            mask=here[:, None],
            other=0.0,
        )
        score += tl.sum(x.to(tl.float32)[None, :] * y.to(tl.float32), 1)
    return score - unit * tl.load(half + row, mask=here, other=float("inf"))


@triton.jit
def _distances(
    query,
    patches,
    row,
    here,
    channels,
    CHANNELS: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return the squared distances of a chunk of rows, by differences in float32."""
    distance = tl.zeros([CHUNK], tl.float32)
    for c in range(0, CHANNELS, BLOCK):
        column = c + tl.arange(0, BLOCK)
        real = column < channels
        x = tl.load(query + column, mask=real, other=0.0)
        y = tl.load(
            patches + row[:, None] * channels + column[None, :],
            mask=here[:, None] & real[None, :],
            other=0.0,
        )
        difference = tl.where(real[None, :], x[None, :] - y, 0.0)
        distance += tl.sum(difference * difference, 1)
    return distance


@triton.jit
def _distances_of_chunk(
    query,
    low_query,
    unit,
    patches,
    rows,
    half,
    start,
    g,
    at,
    per_image,
    n_rows,
    channels,
    error,
    cut,
    CHANNELS: tl.constexpr,
    STRIDE: tl.constexpr,
    FOLD: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return a chunk of a group's rows, which of them the bounds leave, and their distances."""
    inside = at + tl.arange(0, CHUNK)
    offset = inside // FOLD * STRIDE + g * FOLD + inside % FOLD
    row = start + offset
    here = (offset < per_image) & (row < n_rows)
    score = _low_scores(low_query, unit, rows, half, row, here, CHANNELS, CHUNK, BLOCK)
    here = here & (score + error >= cut)
    distance = _distances(query, patches, row, here, channels, CHANNELS, CHUNK, BLOCK)
    return row, here, distance


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
            cut = score_of_distance(nearest, square, unit, half_gamma, scale_squared)
            cut = tl.maximum(cut, tl.load(floor + i))
            place = (item.to(tl.int64) * n_images * groups + virtual) * n_queries + q
            if (tl.load(upper + place) >= cut) & (done == False):  # noqa: E712
                error = score_error(
                    norm,
                    rounding,
                    unit,
                    tl.load(reach + image * groups + g),
                    tl.load(slack + image * groups + g),
                    half_gamma,
                )
                least = tl.full([CHUNK], 0x7FFFFFFFFFFFFFFF, tl.int64)
                for at in range(0, members, CHUNK):
                    row, here, distance = _distances_of_chunk(
                        queries + i.to(tl.int64) * channels,
                        low_queries + i.to(tl.int64) * CHANNELS,
                        unit,
                        patches,
                        rows,
                        half,
                        start,
                        g,
                        at,
                        per_image,
                        n_rows,
                        channels,
                        error,
                        cut,
                        CHANNELS,
                        STRIDE,
                        FOLD,
                        CHUNK,
                        BLOCK,
                    )
                    if ONE:
                        key = distance.to(tl.int32, bitcast=True).to(tl.int64) << 32
                        least = tl.minimum(least, tl.where(here, key | row, 0x7FFFFFFFFFFFFFFF))
                    else:
                        inside = at + tl.arange(0, CHUNK)
                        tl.store(found + pair * members + inside, tl.where(here, distance, -1.0))
                if ONE:
                    tl.atomic_min(best + i, tl.min(least, 0))
            elif not ONE:
                for at in range(0, members, CHUNK):
                    tl.store(
                        found + pair * members + at + tl.arange(0, CHUNK),
                        tl.full([CHUNK], -1.0, tl.float32),
                    )
