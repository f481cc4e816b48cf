"""What grows with the number of training images, and what does not.

    python benchmarks/scale.py --json [--only PART …] [--images 7000] [--index DIR]
        [--counts N …] [--mvtec DIR] > results/scale.jsonl
    python benchmarks/scale.py --draw results/scale.jsonl docs/scale.png

Parts, each printing JSON objects, one a line:

build     builds an index of views of the demo's textures at 256 pixels, whole frames, with
          EfficientNet-Lite0, and queries it, both as commands; memory is sampled meanwhile.
          With `--index`, the index there is only queried.
growth    memory and disk against training images, with a network that does little work.
limit     the same network: an index ten times what the process is allowed, built and queried.
curve     the cost of a query against training images (the first n of the index).
batch     the cost of a query against the images that are searched for at once.
cold      the same with nothing of the index in the page cache, beside a second time.
open      seconds to open the index: every byte read, or nothing but the stamp.
float16   accuracy, size and time of float16 patches beside float32, on the demo's categories and,
          with `--mvtec`, on MVTec AD's hazelnuts.

Memory is anonymous memory (RssAnon), sampled every 20 ms; pages of mapped files are no burden, as
the system drops them when it needs room. Times are of one thread: seconds of the processor, which
other work on the machine disturbs less than the clock's. The clock's stand beside them.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw

from spade_faiss import Spade
from spade_faiss._support.limit import limit_memory
from spade_faiss._support.memory import anonymous
from spade_faiss.datasets import load_mvtec, make_demo
from spade_faiss.datasets.demo import render
from spade_faiss.detector.pipeline import Batch, Pipeline
from spade_faiss.detector.query import compare, query_by
from spade_faiss.evaluation import evaluate_category
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.index import Index

TEXTURES = ("brick", "grass", "gravel")
LIMIT = 360 << 20


class Wide(torch.nn.Module):
    """Many features for little work: the pixels of 4 x 4 cells, and of 8 x 8."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return descriptors [B, 3] and feature maps."""
        half = torch.nn.functional.avg_pool2d(x, 2)
        maps = [torch.nn.functional.pixel_unshuffle(one, 4) for one in (x, half)]
        return x.flatten(2).std(2), maps


def wide() -> Backbone:
    """Return the network that does little work."""
    return Backbone("wide", Wide(), (0.5,) * 3, (0.2,) * 3, "0" * 64, torch.device("cpu"))


def noise(count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield images of noise."""
    for i in range(count):
        yield np.random.default_rng((seed, i)).integers(0, 255, (256, 256, 3), np.uint8)


def size_of(folder: Path) -> int:
    """Return the bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def watched(command: Sequence[str]) -> dict[str, object]:
    """Run a command, and return its peaks of memory in MiB, its seconds, and its output."""
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peaks = {"RssAnon": 0, "RssFile": 0, "VmData": 0}
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)
        while process.poll() is None:
            try:
                told = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            for name in peaks:
                found = re.search(rf"{name}:\s+(\d+)", told)
                peaks[name] = max(peaks[name], int(found[1]) if found else 0)
            time.sleep(0.02)
        status = process.wait()
        out.seek(0)
        text = out.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "peak_anonymous_mib": peaks["RssAnon"] // 1024,
        "peak_mapped_mib": peaks["RssFile"] // 1024,
        "peak_set_aside_mib": peaks["VmData"] // 1024,
        "cpu_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1
        ),
        "seconds": round(time.perf_counter() - start, 1),
        "status": status,
        "output": text,
    }


