"""Bound the scores of all rows on the tensor cores."""

from __future__ import annotations

import triton
import triton.language as tl

from .scores import score_error


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
def _best_of_whole_rows(
    x,
    unit,
    rows,
    half,
    start,
    length,
    per_image,
    CHANNELS: tl.constexpr,
    STRIDE: tl.constexpr,
    FOLD: tl.constexpr,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Return the largest score of each of an image's groups, for queries `x` in shared memory."""
    row = tl.arange(0, ROWS)
    column = tl.arange(0, CHANNELS)
    running = tl.full([QUERIES, ROWS], float("-inf"), tl.float32)
    score = tl.full([QUERIES, ROWS], float("-inf"), tl.float32)
    for at in range(0, per_image, ROWS):
        y = tl.load(rows + (start + at) * CHANNELS + row[:, None] * CHANNELS + column[None, :])
        h = tl.load(half + start + at + row, mask=row < length - at, other=float("inf"))
        product = tl.dot(x, tl.trans(y))
        # Of the tile before, while the tensor cores are at this one.
        running = tl.maximum(running, score)
        score = product - unit[:, None] * h[None, :]
    return _of_groups(tl.maximum(running, score), QUERIES, ROWS, STRIDE, FOLD)


@triton.jit
def _best_in_blocks(
    query_rows,
    q_here,
    unit,
    rows,
    half,
    start,
    length,
    per_image,
    CHANNELS: tl.constexpr,
    STRIDE: tl.constexpr,
    FOLD: tl.constexpr,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Return the same, of queries that are read again for each block of channels."""
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    BLOCKS: tl.constexpr = CHANNELS // BLOCK
    best = tl.full([QUERIES, STRIDE // FOLD], float("-inf"), tl.float32)
    product = tl.zeros([QUERIES, ROWS], tl.float32)
    # One flat loop over tiles and blocks: its loads run ahead across tiles.
    for step in range(tl.cdiv(per_image, ROWS) * BLOCKS):
        at = step // BLOCKS * ROWS
        c = step % BLOCKS * BLOCK
        x = tl.load(query_rows + c, mask=q_here[:, None], other=0.0)
        y = tl.load(rows + (start + at) * CHANNELS + c + row[:, None] * CHANNELS + column[None, :])
        product = tl.dot(x, tl.trans(y), product)
        if step % BLOCKS == BLOCKS - 1:
            h = tl.load(half + start + at + row, mask=row < length - at, other=float("inf"))
            score = product - unit[:, None] * h[None, :]
            best = tl.maximum(best, _of_groups(score, QUERIES, ROWS, STRIDE, FOLD))
            product = tl.zeros([QUERIES, ROWS], tl.float32)
    return best


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
            best = _best_of_whole_rows(
                x,
                unit,
                rows,
                half,
                start,
                length,
                per_image,
                CHANNELS,
                STRIDE,
                FOLD,
                QUERIES,
                ROWS,
            )
        else:
            best = _best_in_blocks(
                query_rows,
                q_here,
                unit,
                rows,
                half,
                start,
                length,
                per_image,
                CHANNELS,
                STRIDE,
                FOLD,
                QUERIES,
                ROWS,
                BLOCK,
            )
        error = score_error(
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
