"""Round rows to float16, and measure what that takes from them."""

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