def make_images(folder: Path, count: int) -> None:
    """Write views of the demo's textures, 256 x 256, as PNG files."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        path = folder / f"{i:05}.png"
        if not path.exists():
            image = render(0, TEXTURES[i % 3], "train", i).image[:, :, ::-1]
            quick = [cv2.IMWRITE_PNG_COMPRESSION, 1]
            path.write_bytes(cv2.imencode(".png", image, quick)[1].tobytes())


def commands(work: Path, count: int, index: Path | None) -> Iterator[dict[str, object]]:
    """Build and query by the command line."""
    spade = [sys.executable, "-m", "spade_faiss"]
    if index is None:
        make_images(work / "good", count)
        index = work / "index"
        found = watched(
            [
                *spade,
                "build",
                str(work / "good"),
                "--index",
                str(index),
                "--backbone",
                "efficientnet_lite0",
                "--crop",
                "none",
                "--max-memory",
                "1GiB",
                "--json",
            ]
        )
        found.pop("output")
        yield {"part": "build", "images": count, "index_mib": size_of(index) >> 20, **found}
    new = work / "new"
    new.mkdir(exist_ok=True)
    for i in range(40):
        image = render(1, TEXTURES[i % 3], ("hole", "good", "crack")[i % 3], i).image
        cv2.imwrite(str(new / f"{i:02}.png"), image[:, :, ::-1])
    found = watched(
        [
            *spade,
            "query",
            str(index),
            str(new),
            "--out",
            str(work / "out"),
            "--json",
            "--max-memory",
            "1GiB",
        ]
    )
    rows = json.loads(str(found.pop("output")))["images"]
    yield {
        "part": "query",
        "training_images": len(Index.open(index)),
        "images": len(rows),
        "index_mib": size_of(index) >> 20,
        **found,
    }


def bounded(folder: Path, count: int, most: int | None) -> dict[str, object]:
    """Build and query in this process, held to so much memory."""
    network = wide()
    options: dict[str, Any] = {"k": 5, "batch_size": 4, "calibrated": 4}
    small = Spade(network, **options).fit(list(noise(8, 1)))
    small.predict(list(noise(4, 2)))  # all is loaded
    before = anonymous()
    if most:
        limit_memory(most)
    spade = Spade(network, **options).fit(noise(count, 3), folder)
    results = list(spade.query(noise(8, 4)))
    return {
        "images": count,
        "index_mib": size_of(folder) >> 20,
        "start_mib": before >> 20,
        "score": float(results[0].peak),
    }


def growth(work: Path) -> Iterator[dict[str, object]]:
    """Yield peaks of memory, and disk, for more and more images."""
    for count in (100, 200, 400, 800, 1600):
        found = watched(
            [sys.executable, __file__, "--bounded", str(work / "grown"), str(count), "0"]
        )
        yield {"part": "growth", **json.loads(str(found.pop("output"))), **found}


def limit(work: Path) -> Iterator[dict[str, object]]:
    """Yield what an index of ten times the limit took."""
    found = watched(
        [sys.executable, __file__, "--bounded", str(work / "grown"), "4200", str(LIMIT)]
    )
    yield {
        "part": "limit",
        "limit_mib": LIMIT >> 20,
        **json.loads(str(found.pop("output"))),
        **found,
    }


def with_features(_: Pipeline, batch: Batch) -> list[Batch]:
    """Return images with their features, to be compared more than once."""
    return [replace(batch, parts=list(batch.parts))]


def first(spade: Spade, count: int) -> Spade:
    """Return an estimator whose index holds the first training images only."""
    index = copy.copy(spade.index_)
    index.manifest = index.manifest.model_copy(update={"images": index.manifest.images[:count]})
    index.descriptors = index.descriptors[:count]
    index.levels = tuple(
        rows[: count * layout.patches]
        for rows, layout in zip(index.levels, index.layouts, strict=True)
    )
    return spade.with_pipeline(spade.pipeline.on(index))


def median_cost(run: object, images: int, repeats: int) -> dict[str, float]:
    """Return medians of milliseconds an image."""
    assert callable(run)
    run()
    cpu, clock = [], []
    for _ in range(repeats):
        start = time.process_time(), time.perf_counter()
        run()
        cpu.append(time.process_time() - start[0])
        clock.append(time.perf_counter() - start[1])
    return {
        "cpu_ms": round(1e3 * float(np.median(cpu)) / images, 2),
        "ms": round(1e3 * float(np.median(clock)) / images, 2),
    }


def searching(spade: Spade, count: int, batch: int) -> dict[str, float]:
    """Return the cost of searching for eight images and mapping them, features aside."""
    fewer = first(spade, count).with_options(batch_size=batch)
    new = [render(1, TEXTURES[i % 3], "good", i).image for i in range(8)]
    batches = list(query_by(fewer.pipeline, new, with_features))

    def search() -> None:
        for one in batches:
            for _ in compare(fewer.pipeline, one):
                pass

    return median_cost(search, len(new), 2)


def curve(index: Path, counts: Sequence[int]) -> Iterator[dict[str, object]]:
    """Yield the cost of a query against training images."""
    spade = Spade.load(index)
    for count in counts:
        yield {
            "part": "curve",
            "training_images": count,
            "k": spade.k,
            "batch": 4,
            **searching(spade, count, 4),
        }


def batches(index: Path) -> Iterator[dict[str, object]]:
    """Yield the cost of a query against the batch."""
    spade = Spade.load(index)
    for size in (1, 2, 4, 8):
        cost = searching(spade, len(spade.index_), size)
        yield {
            "part": "batch",
            "training_images": len(spade.index_),
            "batch": size,
            **cost,
            "images_a_cpu_second": round(1e3 / cost["cpu_ms"], 1),
        }


def picture_of(results: Path, path: Path) -> dict[str, object]:
    """Draw the curve in some results, and return its exponents."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    points = sorted(
        (line["training_images"], line["cpu_ms"]) for line in lines if line["part"] == "curve"
    )
    logs = np.log(points)
    slope = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
    late = logs[logs[:, 0] >= np.log(500)]
    draw(points, slope, path)
    return {
        "part": "exponent",
        "all": round(slope, 3),
        "from_500_images": round(float(np.polyfit(late[:, 0], late[:, 1], 1)[0]), 3),
    }


