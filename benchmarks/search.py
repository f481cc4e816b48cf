"""Time exact search beside FAISS and the usual ways of doing SPADE's stage two.

    python benchmarks/search.py [--json] [--train DIR --test DIR] [--rounds 5] [--quick | --small]

Galleries are those of K = 50 training images. "random" features are normal and structureless;
"real" ones are EfficientNet-Lite0's: its pyramid levels (24 to 112 channels), and the expanded
layers inside its blocks (144 to 1152 channels), of photographs of textures, or of the images in
the folders that are given. All ways run in turn in one process, on the same data; figures are
medians. "gflops" counts two operations a channel and pair, whatever was really computed.

- `faiss.knn`: FAISS called directly. Ratios are to it.
- `faiss`, `screened`, `auto`: this project's engines on a batch of 8 images, by the image, with
  the gallery kept from one search to the next; `screened, 1 image` without a batch, and
  `screened, cold` with nothing kept either; `auto, once` is `spade_faiss.search.nearest`.
- `torch.cdist`: tiles of at most 256 MiB, then their minima.
- `scikit-learn`: NearestNeighbors(algorithm="brute").
- `pairwise_distance`: blocks of 100 gallery patches, each broadcast against all queries, as
  SPADE-pytorch does it.
- `IndexFlatL2 anew`: an index built for each image and level, as SPADE-fast does it.

The last four are timed on fewer queries where they are slow; "share" says which part.

`--small` is of searches of few milliseconds, of random features, with nothing kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from machine import instructions, processor
from skimage import data
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from spade_faiss.features import load_backbone
from spade_faiss.images import Framing, find_images, load_images
from spade_faiss.search import LevelSearch, nearest

K, BATCH = 50, 8
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
PAUSE = 0.03
"""Seconds between two ways, so that the threads of one no longer wait busily for more work."""


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--train", type=Path, help="folder of good images, for real features")
    parser.add_argument("--test", type=Path, help="folder of images to query")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="small searches only")
    parser.add_argument("--quick", action="store_true", help="random features only, small")
    options = parser.parse_args()
    if not options.json:
        print(
            f"{'features':8} {'way':18} {'queries':>8} {'gallery':>8} {'channels':>8} {'k':>3} "
            f"{'ms':>9} {'GFLOP/s':>8} {'ratio':>7} {'max. rel. error':>16}"
        )
    if options.small:
        generator = torch.Generator().manual_seed(0)
        for q, g, channels in SMALL:
            queries, patches = (torch.randn(n, channels, generator=generator) for n in (q, g))
            for row in compare_small(queries, patches, options.rounds):
                show({"features": "random", **row}, options.json)
        return
    for name, queries, patches, per_image in cases(options):
        for k in (1, 3) if name == "real" and patches.shape[1] == 24 else (1,):
            for row in compare(queries, patches, per_image, k, options.rounds):
                show({"features": name, **row}, options.json)


def cases(options: argparse.Namespace) -> Iterator[tuple[str, Tensor, Tensor, int]]:
    """Yield a name, queries [B, Q, C], patches [K * per_image, C], and per_image."""
    generator = torch.Generator().manual_seed(0)
    for q, per_image, channels in RANDOM[2:3] if options.quick else RANDOM:
        yield (
            "random",
            torch.randn(BATCH, q, channels, generator=generator),
            torch.randn(K * per_image, channels, generator=generator),
            per_image,
        )
    if options.quick:
        return
    good, new = images(options.train, K), images(options.test, BATCH, 1)
    for train, test in zip(levels(good), levels(new), strict=True):
        yield "real", test, train.flatten(0, 1), train.shape[1]


def images(folder: Path | None, count: int, seed: int = 0) -> np.ndarray:
    """Return uint8 images [n, 224, 224, 3]: at most `count` of a folder, or views of textures."""
    if folder:
        paths = [found.path for found in find_images([folder], print)][:count]
        return np.stack([one.input for one in load_images(paths, Framing.choose(256, 224, (1, 1)))])
    rng = np.random.default_rng(seed)
    photo = data.gravel()
    corners = rng.integers(0, photo.shape[0] - 224, (count, 2))
    grey = np.stack([photo[y : y + 224, x : x + 224] for y, x in corners])
    return np.repeat(grey[..., None], 3, axis=3)


def levels(pictures: np.ndarray) -> list[Tensor]:
    """Return the features [n, h * w, C] of the pyramid's levels and of the expanded layers."""
    backbone = load_backbone("efficientnet_lite0", device="cpu")
    inner: dict[int, list[Tensor]] = {block: [] for block in EXPANDED}

    def keep(block: int) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, given, made: inner[block].append(
            made.clamp(0, 6).flatten(2).mT.contiguous()
        )

    blocks = backbone._network._blocks
    hooks = [blocks[block]._bn1.register_forward_hook(keep(block)) for block in EXPANDED]
    parts = [backbone(pictures[at : at + 8]).levels for at in range(0, len(pictures), 8)]
    for hook in hooks:
        hook.remove()
    pyramid = [torch.cat([part[i] for part in parts]).flatten(1, 2) for i in range(len(parts[0]))]
    return pyramid + [torch.cat(inner[block]) for block in EXPANDED]


