"""What accuracy beyond the paper's costs: presets, and ensembles of networks and views.

    python benchmarks/presets.py --json [--seeds 0,1,2] [--mvtec DIR] > results/presets.json

On the demo's categories, made with each seed, and on MVTec AD's hazelnuts if `--mvtec` names a
data set that has them. One JSON object a line: means over categories and seeds. `best` was chosen
with seeds 10, 11 and 12. The second network is a ResNet-18 with random weights: it shows what a
weak member does, not what a trained one would.
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

from spade_faiss import Spade
from spade_faiss.datasets import Category, load_mvtec, make_demo
from spade_faiss.ensemble import Ensemble
from spade_faiss.evaluation import evaluate_category
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.features.resnet import RESNETS

Make = Callable[[], Spade | Ensemble]


def random_network() -> Backbone:
    """Return a ResNet-18 that was trained on nothing, the same each time."""
    torch.manual_seed(0)
    return Backbone("resnet18", RESNETS["resnet18"](), (0.485, 0.456, 0.406),
                    (0.229, 0.224, 0.225), "0" * 64, torch.device("cpu"))


def settings() -> dict[str, Make]:
    """Return what is compared, by name."""
    lite = load_backbone("efficientnet_lite0")
    both = [lite, random_network()]
    return {
        "paper": lambda: Spade(lite),
        "standardise": lambda: Spade(lite, standardise=True),
        "contrast": lambda: Spade(lite, contrast=True),
        "best": lambda: Spade(lite, preset="best"),
        "paper, views flip": lambda: Ensemble.of([lite], ["flip"]),
        "best, views flip": lambda: Ensemble.of([lite], ["flip"], preset="best"),
        "best, views flip,scale": lambda: Ensemble.of([lite], ["flip", "scale"], preset="best"),
        "best, random resnet18": lambda: Ensemble.of(both, preset="best"),
    }


def measure(name: str, data: str, make: Make, categories: Sequence[Category]) -> dict[str, object]:
    """Return the means over categories, the seconds of a query, and the index's size."""
    found: dict[str, list[float]] = {}
    for category in categories:
        spade = make()
        scores = evaluate_category(spade, category)
        images = [test.path for test in category.test]
        start = time.perf_counter()
        n = sum(1 for _ in spade.query(images))
        seconds = (time.perf_counter() - start) / n
        members = spade.members if isinstance(spade, Ensemble) else (spade,)
        size = sum(file.bytes for one in members for file in one.index_.manifest.files)
        for key, value in {
            "pro": scores.pro, "pixel_rocauc": scores.pixel_rocauc,
            "image_rocauc": scores.image_rocauc,
            "image_rocauc_map_max": scores.image_rocauc_map_max,
            "query_seconds_per_image": seconds,
            "index_mib_per_image": size / scores.n_train / 2**20,
        }.items():
            found.setdefault(key, []).append(float(value or 0))
    return {"data": data, "setting": name, "categories": len(categories),
            **{key: round(float(np.mean(values)), 4) for key, values in found.items()}}


def main() -> None:
    """Print one line a setting and data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--mvtec", type=Path, metavar="DIR")
    parser.add_argument("--only", action="append", metavar="SETTING", help="may be given again")
    parser.add_argument("--threads", type=int, default=2)
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
            for name, make in settings().items():
                if args.only and name not in args.only:
                    continue
                record = measure(name, of, make, some)
                line = json.dumps(record) if args.json else "  ".join(map(str, record.values()))
                print(line, flush=True)
        print(f"torch threads: {args.threads}", file=sys.stderr)


if __name__ == "__main__":
    main()