def draw(points: Sequence[tuple[int, float]], slope: float, path: Path) -> None:
    """Draw the cost of a query against training images, both logarithmic."""
    width, height, left, right, top, bottom = 640, 360, 64, 16, 44, 48
    picture = Image.new("RGB", (width, height), (250, 250, 249))
    pen = ImageDraw.Draw(picture)
    x0, x1 = np.log10(points[0][0] / 1.3), np.log10(points[-1][0] * 1.3)
    low, high = (
        10 ** np.floor(np.log10(min(p[1] for p in points) / 1.5)),
        10 ** np.ceil(np.log10(max(p[1] for p in points) * 1.5)),
    )

    def at(count: float, cost: float) -> tuple[float, float]:
        x = left + (np.log10(count) - x0) / (x1 - x0) * (width - left - right)
        share = (np.log10(cost) - np.log10(low)) / (np.log10(high) - np.log10(low))
        return x, height - bottom - share * (height - top - bottom)

    for count, _ in points:
        x = at(count, low)[0]
        pen.line([(x, top), (x, height - bottom)], (225, 225, 228))
        pen.text((x, height - bottom + 6), str(count), (24, 24, 27), anchor="ma")
    cost = low
    while cost <= high * 1.01:
        for tick in (cost, 2 * cost, 5 * cost):
            if tick <= high * 1.01:
                y = at(points[0][0], tick)[1]
                pen.line([(left, y), (width - right, y)], (225, 225, 228))
                pen.text((left - 6, y), f"{tick:g}", (24, 24, 27), anchor="rm")
        cost *= 10
    spots = [at(*point) for point in points]
    pen.line(spots, (37, 99, 176), 2)
    for x, y in spots:
        pen.ellipse([x - 4, y - 4, x + 4, y + 4], (37, 99, 176))
    pen.text(
        (left, 14),
        f"A query's search and map, milliseconds of one core, K = 50; exponent {slope:.2f}",
        (24, 24, 27),
    )
    pen.text(
        ((left + width - right) / 2, height - 18), "training images", (24, 24, 27), anchor="ma"
    )
    picture.save(path, optimize=True)


def cold(index: Path) -> Iterator[dict[str, object]]:
    """Yield what a search takes when the patches must be read from the disk first."""
    new = [render(1, TEXTURES[i % 3], "good", i).image for i in range(8)]
    for size in (1, 8):
        spade = Spade.load(index, batch_size=size)
        batch = next(query_by(spade.pipeline, new[:size], with_features))
        for _ in range(3):
            del spade  # pages that are mapped are not dropped
            gc.collect()
            forget(index)
            spade = Spade.load(index, batch_size=size)
            read, seconds = [], []
            for _ in range(2):
                before, start = bytes_read(), time.perf_counter()
                list(compare(spade.pipeline, batch))
                seconds.append(round(time.perf_counter() - start, 3))
                read.append(bytes_read() - before >> 20)
            yield {
                "part": "cold",
                "training_images": len(spade.index_),
                "batch": size,
                "seconds": seconds[0],
                "again": seconds[1],
                "mib_read": read[0],
                "mib_read_again": read[1],
            }


