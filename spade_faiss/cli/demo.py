"""Show all of it on a small data set: `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import Console


def demo(
    console: Console,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where all of it goes.")] = Path(
        "spade-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the images.")] = 0,
) -> None:
    """Make a small data set out of textures, then build, query and evaluate on it."""
    from ..evaluation.demo import run_demo

    for name, scores in run_demo(out, seed).items():
        print(
            f"{name}: PRO {scores.pro:.3f}, pixel ROCAUC {scores.pixel_rocauc:.3f}, image "
            f"ROCAUC {scores.image_rocauc_map_mean:.3f}; report in {out / name / 'report.html'}"
        )
    print(f"what each wrong place should have looked like: {out}/*/explain/*/*.png")
    print(f"the whole table: {out / 'table.md'}")
