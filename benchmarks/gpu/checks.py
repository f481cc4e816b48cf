"""What the fused search did: how exact it was, what it rescored, and where its time went."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from .level import Level
from .setting import Result, Setting


def exactness(level: Level, fused: Callable[[int], Any]) -> Result:
    """Compare all queries of the last item with float64, and all ids with the images named."""
    near, ids = (values[:, :, 0] for values in fused(len(level.queries)))
    named = (
        ids.div(level.per_image, rounding_mode="floor")[:, :, None] == level.images[:, None]
    ).any(2)
    near, ids, queries = near[-1], ids[-1], level.queries[-1].double()
    best = torch.full(near.shape, torch.inf, dtype=torch.float64, device=near.device)
    for tile in level.tiles(len(level.queries) - 1):
        for rows in tile.split(4096):
            apart = torch.cdist(queries, rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
            best = torch.minimum(best, apart.square().min(1).values)
    chosen = (queries - level.patches[ids].double()).square().sum(1)
    tiny = 1e-300
    return {
        "queries": len(queries),
        "max_relative_error": float(((near - best).abs() / (best + tiny)).max()),
        "max_excess_of_the_rows_found": float(((chosen - best) / (best + tiny)).max()),
        "all_among_their_images": bool(named.all()),
    }


def pairs(level: Level, prepared: Any) -> Result:
    """Count the groups of rows that the bounds leave, of the first item's queries."""
    from spade_faiss.search.cuda.rescore import collect_pairs
    from spade_faiss.search.cuda.screen import Limits, Workspace, screen_queries

    count = level.images.shape[1] * prepared.groups
    space = Workspace(count * level.per_image, Limits().pairs, level.queries.device)
    left = torch.zeros(1, dtype=torch.int32, device=level.queries.device)
    best = level.images.new_empty(1, level.per_image)
    part = screen_queries(
        level.queries[:1].contiguous(), prepared, level.images[:1], space, best, left.clone()
    )
    collect_pairs(part, part.floor, space, left, 0, count)
    return {"groups": count, "left_mean": int(left) / level.per_image}


def kernel_times(setting: Setting, fused: Callable[[int], Any]) -> Result:
    """Return the GPU time of each kernel of one search, in microseconds an image."""
    result: Result = {}
    for batch in (min(setting.args.batch), max(setting.args.batch)):
        found = setting.clock.kernels(partial(fused, batch))
        if "skipped" in found:
            return found
        us = {name: round(spent / batch, 2) for name, spent in found["most_us"].items()}
        result[f"batch_{batch}_us_an_image"] = us
    return result


def tiles_chosen() -> Result:
    """Return the tiles that were chosen, and the time of each that was tried."""
    from spade_faiss.search.cuda.tiles import tuner

    if tuner is None:
        return {"skipped": "interpreted"}
    tried = {
        str(config): round(1e3 * (t[0] if isinstance(t, list | tuple) else t), 1)
        for config, t in getattr(tuner, "configs_timings", {}).items()
    }
    return {"chosen": str(tuner.best_config), "tried_us": tried}
