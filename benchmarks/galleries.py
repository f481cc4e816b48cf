"""What approximate indices and coresets cost in accuracy, and what they save.

One line for each way to search in stage two, of one category of MVTec AD: PRO and ROCAUC of the
maps, seconds a test image, the size of what is searched, how long it took to make (beside
the features), recall against the exact search (each level's; see `spade-faiss info --recall`),
and the leave-one-out threshold. Seconds are the median over the test images of the quickest of
the repeats; what the exact search keeps of the patches is made before.

With --plain, also how long the coreset of the finest level takes by the plain greedy method.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from spade_faiss import Spade
from spade_faiss.datasets import Category, load_mvtec
from spade_faiss.evaluation import CategoryTruth, Scorer
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.images import read_image
from spade_faiss.index import Index, build_galleries
from spade_faiss.index.recall import measure_recall
from spade_faiss.search import (
    GallerySpec,
    LevelSearch,
    gallery_search,
    nearest,
    nearest_in_gallery,
)
from spade_faiss.search.approximate.coreset import greedy_coreset

WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"factory": "Flat"},
    {"factory": "IVF256,Flat", "search_params": "nprobe=4"},
    {"factory": "IVF256,Flat"},
    {"factory": "HNSW32"},
    {"factory": "PQ8"},
    {"factory": "IVF256,PQ8"},
    {"coreset": 0.1},
    {"coreset": 0.01},
    {"coreset": 0.1, "factory": "HNSW32"},
)


def stage_two(index: Index, network: Backbone, images: list[Path], repeats: int) -> float:
    """Return the median seconds that an image's search among patches takes."""
    framing = index.manifest.framing.framing()
    searches = [gallery_search(gallery) for gallery in index.galleries] or [
        LevelSearch(patches, layout.patches)
        for patches, layout in zip(index.levels, index.layouts, strict=True)
    ]
    times = []
    for path in images:
        features = network(framing.apply(read_image(path))[None])
        _, near = nearest(features.descriptors.numpy(), index.descriptors, min(50, len(index)))
        levels = [level.numpy().reshape(-1, level.shape[-1]) for level in features.levels]
        took = []
        for _ in range(repeats):
            start = time.perf_counter()
            for number, queries in enumerate(levels):
                if index.galleries:
                    nearest_in_gallery(queries, index.galleries[number], kept=searches[number])
                else:
                    searches[number].search(
                        torch.from_numpy(queries)[None], torch.from_numpy(near[:1])
                    )
            took.append(time.perf_counter() - start)
        times.append(min(took))
    return statistics.median(times)


def build_seconds(index: Index, way: dict[str, Any]) -> float:
    """Return how long the galleries take to make, beside the features."""
    if not way:
        return 0
    shapes = [(level.height, level.width, level.channels) for level in index.manifest.levels]
    spec = GallerySpec(**way).tried(shapes, len(index))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "0" * 8)
        place.mkdir()
        start = time.perf_counter()
        build_galleries(place, index.levels, spec)
        return time.perf_counter() - start


def measure(
    category: Category, network: Backbone, way: dict[str, Any], repeats: int
) -> dict[str, Any]:
    """Return the figures of one way to search."""
    spade = Spade(network, progress=True, **way).fit(category.train)
    index = spade.index_
    truth = CategoryTruth(category, index.manifest.framing.framing())
    scorer = Scorer()
    for result in spade.query([test.path for test in category.test]):
        scorer.add(result, truth.of(result.position, result.map.shape[:2]))
    scores = scorer.scores(len(index))
    assert scores.pro is not None and scores.pixel_rocauc is not None  # MVTec AD has masks
    recall = measure_recall(index) if index.galleries else []
    searched = sum(gallery.bytes for gallery in index.galleries) or sum(
        level.file.bytes for level in index.manifest.levels
    )
    return {
        "search": index.manifest.gallery.describe() if index.manifest.gallery else "exact",
        "pro": round(scores.pro, 4),
        "pixel_rocauc": round(scores.pixel_rocauc, 4),
        "image_rocauc": round(scores.image_rocauc, 4),
        "image_rocauc_map_max": round(scores.image_rocauc_map_max, 4),
        "threshold": spade.pixel_threshold,
        "stage_two_s": round(
            stage_two(index, network, [t.path for t in category.test], repeats), 5
        ),
        "build_s": round(build_seconds(index, way), 2),
        "searched_mib": round(searched / 2**20, 2),
        "queries": [one.queries for one in recall],
        "recall_at_1": [round(one.recall_at_1, 4) for one in recall],
        "mean_distance_ratio": [round(one.mean_distance_ratio or 1, 4) for one in recall],
    }


def plain_greedy(patches: np.ndarray, count: int) -> np.ndarray:
    """Choose a coreset by one pass over all rows for each that is chosen."""
    first = ((patches - patches.mean(axis=0, dtype=np.float64)) ** 2).sum(axis=1).argmin()
    norms = np.einsum("nc,nc->n", patches, patches)
    chosen, near = [int(first)], np.full(len(patches), np.inf, np.float32)
    while len(chosen) < count:
        last = chosen[-1]
        np.minimum(near, norms + norms[last] - 2 * (patches @ patches[last]), out=near)
        near[last] = -1
        chosen.append(int(near.argmax()))
    return np.array(chosen)


def coreset_times(patches: np.ndarray, plain: bool) -> Iterator[dict[str, Any]]:
    """Yield how long coresets of one level take."""
    for share in (0.1, 0.01):
        count = round(share * len(patches))
        start = time.perf_counter()
        greedy_coreset(patches, count)
        result = {
            "benchmark": "coreset",
            "patches": len(patches),
            "channels": patches.shape[1],
            "chosen": count,
            "seconds": round(time.perf_counter() - start, 3),
        }
        if plain:
            start = time.perf_counter()
            plain_greedy(patches, count)
            result["plain_seconds"] = round(time.perf_counter() - start, 2)
        yield result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="MVTec AD, or the folder of one category")
    parser.add_argument("--category", default="hazelnut")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    (category,) = load_mvtec(args.root, [args.category])
    network = load_backbone(args.backbone)
    machine = {
        "cores": faiss.omp_get_max_threads(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "faiss": faiss.__version__,
    }
    about = {
        "category": category.name,
        "n_train": len(category.train),
        "n_test": len(category.test),
        "backbone": args.backbone,
    }

    def show(result: dict[str, Any]) -> None:
        if args.json:
            print(json.dumps(result), flush=True)
        else:
            print(*(f"{key:22} {value}" for key, value in result.items()), "", sep="\n", flush=True)

    for way in WAYS:
        figures = measure(category, network, way, args.repeats)
        show({"benchmark": "galleries", **figures, **about, **machine})
    index = Spade(network).fit(category.train, calibrate=False).index_  # kept: it owns the levels
    for result in coreset_times(index.levels[0], args.plain):
        show({**result, **about, **machine})


if __name__ == "__main__":
    main()