def compare(
    queries: Tensor, patches: Tensor, per_image: int, k: int, rounds: int
) -> Iterator[dict[str, object]]:
    """Time every way in turn and yield one record each."""
    b, q, channels = queries.shape
    everything = torch.arange(K)[None]
    batch, one = everything.expand(b, -1), everything
    kept, gallery = LevelSearch(patches, per_image), patches.numpy()
    single, few = queries[:1], max(1, min(q, (1 << 22) // len(patches)))

    def anew() -> np.ndarray:
        index = faiss.IndexFlatL2(channels)
        index.add(gallery)
        return index.search(queries[0].numpy(), k)[0]

    def broadcast() -> Tensor:
        asked = queries[0, :few, None]
        parts = [
            torch.pairwise_distance(asked, block[None], eps=0)
            for block in torch.split(patches, 100)
        ]
        return torch.cat(parts, 1).topk(k, largest=False).values.square()

    def sklearn() -> np.ndarray:
        brute = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(gallery)
        squared: np.ndarray = brute.kneighbors(queries[0].numpy())[0] ** 2
        return squared

    ways: dict[str, tuple[Callable[[], object], float]] = {
        "faiss.knn": (partial(direct, queries[0], patches, k), 1),
        "faiss": (lambda: kept.search(single, one, k, "faiss")[0][0], 1),
        "screened": (lambda: kept.search(queries, batch, k, "screened")[0][0], b),
        "screened, 1 image": (lambda: kept.search(single, one, k, "screened")[0][0], 1),
        "screened, cold": (
            lambda: LevelSearch(patches, per_image).search(single, one, k, "screened")[0][0],
            1,
        ),
        "auto, once": (lambda: nearest(queries[0], patches, k)[0], 1),
        "auto": (lambda: kept.search(queries, batch, k, "auto")[0][0], b),
        "torch.cdist": (partial(cdist, queries[0], patches, k), 1),
        "scikit-learn": (sklearn, 1),
        "pairwise_distance": (broadcast, few / q),
        "IndexFlatL2 anew": (anew, 1),
    }
    yield from timed(
        ways,
        queries[0],
        patches,
        k,
        rounds,
        few,
        ("torch.cdist", "scikit-learn", "pairwise_distance"),
    )


def compare_small(queries: Tensor, patches: Tensor, rounds: int) -> Iterator[dict[str, object]]:
    """Time FAISS, `nearest` and `torch.cdist` on a search of few milliseconds."""
    ways: dict[str, tuple[Callable[[], object], float]] = {
        "faiss.knn": (partial(direct, queries, patches, 1), 1),
        "faiss": (lambda: nearest(queries, patches, 1, "faiss")[0], 1),
        "auto, once": (lambda: nearest(queries, patches)[0], 1),
        "torch.cdist": (partial(cdist, queries, patches, 1), 1),
    }
    yield from timed(ways, queries, patches, 1, rounds, len(queries))


def direct(queries: Tensor, gallery: Tensor, k: int) -> np.ndarray:
    """Call FAISS."""
    return faiss.knn(queries.numpy(), gallery.numpy(), k)[0]


def cdist(queries: Tensor, gallery: Tensor, k: int) -> Tensor:
    """Take the minima of tiles of distances."""
    tile = max(1, (256 << 20) // (4 * len(gallery)))
    found = [
        torch.cdist(part, gallery).topk(k, largest=False).values
        for part in torch.split(queries, tile)
    ]
    return torch.cat(found).square()


def timed(
    ways: dict[str, tuple[Callable[[], object], float]],
    queries: Tensor,
    patches: Tensor,
    k: int,
    rounds: int,
    few: int,
    slow: Collection[str] = (),
) -> Iterator[dict[str, object]]:
    """Run ways by turns, each given with how many images it does; slow ones in one round only.

    The first `few` queries' distances are compared with float64's.
    """
    q, channels = queries.shape
    for name, (way, _) in ways.items():
        if name not in slow:
            way()  # what is measured or made once
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, object] = {}
    for turn in range(rounds):
        for name, (way, images_done) in ways.items():
            if turn and name in slow:
                continue
            time.sleep(PAUSE)
            start = time.perf_counter()
            answers[name] = way()
            seconds[name].append((time.perf_counter() - start) / images_done)
    sample = torch.linspace(0, few - 1, min(few, 64)).long()
    truth = torch.stack(
        [
            (patches.double() - row.double()).square().sum(1).topk(k, largest=False).values
            for row in queries[sample]
        ]
    )
    for name, times in seconds.items():
        found = torch.as_tensor(answers[name])[sample].double()
        error = ((found - truth).abs() / truth.clamp_min(1e-30)).max().item()
        median = statistics.median(times)
        yield {
            "engine": name,
            "queries": q,
            "gallery": len(patches),
            "channels": channels,
            "k": k,
            "seconds": float(f"{median:.4g}"),
            "gflops": round(2e-9 * q * len(patches) * channels / median, 1),
            "ratio_to_faiss": round(
                statistics.median(
                    [a / b for a, b in zip(seconds["faiss.knn"], times, strict=False)]
                ),
                2,
            ),
            "max_rel_error": float(f"{error:.2g}"),
            "share": round(few / q, 4) if name == "pairwise_distance" else 1,
            "threads": torch.get_num_threads(),
            "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE", "detected"),
            "processor": processor(),
            "instructions": instructions(),
        }


def show(row: dict[str, Any], as_json: bool) -> None:
    """Print one record."""
    if as_json:
        print(json.dumps(row), flush=True)
    else:
        print(
            f"{row['features']:8} {row['engine']:18} {row['queries']:8} {row['gallery']:8} "
            f"{row['channels']:8} {row['k']:3} {1e3 * row['seconds']:9.2f} {row['gflops']:8.1f} "
            f"{row['ratio_to_faiss']:7.2f} {row['max_rel_error']:16.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
