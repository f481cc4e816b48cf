"""Time exact search beside FAISS and the usual ways of doing SPADE's stage two.

    python benchmarks/search.py [--json] [--only CASE ...] [--train DIR --test DIR] [--rounds 5]
                                [--before CHECKOUT] [--quick]

Galleries are those of K = 50 training images. The cases:

- "random": features are normal and structureless.
- "real": EfficientNet-Lite0's features, those of its pyramid (24 to 112 channels) and of the
  expanded layers inside its blocks (144 to 1152), of photographs of textures, or of the images in
  the folders that are given.
- "untrained": the pyramid of a Wide-ResNet-50-2 with random weights (seed 0), of the same images.
- "small": searches of few milliseconds, of random features.

All ways run in turn on the same data; figures are medians. "gflops" counts two operations a channel
and pair, whatever was really computed. "kernel" is what `auto` searched by; the environment may
choose it (`SPADE_FAISS_KERNEL`).

- `faiss.knn`: FAISS called directly. "ratio" is to it.
- `auto, batch`: this project's search of a batch of 8 images, by the image, with the gallery kept
  from one search to the next; `auto, 1 image` without a batch, and `auto, cold` with nothing kept
  either; `auto, once` is `spade_faiss.search.nearest`.
- `faiss, 1 image`, `faiss, once`: the same by the engine `faiss`.
- `..., before`: the same by another checkout of this project, in a process of its own, with
  `--before`. "before" is the ratio of its time to today's.
- `product, bfloat16`, `product, float32`: the product of queries and gallery alone, by torch, in
  tiles of 32 MiB at most. Nothing is found by it.
- `torch.cdist`: tiles of at most 256 MiB, then their minima.
- `scikit-learn`: NearestNeighbors(algorithm="brute").
- `pairwise_distance`: blocks of 100 gallery patches, each broadcast against all queries, as
  SPADE-pytorch does it.
- `IndexFlatL2 anew`: an index built for each image and level, as SPADE-fast does it.

`torch.cdist`, `scikit-learn` and `pairwise_distance` run once, the last of them on fewer queries
where it is slow: "share" says which part.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from machine import instructions, processor
from searcher import Way, elsewhere, searches
from skimage import data
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from spade_faiss.features import Backbone, load_backbone
from spade_faiss.features.backbone import ARCHITECTURES
from spade_faiss.images import Framing, find_images, load_images
from spade_faiss.search.native import kernels

K, BATCH = 50, 8
CASES = ("random", "real", "untrained", "small")
EXPANDED = {2: 144, 4: 240, 10: 672, 14: 1152}
"""Blocks of EfficientNet-Lite0, and the channels of their depthwise convolutions."""
RANDOM = [
    (3136, 3136, 24),
    (784, 784, 40),
    (196, 196, 112),
    (784, 784, 256),
    (784, 784, 512),
    (196, 196, 1024),
]
"""Queries and patches an image, and channels."""
SMALL = [
    (1, 200, 1280),
    (1, 1000, 1280),
    (1, 5000, 1280),
    (8, 5000, 1280),
    (32, 5000, 1280),
    (20, 100000, 24),
    (49, 2450, 320),
    (49, 2450, 1152),
    (100, 1000, 64),
    (196, 1000, 112),
    (784, 784, 40),
    (784, 2500, 256),
    (1000, 1000, 16),
]
"""Queries, patches and channels of small searches."""
QUICK = 4, 196
"""Training images, and the most queries, with `--quick`."""
PAUSE = 0.03
"""Seconds between two ways, so that the threads of one no longer wait busily for more work."""


@dataclass(frozen=True)
class Case:
    """Queries [B, Q, C] of B images, and the patches [K * per_image, C] to search."""

    features: str
    queries: Tensor
    patches: Tensor
    per_image: int


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--only", choices=CASES, nargs="+", default=CASES)
    parser.add_argument("--train", type=Path, help="folder of good images, for their features")
    parser.add_argument("--test", type=Path, help="folder of images to query")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--quick", action="store_true", help="few images and queries, to try it")
    options = parser.parse_args()
    if not options.json:
        print(
            f"{'features':9} {'way':21} {'kernel':6} {'queries':>7} {'gallery':>7} {'channels':>8} "
            f"{'k':>2} {'ms':>9} {'GFLOP/s':>8} {'ratio':>7} {'before':>7} {'error':>8}"
        )
    for case in cases(options):
        q, channels = case.queries.shape[1:]
        if options.quick and q > QUICK[1]:
            continue
        for k in (1, 3) if case.features == "real" and channels == 24 else (1,):
            for row in compare(case, k, options.rounds, options.before):
                show(row, options.json)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases that are asked for."""
    count = QUICK[0] if options.quick else K
    random = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    if "random" in options.only:
        for q, per_image, c in RANDOM:
            yield Case("random", random(BATCH, q, c), random(count * per_image, c), per_image)
    for name, levels, batch in ("real", real_levels, BATCH), ("untrained", untrained_levels, 1):
        if name in options.only:
            good, new = levels(images(options.train, count)), levels(images(options.test, batch, 1))
            for train, test in zip(good, new, strict=True):
                yield Case(name, test, train.flatten(0, 1), train.shape[1])
    if "small" in options.only:
        for q, rows, c in SMALL:
            yield Case("small", random(1, q, c), random(rows, c), rows)


