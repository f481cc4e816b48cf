"""Whether the GPU's screen gains by shortened rows: what they leave, by counts alone.

The screen multiplies all channels. Rows turned by the gallery's principal axes could be cut after
the first d, with the norm of the rest as one more: such a row's distance is never more than the
true one. So d + 1 channels would do, and more groups of rows would be left to score. This counts
them, on any machine, of a network's real features and of its expanded layers:

- pairs: groups a query (as `search.cuda` cuts them) whose least shortened distance is not over the
  distance of the true nearest row. Rounding is left out, which leaves more;
- time: that of `screen` and `rescore` together over what they take today, if the one's goes with
  the channels, and the other's with the pairs and with what is read of a pair.

One JSON line a layer and d. `gain` is over 1 where shortened rows would be faster.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from search import EXPANDED, images, real_levels
from torch import Tensor

SCREEN, RESCORE, PAIRS = 427.0, 39.0, 1.04
"""Microseconds an image of the two kernels at 56 x 56 patches of 256 channels, and pairs a query
there, on an H200: `docs/search.md`."""
STRIDE, GROUP = 64, 32
"""As in `spade_faiss.search.cuda.gallery`."""
SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
"""Parts of the channels that are tried."""


def groups_of(per_image: int) -> Tensor:
    """Return the group of each row of an image, int64 [per_image]."""
    tiles = -(-per_image // STRIDE)
    fold = max(1, GROUP >> (tiles - 1).bit_length())
    return torch.arange(per_image) % STRIDE // fold


def left(squares: Tensor, nearest: Tensor, groups: Tensor) -> float:
    """Return how many groups a query have a row not farther than the nearest one, [Q, n, rows]."""
    within = squares <= nearest[:, None, None]
    count = torch.zeros(*squares.shape[:2], int(groups.max()) + 1)
    count.index_add_(2, groups, within.float())
    return float((count > 0).float().sum((1, 2)).mean())


def layer(queries: Tensor, gallery: Tensor, asked: int) -> Iterator[dict[str, Any]]:
    """Yield what each width leaves of a layer, [n, patches, C] both."""
    n, per_image, channels = gallery.shape
    rows = gallery.flatten(0, 1).double()
    centre = rows.mean(0)
    axes = torch.linalg.eigh((rows - centre).T @ (rows - centre)).eigenvectors.flip(1)
    some = queries.flatten(0, 1)
    some = some[:: max(1, len(some) // asked)]
    along, own = ((one.double() - centre) @ axes for one in (rows, some))
    groups = groups_of(per_image)
    kept = 0
    square = torch.zeros(len(own), len(along), dtype=torch.float64)
    exact = torch.cdist(own, along).square()
    nearest = exact.amin(1) + 1e-9 * along.square().sum(1).mean()  # what float64 loses
    whole = left(exact.view(len(own), n, per_image), nearest, groups)
    for share in SHARES:
        width = round(share * channels)
        square += torch.cdist(own[:, kept:width], along[:, kept:width]).square()
        kept = width
        rests = [one[:, kept:].square().sum(1).sqrt() for one in (own, along)]
        lower = square + (rests[0][:, None] - rests[1]).square()
        pairs = left(lower.view(len(own), n, per_image), nearest, groups)
        part = (kept + 1) / channels
        time = SCREEN * part + RESCORE * max(PAIRS, pairs) / PAIRS * part
        yield {
            "patches": per_image,
            "channels": channels,
            "kept": kept,
            "queries": len(own),
            "images": n,
            "pairs_whole": round(whole, 2),
            "pairs": round(pairs, 2),
            "gain": round((SCREEN + RESCORE) / time, 2),
        }


def main() -> None:
    """Count, and print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--train", type=Path, help="folder of good images (default: textures)")
    parser.add_argument("--test", type=Path, help="folder of new ones")
    parser.add_argument("--images", type=int, default=50, help="good images (default: 50)")
    parser.add_argument("--queries", type=int, default=256, help="patches (default: 256)")
    args = parser.parse_args()
    train = real_levels(images(args.train, args.images, 0))
    test = real_levels(images(args.test, 10, 1))
    names = ["level 1", "level 2", "level 3", *(f"expanded {block}" for block in EXPANDED)]
    for name, gallery, queries in zip(names, train, test, strict=True):
        for found in layer(queries, gallery, args.queries):
            print(json.dumps({"benchmark": "shortened", "layer": name} | found), flush=True)


if __name__ == "__main__":
    main()
