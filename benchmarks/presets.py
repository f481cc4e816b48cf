"""What accuracy beyond the paper's costs: presets, and ensembles of networks and views.

    python benchmarks/presets.py --json [--seeds 0,1,2] [--mvtec DIR] > results/presets.json

On the demo's categories, made with each seed, and on MVTec AD's hazelnuts if `--mvtec` names a
data set that has them. One JSON object a line: metrics are means over categories and seeds.
`best` was chosen with seeds 10, 11 and 12. Seconds of a query are measured on the data's last
category with all settings in turn, `--repeat` times: the median, and the median of the ratios to
the paper's in the same turn, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from spade_faiss import Ensemble, Spade
from spade_faiss.datasets import Category, load_mvtec, make_demo
from spade_faiss.evaluation import evaluate_category
from spade_faiss.features import load_backbone

Estimator = Spade | Ensemble


def settings() -> dict[str, Callable[[], Estimator]]:
    """Return what is compared, by name."""
    lite, lite1 = load_backbone("efficientnet_lite0"), load_backbone("efficientnet_lite1")
    return {
        "paper": lambda: Spade(lite),
        "standardise": lambda: Spade(lite, standardise=True),
        "contrast": lambda: Spade(lite, contrast=True),
        "best": lambda: Spade(lite, preset="best"),
        "paper, views flip": lambda: Ensemble.of([lite], ["flip"]),
        "best, views flip": lambda: Ensemble.of([lite], ["flip"], preset="best"),
        "best, views scale": lambda: Ensemble.of([lite], ["scale"], preset="best"),
        "best, views flip,scale": lambda: Ensemble.of([lite], ["flip", "scale"], preset="best"),
        "paper, lite1": lambda: Spade(lite1),
        "best, lite1": lambda: Spade(lite1, preset="best"),
        "best, lite0 and lite1": lambda: Ensemble.of([lite, lite1], preset="best"),
    }


def measure(
    make: Callable[[], Estimator], categories: Sequence[Category]
) -> tuple[dict[str, float], Estimator]:
    """Return the means over categories, and what was fitted on the last."""
    found: dict[str, list[float]] = {}
    for category in categories:
        estimator = make()
        scores = evaluate_category(estimator, category)
        members = estimator.members
        size = sum(file.bytes for one in members for file in one.index_.manifest.files)
        for key, value in {
            "pro": scores.pro,
            "pixel_rocauc": scores.pixel_rocauc,
            "image_rocauc": scores.image_rocauc,
            "image_rocauc_map_max": scores.image_rocauc_map_max,
            "image_rocauc_map_mean": scores.image_rocauc_map_mean,
            "index_mib_per_image": size / scores.n_train / 2**20,
        }.items():
            found.setdefault(key, []).append(float(value or 0))
    return {key: round(float(np.mean(values)), 4) for key, values in found.items()}, estimator


def seconds(
    fitted: dict[str, Estimator], category: Category, repeat: int
) -> dict[str, dict[str, float]]:
    """Return the seconds that a query takes an image, by setting, beside the first setting's."""
    images = [test.path for test in category.test]
    spent: dict[str, list[float]] = {name: [] for name in fitted}
    for turn in range(repeat + 1):  # the first warms up
        for name, estimator in fitted.items():
            start = time.perf_counter()
            n = sum(1 for _ in estimator.query(images))
            if turn:
                spent[name].append((time.perf_counter() - start) / n)
    first = np.array(next(iter(spent.values())))
    return {
        name: {
            "query_seconds_per_image": round(float(np.median(values)), 4),
            "query_seconds_ratio": round(float(np.median(values / first)), 2),
        }
        for name, values in spent.items()
    }


def main() -> None:
    """Print one line a setting and data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--mvtec", type=Path, metavar="DIR")
    parser.add_argument("--only", action="append", metavar="SETTING", help="may be given again")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        categories: list[Category] = []
        for seed in filter(None, args.seeds.split(",")):
            make_demo(Path(folder, seed), int(seed))
            categories += load_mvtec(Path(folder, seed))
        data = {f"demo, seeds {args.seeds}": categories} if categories else {}
        if args.mvtec:
            data["hazelnut"] = load_mvtec(args.mvtec, ["hazelnut"])
        for of, some in data.items():
            found: dict[str, dict[str, float]] = {}
            fitted: dict[str, Estimator] = {}
            for name, make in settings().items():
                if not args.only or name in args.only:
                    found[name], fitted[name] = measure(make, some)
            for name, cost in seconds(fitted, some[-1], args.repeat).items():
                record = {
                    "data": of,
                    "setting": name,
                    "categories": len(some),
                    **found[name],
                    **cost,
                }
                print(
                    json.dumps(record) if args.json else "  ".join(map(str, record.values())),
                    flush=True,
                )
        print(f"torch threads: {args.threads}", file=sys.stderr)


if __name__ == "__main__":
    main()
