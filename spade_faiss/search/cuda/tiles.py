"""The tiles of the screen: chosen by trying them, at the first search of a kind."""

from __future__ import annotations

import inspect
from typing import Any

import triton

from .device import interpreted
from .half import WHOLE
from .kernels.screen import screen


def run_screen(grid: Any, *arguments: Any, **options: Any) -> None:
    """Run `kernels.screen` in the tiles that are the fastest for the gallery's channels.

    Parameters
    ----------
    grid : callable
        Returns the grid for a tile.
    *arguments, **options
        Of the kernel, but for the tile's QUERIES, ROWS and BLOCK.
    """
    if tuner is None:
        block = min(options["CHANNELS"], 64)
        screen[grid](*arguments, **options, QUERIES=32, ROWS=64, BLOCK=block)
    else:
        tuner[grid](*arguments, **options)


def _configs() -> list[Any]:
    """Return the tiles that the first search of a kind chooses from, by trying them.

    BLOCK = 0 stands for whole rows. What does not fit a device's shared memory is passed over;
    the last fits them all.
    """
    tiles = [
        (256, 64, 0, 8, 3),
        (128, 64, 0, 8, 3),
        (128, 256, 64, 8, 3),
        (128, 128, 64, 8, 4),
        (64, 128, 64, 4, 4),
        (64, 64, 32, 4, 3),
    ]
    return [
        triton.Config({"QUERIES": q, "ROWS": r, "BLOCK": b}, num_warps=warps, num_stages=stages)
        for q, r, b, warps, stages in tiles
    ]


def _fitting(configs: list[Any], arguments: dict[str, Any], **options: Any) -> list[Any]:
    """Keep the tiles that suit a gallery's channels."""
    channels = {**arguments, **options}["CHANNELS"]
    kept = []
    for config in configs:
        block = config.kwargs["BLOCK"]
        if block == 0 and channels <= WHOLE:
            kwargs = config.kwargs | {"BLOCK": channels}
            kept.append(
                triton.Config(kwargs, num_warps=config.num_warps, num_stages=config.num_stages)
            )
        elif 0 < block < channels:
            kept.append(config)
    return kept


def _tuned() -> Any:
    options: dict[str, Any] = {}
    if "cache_results" in inspect.signature(triton.autotune).parameters:
        options["cache_results"] = True  # on disk, beside the compiled kernels
    return triton.autotune(
        _configs(),
        key=["CHANNELS", "FOLD"],
        prune_configs_by={"early_config_prune": _fitting},
        **options,
    )(screen)


tuner: Any = None if interpreted() else _tuned()
"""Triton's autotuner; None where kernels are interpreted."""
