"""What scores say: how far those in float16 may be off, and which one a distance stands for."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def score_error(norm, rounding, unit, reach, slack, half_gamma):
    """Return how far a group's scores may lie from the exact ones."""
    return rounding * reach + (norm + rounding) * slack + (unit * half_gamma) * (reach * reach)


@triton.jit
def score_of_distance(distance, square, unit, half_gamma, scale_squared):
    """Return a score that no row as near as a squared distance can fall below."""
    wide = unit.to(tl.float64)
    # 2^-110 is more than underflow can have taken from a distance.
    farther = distance.to(tl.float64) * (1 + 2 * half_gamma) + 7.703719777548943e-34
    score = (square / wide * (1 - 2 * half_gamma) - wide * scale_squared * farther) / 2
    return score.to(tl.float32)
