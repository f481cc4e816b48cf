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


def label(results: Mapping[str, Any], path: Path) -> str:
    """Return what a run is called: by its settings."""
    config = results["config"]
    return f"{config.get('backbone', path.parent.name)}, K = {config.get('k', '?')}"


def read(paths: Sequence[Path]) -> Runs:
    """Return the runs by label; two of the same settings are told apart by their folders."""
    runs: dict[str, Mapping[str, Any]] = {}
    for path in paths:
        try:
            results = json.loads(path.read_text())
            name = label(results, path)
            dataset = results["dataset"], bool(results["categories"]), results["mean"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            sys.exit(f"tables.py: {path} holds no results of spade-faiss evaluate: {error}")
        if runs and dataset[0] != next(iter(runs.values()))["dataset"]:
            sys.exit(f"tables.py: {path} is of another data set ({dataset[0]})")
        runs[name if name not in runs else f"{name} ({path.parent})"] = results
    return runs


def figure(runs: Runs) -> np.ndarray:
    """Return the published figures beside ours, uint8 [H, W, 3]."""
    if next(iter(runs.values()))["dataset"] == "stc":
        published = published_stc()
        groups = [*published, *runs]
        ours = {name: [run["mean"]["image_rocauc"] if group == name else None for group in groups]
                for name, run in runs.items()}
        return bars_picture("ShanghaiTech Campus, image ROCAUC averaged over scenes", groups,
                            ("published (Table 4)", [published.get(group) for group in groups]),
                            ours)
    names = list(dict.fromkeys(name for run in runs.values() for name in run["categories"]))
    table = published_mvtec()
    theirs = [table.get(name, {}).get("SPADE") for name in names]
    known = [value for value in theirs if value is not None]
    theirs.append(float(np.mean(known)) if len(known) == len(names) else None)
    ours = {label: [*(run["categories"].get(name, {}).get("pro") for name in names),
                    run["mean"]["pro"]] for label, run in runs.items()}
    return bars_picture("PRO to a false-positive rate of 0.3", [*names, "mean"],
                        ("SPADE, published (Table 3)", theirs), ours)


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