def forget(folder: Path) -> None:
    """Have the system drop a folder's files from its page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_read() -> int:
    """Return what this process has had read from disks."""
    found = re.search(r"^read_bytes: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def opening(index: Path) -> Iterator[dict[str, object]]:
    """Yield what it takes to open an index."""
    for stamp in index.glob("*/verified.json"):
        stamp.unlink()
    size = size_of(index)
    for what in ("every byte", "stamp"):
        start = time.process_time(), time.perf_counter()
        Index.open(index)
        yield {
            "part": "open",
            "read": what,
            "index_mib": size >> 20,
            "cpu_seconds": round(time.process_time() - start[0], 3),
            "seconds": round(time.perf_counter() - start[1], 3),
        }


def float16(work: Path, mvtec: Path | None) -> Iterator[dict[str, object]]:
    """Yield accuracy, size and time of both stores."""
    lite = load_backbone("efficientnet_lite0")
    make_demo(work / "demo")
    for name, root in (*((("hazelnut", mvtec),) if mvtec else ()), ("demo", work / "demo")):
        categories = load_mvtec(root, [name] if name == "hazelnut" else None)
        maps: dict[str, list[np.ndarray]] = {}
        for store in ("float32", "float16"):
            found: dict[str, list[float]] = {}
            for category in categories:
                spade = Spade(lite, store=store)
                scores = evaluate_category(spade, category)
                batches = list(
                    query_by(spade.pipeline, [test.path for test in category.test], with_features)
                )
                start = time.process_time()
                results = [one for batch in batches for one in compare(spade.pipeline, batch)]
                cpu = (time.process_time() - start) / len(results)
                maps.setdefault(store, []).extend(one.map for one in results)
                bytes_an_image = sum(level.file.bytes for level in spade.index_.manifest.levels)
                for key, value in {
                    "pro": scores.pro,
                    "pixel_rocauc": scores.pixel_rocauc,
                    "image_rocauc": scores.image_rocauc,
                    "image_rocauc_map_max": scores.image_rocauc_map_max,
                    "search_cpu_ms": 1e3 * cpu,
                    "patches_mib_an_image": bytes_an_image / scores.n_train / 2**20,
                }.items():
                    found.setdefault(key, []).append(float(value or 0))
            line: dict[str, object] = {
                key: round(float(np.mean(values)), 5) for key, values in found.items()
            }
            if store == "float16":
                line["largest_map_difference"] = max(
                    float(np.abs(a - b).max() / b.max())
                    for a, b in zip(maps["float16"], maps["float32"], strict=True)
                )
            yield {"part": "float16", "data": name, "store": store, **line}


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="for a common call; it always is JSON")
    parts = ("build", "growth", "limit", "curve", "batch", "cold", "open", "float16")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--images", type=int, default=7000)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--mvtec", type=Path)
    parser.add_argument(
        "--counts", type=int, nargs="+", default=(50, 100, 200, 500, 1000, 2000, 5000)
    )
    parser.add_argument("--draw", type=Path, nargs=2, metavar=("RESULTS", "PICTURE"))
    parser.add_argument(
        "--bounded", nargs=3, metavar=("DIR", "IMAGES", "LIMIT"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.draw:
        print(json.dumps(picture_of(*args.draw)))
        return
    if args.bounded:
        folder, count, most = args.bounded
        print(json.dumps(bounded(Path(folder), int(count), int(most) or None)))
        return
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        index = args.index or work / "index"
        runs = {
            "build": lambda: commands(work, args.images, args.index),
            "growth": lambda: growth(work),
            "limit": lambda: limit(work),
            "curve": lambda: curve(index, args.counts),
            "batch": lambda: batches(index),
            "cold": lambda: cold(index),
            "open": lambda: opening(index),
            "float16": lambda: float16(work, args.mvtec),
        }
        for part in args.only:
            for line in runs[part]():
                print(json.dumps({**line, "threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()