def images(folder: Path | None, count: int, seed: int = 0) -> np.ndarray:
    """Return uint8 images [n, 224, 224, 3]: at most `count` of a folder, or views of textures."""
    if folder:
        paths = [found.path for found in find_images([folder], print)][:count]
        return np.stack([one.wide for one in load_images(paths, Framing.choose(256, 224, (1, 1)))])
    rng = np.random.default_rng(seed)
    photo = data.gravel()
    corners = rng.integers(0, photo.shape[0] - 224, (count, 2))
    grey = np.stack([photo[y : y + 224, x : x + 224] for y, x in corners])
    return np.repeat(grey[..., None], 3, axis=3)


def real_levels(pictures: np.ndarray) -> list[Tensor]:
    """Return the features [n, h * w, C] of the pyramid's levels and of the expanded layers."""
    backbone = load_backbone("efficientnet_lite0", device="cpu")
    inner: dict[int, list[Tensor]] = {block: [] for block in EXPANDED}

    def keep(block: int) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, given, made: inner[block].append(
            made.clamp(0, 6).flatten(2).mT.contiguous()
        )

    blocks = backbone._network._blocks
    hooks = [blocks[block]._bn1.register_forward_hook(keep(block)) for block in EXPANDED]
    pyramid = pyramid_of(backbone, pictures)
    for hook in hooks:
        hook.remove()
    return pyramid + [torch.cat(inner[block]) for block in EXPANDED]


def untrained_levels(pictures: np.ndarray) -> list[Tensor]:
    """Return the features [n, h * w, C] of the levels of a network with random weights."""
    torch.manual_seed(0)
    kind = ARCHITECTURES["wide_resnet50_2"]
    cpu = torch.device("cpu")
    return pyramid_of(Backbone("untrained", kind.make(), kind.mean, kind.std, "", cpu), pictures)


def pyramid_of(backbone: Backbone, pictures: np.ndarray) -> list[Tensor]:
    """Return the features [n, h * w, C] of each level."""
    parts = [backbone(pictures[at : at + 8]).levels for at in range(0, len(pictures), 8)]
    return [torch.cat(level).flatten(1, 2) for level in zip(*parts, strict=True)]


