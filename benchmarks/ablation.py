"""What each part of the preset `best` brings, and what its constants are worth elsewhere.

    python benchmarks/ablation.py ROOT [ROOT …] [--demo 0,1,2] [--backbone NAME] \
        --json > results/ablation.jsonl

Each ROOT is laid out as MVTec AD. Patches are learnt and searched once with and once without the
margin and averages; the rest is computed from these distances again and again. One JSON object a
line: `part` is a way to the preset, one step after another, or the preset without a part; `choice`
is what a grid of constants gives, and what is chosen for a category by the others alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spade_faiss import Spade
from spade_faiss.datasets import Category, load_mvtec, make_demo
from spade_faiss.detector.neighbours import copies_in
from spade_faiss.evaluation import CategoryTruth
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.index.layout import Layout
from spade_faiss.maps import anomaly_map, power_mean
from spade_faiss.maps.contrast import SHARE, contrast, contrast_unit
from spade_faiss.metrics import PixelMetrics, image_rocauc
from spade_faiss.types import Floats, Ids, Mask
from spade_faiss.verdict.copies import copy_weights

Figures = dict[str, float]


@dataclass(frozen=True)
class Rule:
    """How distances become a map: the preset's way, unless something is left out."""

    features: str = "margin and averages"
    contrast: bool = True
    share: float = SHARE
    around: int = 1
    units: bool = True
    sigma: float = 4.0


FEATURES: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "standardised": {"standardise": True},
    "averages": {"standardise": True, "averaged": True},
    "margin": {"standardise": True, "margin": True},
    "margin and averages": {"standardise": True, "margin": True, "averaged": True},
}
BEFORE = Rule("standardised", share=0.5, around=0, units=False)
PARTS = {
    "paper": Rule("paper", contrast=False),
    "+ standardised": Rule("standardised", contrast=False),
    "+ contrast by the match alone, a half": BEFORE,
    "+ margin": replace(BEFORE, features="margin"),
    "+ averages": replace(BEFORE, features="margin and averages"),
    "+ contrast by those around": replace(BEFORE, features="margin and averages", around=1),
    "+ a share of 0.7": replace(BEFORE, features="margin and averages", around=1, share=SHARE),
    "+ units: best": Rule(),
    "best without the margin": Rule("averages"),
    "best without averages": Rule("margin"),
    "best without contrast, but with units": Rule(share=0.0),
    "best without those around": Rule(around=0),
    "best without units": Rule(units=False),
}
GRID = [
    Rule(share=share, sigma=sigma)
    for share, sigma in product((0.3, 0.5, 0.6, 0.7, 0.8, 0.9), (2.0, 3.0, 4.0, 6.0))
]


@dataclass(frozen=True)
class Level:
    """A level's distances and matches of all test images, and what is normal for the matches."""

    distances: list[Floats]
    matches: list[Ids]
    normal: Floats
    unit: float
    layout: Layout


@dataclass(frozen=True)
class Searched:
    """What a category's test images are, and what the search found of them."""

    name: str
    levels: Mapping[str, list[Level]]
    masks: list[Mask | None]
    labels: list[bool]


def searched(category: Category, network: Backbone) -> Searched:
    """Learn a category with each kind of features, and search its test images' patches."""
    found: dict[str, list[Level]] = {}
    masks: list[Mask | None] = []
    labels: list[bool] = []
    for name, parameters in FEATURES.items():
        spade = Spade(network, contrast=True, **parameters).fit(category.train, calibrate=False)
        index = spade.index_
        normal = index.normal_distances() or []
        weights = copy_weights(copies_in(index))
        index.manifest = index.manifest.model_copy(update={"normal_distances": None})
        results = list(spade.query([test.path for test in category.test]))
        found[name] = [
            Level(
                [result.distances[at] for result in results],
                [result.matches[at] for result in results],
                np.array(level),
                contrast_unit(level, weights),
                index.layouts[at],
            )
            for at, level in enumerate(normal)
        ]
        truth = CategoryTruth(category, spade.pipeline.framing)
        known = [truth.of(one.position, (one.map.shape[0], one.map.shape[1])) for one in results]
        masks, labels = [one.mask for one in known], [one.anomalous for one in known]
    return Searched(category.name, found, masks, labels)


