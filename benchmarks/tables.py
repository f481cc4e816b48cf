"""The paper's tables beside ours, as Markdown and as a figure, from `results.json` files.

    python benchmarks/tables.py results/results.json [more/results.json …] --out DIR

Each file is one run of `spade-faiss evaluate`, all on the same data set. `table.md` and
`figure.png` go to DIR: Table 3 (PRO by category) for MVTec AD, Table 4 (image ROCAUC by method)
for ShanghaiTech Campus.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spade_faiss.datasets import published_mvtec, published_stc
from spade_faiss.evaluation import runs_table
from spade_faiss.report import bars_picture

Runs = Mapping[str, Mapping[str, Any]]


_TOLD = ("resize", "crop", "kappa", "sigma", "ground_truth", "fps", "engine")
"""Settings that a run's label holds where the runs differ in them."""


def read(paths: Sequence[Path]) -> Runs:
    """Return the runs by what they are called: their settings, and their folders if need be."""
    found: list[tuple[Path, Mapping[str, Any]]] = []
    for path in paths:
        try:
            results = json.loads(path.read_text())
            dataset = results["dataset"], results["config"].items(), results["mean"].items()
            _ = [record.items() for record in results["categories"].values()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            sys.exit(f"tables.py: {path} holds no results of spade-faiss evaluate: {error}")
        if found and dataset[0] != found[0][1]["dataset"]:
            sys.exit(f"tables.py: {path} is of another data set ({dataset[0]})")
        found.append((path, results))
    told = [name for name in _TOLD if len({str(one["config"].get(name)) for _, one in found}) > 1]
    runs: dict[str, Mapping[str, Any]] = {}
    for path, results in found:
        config = results["config"]
        label = ", ".join(
            [
                f"{config.get('backbone')}, K = {config.get('k')}",
                *(f"{name} {config.get(name)}" for name in told),
            ]
        )
        runs[label if label not in runs else f"{label} ({path.parent})"] = results
    return runs


def figure(runs: Runs) -> np.ndarray:
    """Return the published figures beside ours, uint8 [H, W, 3]."""
    if next(iter(runs.values()))["dataset"] == "stc":
        published = published_stc()
        groups = [*published, *runs]
        ours = {
            name: [run["mean"]["image_rocauc"] if group == name else None for group in groups]
            for name, run in runs.items()
        }
        return bars_picture(
            "ShanghaiTech Campus, image ROCAUC averaged over scenes",
            groups,
            ("published (Table 4)", [published.get(group) for group in groups]),
            ours,
        )
    names = list(dict.fromkeys(name for run in runs.values() for name in run["categories"]))
    table = published_mvtec()
    theirs = [table.get(name, {}).get("SPADE") for name in names]
    known = [value for value in theirs if value is not None]
    theirs.append(float(np.mean(known)) if len(known) == len(names) else None)
    ours = {
        label: [
            *(run["categories"].get(name, {}).get("pro") for name in names),
            run["mean"].get("pro") if run["categories"].keys() >= set(names) else None,
        ]
        for label, run in runs.items()
    }
    return bars_picture(
        "PRO to a false-positive rate of 0.3",
        [*names, "mean"],
        ("SPADE, published (Table 3)", theirs),
        ours,
    )


def main() -> None:
    """Write the table and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR")
    args = parser.parse_args()
    runs = read(args.results)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "table.md").write_text(runs_table(runs))
    Image.fromarray(figure(runs)).save(args.out / "figure.png", optimize=True)
    print(f"{args.out / 'table.md'}, {args.out / 'figure.png'}")


if __name__ == "__main__":
    main()