def compare(case: Case, k: int, rounds: int, before: Path | None) -> Iterator[dict[str, Any]]:
    """Time every way in turn and yield one record each."""
    queries, gallery = case.queries[0], case.patches
    few = max(1, min(len(queries), (1 << 22) // len(gallery)))
    given = case.queries, gallery, case.per_image, k
    own = searches(*given)
    others: dict[str, Callable[[], object]] = {
        "product, bfloat16": partial(product, queries.bfloat16(), gallery.bfloat16()),
        "product, float32": partial(product, queries, gallery),
        "torch.cdist": partial(cdist, queries, gallery, k),
        "scikit-learn": partial(sklearn, queries, gallery, k),
        "pairwise_distance": partial(broadcast, queries[:few], gallery, k),
        "IndexFlatL2 anew": partial(anew, queries, gallery, k),
    }
    wanted = ["faiss, 1 image", "auto, batch", "auto, 1 image", "auto, cold", "auto, once", *others]
    once = {"torch.cdist", "scikit-learn", "pairwise_distance"}
    if case.features == "small":
        wanted, once = ["faiss, once", "auto, once", "torch.cdist"], set()
    elif len(case.queries) == 1:
        wanted.remove("auto, batch")
    with ExitStack() as stack:
        ways: dict[str, Way] = {"faiss.knn": (partial(direct, queries, gallery, k), 1)}
        earlier = stack.enter_context(elsewhere(before, *given)) if before else None
        for name in wanted:
            share = few / len(queries) if name == "pairwise_distance" else 1
            ways[name] = own.get(name) or (others[name], share)
            if earlier and name.startswith("auto"):
                ways[f"{name}, before"] = partial(earlier, name), own[name][1]
        seconds, answers = timed(ways, rounds, once)
    truth, sample = nearest_by_float64(queries[:few], gallery, k)
    chosen = kernels()
    kernel = chosen.name.decode() if chosen else "faiss"
    for name, times in seconds.items():
        found = answers[name]
        error = None
        if found is not None:
            gap = (torch.as_tensor(found)[sample].double() - truth).abs()
            error = float(f"{(gap / truth.clamp_min(1e-30)).max().item():.2g}")
        median = statistics.median(times)
        pairs = len(queries) * len(gallery)
        yield {
            "features": case.features,
            "way": name,
            "kernel": kernel if name.startswith("auto") and name in own else None,
            "queries": len(queries),
            "gallery": len(gallery),
            "channels": gallery.shape[1],
            "k": k,
            "seconds": float(f"{median:.4g}"),
            "gflops": round(2e-9 * pairs * gallery.shape[1] / median, 1),
            "ratio_to_faiss": ratio(seconds["faiss.knn"], times),
            "ratio_to_before": ratio(seconds.get(f"{name}, before", []), times),
            "max_rel_error": error,
            "share": round(few / len(queries), 4) if name == "pairwise_distance" else 1,
            "threads": torch.get_num_threads(),
            "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE", "detected"),
            "processor": processor(),
            "instructions": instructions(),
        }


def direct(queries: Tensor, gallery: Tensor, k: int) -> np.ndarray:
    """Call FAISS."""
    return faiss.knn(queries.numpy(), gallery.numpy(), k)[0]


def product(queries: Tensor, gallery: Tensor) -> None:
    """Multiply all queries with all patches, and keep nothing."""
    rows = max(1, (32 << 20) // (len(queries) * gallery.element_size()))
    tile = torch.empty(len(queries), min(rows, len(gallery)), dtype=gallery.dtype)
    for part in torch.split(gallery, rows):
        torch.mm(queries, part.T, out=tile[:, : len(part)])


def cdist(queries: Tensor, gallery: Tensor, k: int) -> Tensor:
    """Take the minima of tiles of distances."""
    tile = max(1, (256 << 20) // (4 * len(gallery)))
    found = [
        torch.cdist(part, gallery).topk(k, largest=False).values
        for part in torch.split(queries, tile)
    ]
    return torch.cat(found).square()


def sklearn(queries: Tensor, gallery: Tensor, k: int) -> np.ndarray:
    """Have scikit-learn search."""
    brute = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(gallery.numpy())
    squared: np.ndarray = brute.kneighbors(queries.numpy())[0] ** 2
    return squared


def broadcast(queries: Tensor, gallery: Tensor, k: int) -> Tensor:
    """Take the minima of distances of all pairs."""
    parts = [
        torch.pairwise_distance(queries[:, None], block[None], eps=0)
        for block in torch.split(gallery, 100)
    ]
    return torch.cat(parts, 1).topk(k, largest=False).values.square()


def anew(queries: Tensor, gallery: Tensor, k: int) -> np.ndarray:
    """Build an index of FAISS's and search it."""
    index = faiss.IndexFlatL2(gallery.shape[1])
    index.add(gallery.numpy())
    found: np.ndarray = index.search(queries.numpy(), k)[0]
    return found


def timed(
    ways: dict[str, Way], rounds: int, once: set[str]
) -> tuple[dict[str, list[float]], dict[str, object]]:
    """Run ways by turns, and some of them in one round only; return seconds an image, and answers.

    The others run once before, so that what is measured or made once does not count.
    """
    for name, (way, _) in ways.items():
        if name not in once:
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, object] = {}
    for turn in range(rounds):
        for name, (way, images_done) in ways.items():
            if turn and name in once:
                continue
            time.sleep(PAUSE)
            start = time.perf_counter()
            answers[name] = way()
            seconds[name].append((time.perf_counter() - start) / images_done)
    return seconds, answers


def nearest_by_float64(queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the distances [n, k] of some queries, and which these are."""
    sample = torch.linspace(0, len(queries) - 1, min(len(queries), 64)).long()
    exact = [
        (gallery.double() - row.double()).square().sum(1).topk(k, largest=False).values
        for row in queries[sample]
    ]
    return torch.stack(exact), sample


def ratio(others: list[float], times: list[float]) -> float | None:
    """Return the median of each round's ratio of another way's time to this one's."""
    ratios = [other / one for other, one in zip(others, times, strict=False)]
    return round(statistics.median(ratios), 2) if ratios else None


def show(row: dict[str, Any], as_json: bool) -> None:
    """Print one record."""
    if as_json:
        print(json.dumps(row), flush=True)
        return
    before, error = row["ratio_to_before"], row["max_rel_error"]
    print(
        f"{row['features']:9} {row['way']:21} {row['kernel'] or '':6} {row['queries']:7} "
        f"{row['gallery']:7} {row['channels']:8} {row['k']:2} {1e3 * row['seconds']:9.2f} "
        f"{row['gflops']:8.1f} {row['ratio_to_faiss']:7.2f} "
        f"{'' if before is None else before:>7} {'' if error is None else f'{error:.1e}':>8}",
        flush=True,
    )


if __name__ == "__main__":
    main()
