"""What tiles find in large pictures, and what they cost.

    python benchmarks/large.py trays HAZELNUT --json > results/large_trays.jsonl
    python benchmarks/large.py parts CATEGORY --tile 256 --json > results/large_parts.jsonl

`trays` makes pictures of 2560 x 2048 out of MVTec AD's hazelnuts, 256 pixels each: 12 good trays of
80 nuts to learn from, 4 further good ones, and 8 with one defective nut. All nuts are turned by
any angle. As there are fewer of them than places, one lies on a tray many times, but on no two of
the trays to learn from: a tray that is left out must show nuts that the others do not, as a new
tray does. The nuts of the trays to be judged are none of those. It builds an index by `--tile` in a
process of its own, then queries in another, as the command line does; figures of memory are the
largest of each.

`parts` compares a category seen as a whole with the same by tiles, by metrics on the images' own
grids. One JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from machine import instructions, processor

from spade_faiss import Spade
from spade_faiss.datasets import load_mvtec
from spade_faiss.evaluation.loop import ScoringOptions, evaluate_split
from spade_faiss.evaluation.points import point_of
from spade_faiss.evaluation.splits import CategorySplit
from spade_faiss.images import read_image

Picture = npt.NDArray[np.uint8]
SIDE, ROWS, COLUMNS = 256, 8, 10
LEARNT, GOOD = 12, 4
HELD_OUT = 10
"""Good nuts of the training folder that are kept for the trays to be judged."""


def nut(path: Path) -> Picture:
    """Return a nut, 256 pixels a side."""
    return np.asarray(cv2.resize(read_image(path), (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def turned(image: Picture, random: np.random.Generator) -> Picture:
    """Return an image turned by any angle, and perhaps mirrored."""
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    ground = tuple(float(value) for value in np.median(edge, axis=0))
    turn = cv2.getRotationMatrix2D((SIDE / 2 - 0.5,) * 2, random.uniform(0, 360), 1)
    image = np.asarray(cv2.warpAffine(image, turn, (SIDE, SIDE), borderValue=ground))
    return image[:, ::-1] if random.integers(2) else image


def tray(nuts: Sequence[Picture], random: np.random.Generator, odd: Picture | None) -> Picture:
    """Return a tray of nuts that are drawn at random, one of them perhaps an odd one."""
    count = ROWS * COLUMNS
    order = np.concatenate([random.permutation(len(nuts)) for _ in range(-(-count // len(nuts)))])
    cells = [turned(nuts[i], random) for i in order[:count]]
    if odd is not None:
        cells[random.integers(count)] = turned(odd, random)
    rows = [np.hstack(cells[at : at + COLUMNS]) for at in range(0, count, COLUMNS)]
    return np.ascontiguousarray(np.vstack(rows))


def make_trays(root: Path, out: Path, seed: int) -> list[tuple[Path, bool]]:
    """Write the trays; return those to be judged, and whether each has a defect."""
    random = np.random.default_rng(seed)
    (category,) = load_mvtec(root.parent, names=[root.name])
    nuts = [nut(path) for path in category.train]
    fresh = nuts[-HELD_OUT:] + [nut(one.path) for one in category.test if not one.wrong]
    odd = [nut(one.path) for one in category.test if one.wrong]
    judged = []

    def write(folder: str, number: int, picture: Picture) -> Path:
        path = out / folder / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture[:, :, ::-1])
        return path

    for i in range(LEARNT):
        write("learnt", i, tray(nuts[:-HELD_OUT][i::LEARNT], random, None))
    for i in range(GOOD):
        judged.append((write("good", i, tray(fresh[i::GOOD], random, None)), False))
    for i, one in enumerate(odd):
        judged.append((write("defects", i, tray(fresh, random, one)), True))
    return judged


def in_a_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Return what a function returns in a process of its own, and the memory that it took."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    start, cpu = time.perf_counter(), time.process_time()
    found = work(*arguments)
    return found | {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "resident_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }


def build(folder: Path, index: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Learn trays."""
    spade = Spade("efficientnet_lite0", preset="best", **settings)
    spade.fit(folder, index)
    made = spade.index_
    return {
        "tiles": made.parts * len(made),
        "patches": sum(map(len, made.levels)),
        "gib": round(sum(one.bytes for one in made.manifest.files) / 2**30, 3),
        "elsewhere": made.manifest.elsewhere,
        "stages": {name: round(value, 2) for name, value in spade.stages.seconds.items()},
        "threshold": spade.image_threshold,
        "good_scores": [round(one, 4) for one in spade.calibration.scores(spade.score)],  # type: ignore[union-attr]
    }


