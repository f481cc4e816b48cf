"""Time and memory of PRO and ROCAUC over a whole test set of anomaly maps.

For each side, 83 maps (as in the test set of MVTec AD's bottle) of smooth texture with 3%
defect pixels that score higher, though not all. Measured in one process, medians of the repeats:

- ours: PRO, ROCAUC, average precision and best F1 together;
- scikit-learn's ROCAUC alone (once from 1024 pixels on: it takes most of a minute);
- PRO by the usual loop over thresholds and regions, per threshold (four stand for all);
- the floor: one pass over the bytes of maps and masks.

Peak memory is measured in a process of its own each: how far the resident set rises over what
it was with the maps in memory (after a call on four of them, so that code and threads are not
counted), or before the first of the TIFF files is read.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import scipy
import sklearn
import tifffile
from machine import processor
from skimage.measure import label, regionprops
from sklearn.metrics import roc_auc_score

from spade_faiss import metrics

THRESHOLDS = 4


def image(side: int, seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return one map, float32 [side, side], and its mask, bool [side, side]."""
    random = np.random.default_rng(seed)
    mask = np.zeros((side, side), np.uint8)
    radius = side * np.sqrt(share / (4 * np.pi))
    for _ in range(4):
        centre = random.integers(int(radius), side - int(radius), 2).tolist()
        cv2.circle(mask, centre, round(float(radius)), 1, -1)
    noise = random.standard_normal((side, side), dtype=np.float32)
    scores = cv2.GaussianBlur(noise, (0, 0), 4) * 14
    return scores + 3 * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 4), mask > 0


def images(args: argparse.Namespace, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all maps and masks of one side."""
    for i in range(args.images):
        yield image(side, i, args.share)


def threshold_loop(maps: np.ndarray, masks: np.ndarray) -> None:
    """Find the points of the PRO curve at a few thresholds, region by region."""
    regions = [regionprops(label(mask, connectivity=2)) for mask in masks]
    good = int((~masks).sum())
    for threshold in np.linspace(maps.min(), maps.max(), THRESHOLDS + 2)[1:-1]:
        called = maps >= threshold
        np.mean([called[i][tuple(r.coords.T)].mean() for i, rs in enumerate(regions) for r in rs])
        (called & ~masks).sum() / good


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def status(field: str) -> int:
    """Return a memory field of this process in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def measure_growth(call: Callable[[], Any]) -> int:
    """Return how many bytes the resident set rises at most during a call."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def peak_in_memory(args: argparse.Namespace, side: int) -> dict[str, Any]:
    """Return the peak with the maps in memory, in units of their size."""
    maps = np.empty((args.images, side, side), np.float32)
    masks = np.empty(maps.shape, bool)
    for i, (scores, mask) in enumerate(images(args, side)):
        maps[i], masks[i] = scores, mask
    metrics.pixel_metrics(maps[:4], masks[:4])  # code and threads are no part of it
    grown = measure_growth(lambda: metrics.pixel_metrics(maps, masks))
    return {"peak_over_maps": round(1 + grown / maps.nbytes, 3)}


def peak_streamed(args: argparse.Namespace, side: int) -> dict[str, Any]:
    """Return the peak and the time of reading the maps from TIFF files."""
    with tempfile.TemporaryDirectory() as folder:
        for i, (scores, mask) in enumerate(images(args, side)):
            tifffile.imwrite(Path(folder, f"{i:03}.map.tiff"), scores)
            tifffile.imwrite(Path(folder, f"{i:03}.mask.tiff"), mask.astype(np.uint8))

        def stream() -> None:
            counted = metrics.PixelMetrics()
            for path in sorted(Path(folder).glob("*.map.tiff")):
                mask = tifffile.imread(path.with_name(path.name.replace("map", "mask")))
                counted.add(tifffile.imread(path), mask, name=path.name)
            counted.compute()

        start = time.perf_counter()
        grown = measure_growth(stream)
        return {
            "streamed_peak_gib": round(grown / 2**30, 3),
            "streamed_s": round(time.perf_counter() - start, 3),
        }


PEAKS = {"memory": peak_in_memory, "stream": peak_streamed}


def speed(args: argparse.Namespace, side: int) -> dict[str, Any]:
    """Return all times of one side."""
    pairs = list(images(args, side))
    maps, masks = np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
    del pairs
    ours = metrics.pixel_metrics(maps, masks)
    y, scores = masks.ravel(), maps.ravel()
    theirs: list[float] = []
    result: dict[str, Any] = {
        "pixels": maps.size,
        "defect_share": round(float(masks.mean()), 4),
        "rocauc": ours.pixel_rocauc,
        "pro": ours.pro,
        "ours_s": seconds(lambda: metrics.pixel_metrics(maps, masks), args.repeats),
        "sklearn_rocauc_s": seconds(
            lambda: theirs.append(roc_auc_score(y, scores)), 1 if side >= 1024 else args.repeats
        ),
        "one_threshold_s": seconds(lambda: threshold_loop(maps, masks), 1) / THRESHOLDS,
        "floor_s": seconds(lambda: (maps.max(), np.count_nonzero(masks)), args.repeats),
        "rocauc_difference": abs(ours.pixel_rocauc - theirs[0]),
    }
    result["times_faster_than_sklearn"] = result["sklearn_rocauc_s"] / result["ours_s"]
    result["times_the_floor"] = result["ours_s"] / result["floor_s"]
    return {k: round(v, 6) if k.endswith("_s") else v for k, v in result.items()}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, nargs="+", default=[224, 512, 1024])
    parser.add_argument("--images", type=int, default=83)
    parser.add_argument("--share", type=float, default=0.03, help="of defect pixels, about")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--peak", choices=PEAKS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print(json.dumps(PEAKS[args.peak](args, args.side[0])))
        return
    machine = {
        "cpu": processor(),
        "cores": metrics.ranking.WORKERS,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "scikit-learn": sklearn.__version__,
    }
    for side in args.side:
        result = {"benchmark": "metrics", "images": args.images, "side": side}
        result |= speed(args, side)
        for peak in PEAKS:
            command = [sys.executable, __file__, "--peak", peak, "--side", str(side)]
            command += ["--images", str(args.images), "--share", str(args.share)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result |= json.loads(out)
        result |= machine
        if args.json:
            print(json.dumps(result), flush=True)
        else:
            print(*(f"{key:32} {value}" for key, value in result.items()), "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