def figures(of: Searched, rule: Rule) -> Figures:
    """Return a category's metrics by a rule."""
    pixels = PixelMetrics()
    peaks, means = [], []
    for i, mask in enumerate(of.masks):
        values = anomaly_map(
            [_distances(level, i, rule) for level in of.levels[rule.features]],
            (224, 224),
            rule.sigma,
        )
        peaks.append(float(values.max()))
        means.append(power_mean(values))
        if mask is not None:
            pixels.add(values, mask, of.name)
    found = pixels.compute()
    return {
        "pro": round(float(found.pro or 0), 4),
        "pixel_rocauc": round(found.pixel_rocauc, 4),
        "image_rocauc_map_mean": round(image_rocauc(means, of.labels), 4),
        "image_rocauc_map_max": round(image_rocauc(peaks, of.labels), 4),
    }


def _distances(level: Level, i: int, rule: Rule) -> Floats:
    unit = level.unit if rule.units else 1.0
    if not rule.contrast:
        return level.distances[i] / np.float32(
            unit if rule.units and rule.features != "paper" else 1
        )
    return contrast(
        level.distances[i],
        level.matches[i],
        level.normal,
        level.layout,
        share=rule.share,
        around=rule.around,
        unit=unit,
    )


def records(categories: Sequence[Category], network: Backbone) -> Iterator[dict[str, Any]]:
    """Yield each part's figures, category by category, then the choice of constants."""
    grid: dict[str, list[Figures]] = {}
    for category in categories:
        of = searched(category, network)
        for part, rule in PARTS.items():
            yield {"part": part, "category": of.name, **figures(of, rule)}
        grid[of.name] = [figures(of, rule) for rule in GRID]
        for rule, found in zip(GRID, grid[of.name], strict=True):
            chosen = {"share": rule.share, "sigma": rule.sigma}
            yield {"choice": "grid", **chosen, "category": of.name, **found}
    yield from choices(grid)


def choices(grid: Mapping[str, Sequence[Figures]]) -> Iterator[dict[str, Any]]:
    """Yield for each category what the others alone would choose for it, and what it gives."""
    for name, own in grid.items():
        others = [found for other, found in grid.items() if other != name]
        if not others:
            return
        worths = [np.mean([_worth(one[at]) for one in others]) for at in range(len(GRID))]
        best = int(np.argmax(worths))
        chosen = {"share": GRID[best].share, "sigma": GRID[best].sigma}
        yield {"choice": "by the other categories", **chosen, "category": name, **own[best]}


def _worth(found: Figures) -> float:
    """Return the mean of PRO, pixel ROCAUC and image ROCAUC, which count alike."""
    return found["pro"] + found["pixel_rocauc"] + found["image_rocauc_map_mean"]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the means over categories, one line a part."""
    keys = "pro", "pixel_rocauc", "image_rocauc_map_mean", "image_rocauc_map_max"
    lines = []
    for part in dict.fromkeys(row["part"] for row in rows if "part" in row):
        own = [row for row in rows if row.get("part") == part]
        means = "  ".join(f"{np.mean([row[key] for row in own]):.4f}" for key in keys)
        lines.append(f"{part:40}  {means}")
    return "\n".join([f"{'means':40}  PRO     pixel   mean    max", *lines])


def main() -> None:
    """Print the records, or the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("roots", nargs="*", type=Path, metavar="ROOT")
    parser.add_argument("--category", action="append", help="may be given again")
    parser.add_argument("--demo", default="", metavar="SEEDS", help="the demo's data sets, too")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network = load_backbone(args.backbone)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        groups = [load_mvtec(root, args.category) for root in args.roots]
        for seed in filter(None, args.demo.split(",")):
            make_demo(Path(folder, seed), int(seed))
            of_seed = load_mvtec(Path(folder, seed))
            groups.append([replace(one, name=f"{one.name}, seed {seed}") for one in of_seed])
        for row in records([one for group in groups for one in group], network):
            rows.append(row)
            if args.json:
                print(json.dumps({"benchmark": "ablation", **row}), flush=True)
    if not args.json:
        print(table(rows))


if __name__ == "__main__":
    main()