def query(judged: Sequence[tuple[Path, bool]], index: Path) -> dict[str, Any]:
    """Judge trays; times are of all but the first."""
    spade = Spade.load(index)
    scores, verdicts, seconds = [], [], []
    for path, _ in judged:
        start = time.perf_counter()
        result = next(spade.query([path]))
        verdicts.append(spade.verdict_of(result.score(spade.score)))
        scores.append(round(result.score(spade.score), 4))
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            spade.stages.seconds.clear()
    wrong = np.array([wrong for _, wrong in judged])
    called = np.array([verdict == "NG" for verdict in verdicts])
    return {
        "found": int((called & wrong).sum()),
        "defects": int(wrong.sum()),
        "false_alarms": int((called & ~wrong).sum()),
        "good": int((~wrong).sum()),
        "scores_of_good": [score for score, one in zip(scores, wrong, strict=True) if not one],
        "scores_of_defects": [score for score, one in zip(scores, wrong, strict=True) if one],
        "seconds_a_tray": round(float(np.median(seconds[1:])), 2),
        "stages_a_tray": {
            name: round(value / (len(judged) - 1), 2)
            for name, value in spade.stages.seconds.items()
        },
    }


def trays(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what building and querying by tiles takes and finds, and the whole frame's figures."""
    with tempfile.TemporaryDirectory(prefix="trays-") as folder:
        place = Path(folder)
        judged = make_trays(arguments.root, place, arguments.seed)
        settings = {"tile": arguments.tile, "overlap": arguments.overlap, "k": arguments.k}
        index = place / "index"
        yield {"what": "build", **settings} | in_a_process(build, place / "learnt", index, settings)
        yield {"what": "query", **settings} | in_a_process(query, judged, index)


def parts(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the metrics and the cost of a category, as a whole and by tiles."""
    (category,) = load_mvtec(arguments.root.parent, names=[arguments.root.name])
    wholes: dict[str, dict[str, Any]] = {
        "crop": {},
        "whole": {"crop": None},
        f"tile {arguments.tile}": {
            "tile": arguments.tile,
            "overlap": arguments.overlap,
            "resize": arguments.resize,
        },
    }
    for name, settings in wholes.items():
        if arguments.only and name.split()[0] not in arguments.only.split(","):
            continue
        spade = Spade("efficientnet_lite0", preset="best", k=arguments.k, **settings)
        scoring = ScoringOptions([point_of(spade)], original_size=True)
        split = CategorySplit(category, original_size=True)
        start, cpu = time.perf_counter(), time.process_time()
        (scores,), _ = evaluate_split(spade, split, scoring, None, None, lambda note: None)
        yield {
            "category": category.name,
            "seen": name,
            "shorter_side": spade.pipeline.framing.resize,
            "k": arguments.k,
            "pro": scores.pro,
            "pixel_rocauc": scores.pixel_rocauc,
            "image_rocauc_map_max": scores.image_rocauc_map_max,
            "image_rocauc_map_mean": scores.image_rocauc_map_mean,
            "n_train": scores.n_train,
            "n_test": scores.n_test,
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "stages": scores.stages,
        }


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["trays", "parts"])
    parser.add_argument("root", type=Path, help="A category's folder.")
    parser.add_argument("--tile", type=int, default=SIDE)
    parser.add_argument("--overlap", type=int, default=None)
    parser.add_argument("--resize", type=int, default=None)
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="With parts: some of crop,whole,tile.")
    parser.add_argument("--json", action="store_true", help="As JSON, which it is anyway.")
    arguments = parser.parse_args()
    ran_on = {
        "cpu": processor(),
        "instructions": instructions(),
        "threads": torch.get_num_threads(),
    }
    for line in {"trays": trays, "parts": parts}[arguments.what](arguments):
        print(json.dumps(line | ran_on), flush=True)


if __name__ == "__main__":
    main()
