"""Where each defect score stands among the good ones: all that the metrics need."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..types import Doubles

Array = npt.NDArray[Any]

WORKERS = os.cpu_count() or 1
PIECE = 1 << 14  # defect scores looked up together: their part of a block stays in cache
STEP = 1 << 14  # defect scores summed together


class Curve(NamedTuple):
    """Points of a curve, from (0, 0) to (1, 1).

    Attributes
    ----------
    fpr : float64 [p], 0 to 1, ascending
        Fraction of the good scores at or above the threshold.
    hit : float64 [p], 0 to 1, ascending
        ROC: fraction of the defect scores there. PRO: mean overlap of the regions.
    thresholds : float [p], descending
        From infinity; the last is minus infinity where good scores lie below every defect's.
    """

    fpr: Doubles
    hit: Doubles
    thresholds: Array


@dataclass(frozen=True)
class Ranking:
    """The defect scores in order, and the good scores counted against each.

    A good score moves no defect, so between two defect scores every curve over the
    false-positive rate is flat; level with one it climbs in a straight line (ties are one
    step). The counts therefore hold the curves whole.

    Attributes
    ----------
    values : float [n], ascending
        The defect scores.
    above, equal : integer [n]
        Number of good scores greater than, and equal to, each.
    good : int
        Number of good scores.
    """

    values: Array
    above: Array
    equal: Array
    good: int

    def area(self, weights: Doubles | None = None, max_fpr: float = 1.0) -> float:
        """Return the curve's mean height up to `max_fpr`: ROCAUC, or PRO where weights are given.

        Each defect score adds a ramp of its own weight, from `above` to `above + equal` good
        scores, and the area under a cut ramp is known: no curve is built. The weights [n] are
        equal for the ROC, and 1 / the pixels of the score's region for PRO.
        """
        limit = float(max_fpr * self.good)  # the squares below overflow the counts' type
        total = mass = 0.0
        for piece in self._pieces():
            left = limit - self.above[piece]
            tied = np.clip(left, 0, self.equal[piece])  # good scores of the tie under the limit
            ramp = tied * tied / (2 * np.maximum(self.equal[piece].astype(np.float64), 1))
            areas = np.maximum(left - self.equal[piece], 0) + ramp
            own = np.ones(len(areas)) if weights is None else weights[piece]
            total += float((areas * own).sum())  # pairwise: closer than a dot product
            mass += float(own.sum())
        return total / (mass * limit)

    def average_precision(self) -> float:
        """Return the sum over distinct scores of the precision times the recall gained."""
        total = 0.0
        for piece in self._pieces():
            starts, true, false = self._steps(piece)
            total += float(true / (true + false) @ np.diff(starts, append=piece.stop))
        return total / len(self.values)

    def best_f1(self) -> tuple[float, float]:
        """Return the greatest F1 and the lowest threshold that reaches it."""
        best = (0.0, 0.0)
        for piece in self._pieces():
            starts, true, false = self._steps(piece)
            f1 = 2 * true / (true + false + len(self.values))
            at = int(np.argmax(f1))
            if f1[at] > best[0]:
                best = float(f1[at]), float(self.values[starts[at]])
        return best

    def curve(self, weights: Doubles | None = None) -> Curve:
        """Return the corners of the curve whose area is `area(weights)`."""
        starts, _, false = self._steps(slice(0, len(self.values)))
        if weights is None:
            weights = np.ones(len(self.values))
        climbed = np.cumsum(np.add.reduceat(weights, starts)[::-1])
        values = self.values[starts][::-1]
        # Two points a score: just above it, and at it.
        fpr = np.zeros(2 * len(starts) + 2)
        fpr[1:-1:2] = self.above[starts][::-1] / self.good
        fpr[2:-1:2] = false[::-1] / self.good
        fpr[-1] = 1
        hit = np.zeros_like(fpr)
        hit[2:-1:2] = climbed / climbed[-1]
        hit[3::2] = hit[2:-1:2]
        thresholds = np.empty(len(fpr), values.dtype)
        thresholds[0], thresholds[-1] = np.inf, -np.inf
        thresholds[1:-1:2] = np.nextafter(values, values.dtype.type(np.inf))
        thresholds[2:-1:2] = values

        run, rise = np.diff(fpr), np.diff(hit)
        new = np.append(True, (run != 0) | (rise != 0))
        fpr, hit, thresholds = fpr[new], hit[new], thresholds[new]
        run, rise = np.diff(fpr) != 0, np.diff(hit) != 0
        straight = (~run[1:] & ~run[:-1]) | (~rise[1:] & ~rise[:-1])
        corner = np.concatenate(([True], ~straight, [True]))
        return Curve(fpr[corner], hit[corner], thresholds[corner])

    def _pieces(self) -> list[slice]:
        """Return slices that part no equal scores, so that no step needs all scores' room."""
        cuts = np.searchsorted(self.values, self.values[::STEP])
        ends = np.unique(np.append(cuts, len(self.values))).tolist()
        return [slice(*ends) for ends in pairwise(ends)]

    def _steps(self, piece: slice) -> tuple[Array, Array, Array]:
        """Return the first place of each distinct score, and the true and false positives there."""
        values = self.values[piece]
        starts = piece.start + np.flatnonzero(np.append(True, values[1:] != values[:-1]))
        false = self.above[starts].astype(np.int64) + self.equal[starts]
        return starts, len(self.values) - starts, false


def rank(values: Array, blocks: Sequence[Callable[[], Array]], good: int) -> Ranking:
    """Count the good scores against each defect score.

    Each block is made, sorted in place and searched in a thread of its own, and dropped;
    NumPy holds no lock meanwhile. Time: O(good log(block) + n · blocks · log(block)).

    Parameters
    ----------
    values : float [n], ascending
        The defect scores.
    blocks : sequence of functions that return float [g]
        The good scores, in parts.
    good : int
        Number of good scores in all blocks.
    """
    # Half the memory, wherever the counts fit.
    dtype = np.uint32 if good < 2**32 else np.int64
    above: Array = np.zeros(len(values), dtype)
    equal: Array = np.zeros(len(values), dtype)
    lock = Lock()

    def count(make: Callable[[], Array]) -> None:
        block = make().astype(values.dtype, copy=False)
        block.sort()
        for start in range(0, len(values), PIECE):
            piece = slice(start, start + PIECE)
            asked = values[piece]
            low = np.searchsorted(block, asked[0])
            high = np.searchsorted(block, asked[-1], "right")
            window = block[low:high]
            below = np.searchsorted(window, asked)
            upto = below
            if len(window) and (window.take(below, mode="clip") == asked).any():
                upto = np.searchsorted(window, asked, "right")
            with lock:
                np.add(above[piece], len(block) - low - upto, above[piece], casting="unsafe")
                np.add(equal[piece], upto - below, equal[piece], casting="unsafe")

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(count, blocks))
    return Ranking(values, above, equal, good)
