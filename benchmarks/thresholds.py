"""What a threshold that is drawn from n good images is worth.

    python benchmarks/thresholds.py --json ROOT… > results/thresholds.jsonl
    python benchmarks/thresholds.py --json --only simulation --scores FILE
    python benchmarks/thresholds.py --draw results/thresholds.jsonl docs/threshold.png

Each root holds categories in MVTec AD's layout; the demo's textures are added. Parts, each printing
JSON objects, one a line:

curve       of each category, random sets of n of its good images: an index of them, the threshold
            that it draws by default, and what that does to other good images and to defects.
            Every pair of images is compared once: of the preset `paper`, the distance to a set is
            the least of those to its images.
scores      each category's good images, every one scored against the others.
whole       the same sets, some of them, built and queried as a user does: whether curve tells the
            truth, and, with `--preset best`, the only way to know.
simulation  how often new scores exceed the threshold, against the rate aimed at, where scores are
            drawn from a distribution, or from `scores`; and how far one score can move it.

Defects that the network's crop sees less than half of are left out: no threshold finds these.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import torch
from machine import processor
from PIL import Image, ImageDraw, ImageFont
from scipy import stats

from spade_faiss import Spade
from spade_faiss.datasets import Category, TestImage, load_mvtec
from spade_faiss.datasets.demo import DEFECTS, render
from spade_faiss.detector.extract import learn
from spade_faiss.detector.neighbours import copies_in
from spade_faiss.detector.query import query_by
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.images import Framing, read_image
from spade_faiss.maps.smoothing import anomaly_map
from spade_faiss.pictures.colours import rgb
from spade_faiss.search import LevelSearch, between_images, nearest
from spade_faiss.verdict.copies import CANDIDATES, Copies, copy_weights, find_copies
from spade_faiss.verdict.threshold import aimed_quantile, draw_threshold

Floats = npt.NDArray[np.floating]
Ids = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]
Record = dict[str, Any]
TEXTURES = "brick", "grass", "gravel"
COUNTS = 2, 3, 5, 10, 20, 30, 50, 100
TESTED, K = 24, 50
APART = frozenset({"ball_screw", *TEXTURES})
"""Categories whose test images are of other parts, or other views, than those to learn from."""
FIXED = 0.995
"""Beside the default, the share of good images that was asked for formerly."""


@dataclass(frozen=True)
class Shown:
    """A category's images, read: good ones to learn from, other good ones, and defects."""

    name: str
    learnt: list[Pixels]
    good: list[Pixels]
    defects: list[Pixels]

    def tests(self) -> list[Pixels]:
        """Return what is tested."""
        return [*self.good, *self.defects]


def drawn(rng: np.random.Generator, items: Sequence[Path], count: int) -> list[Path]:
    """Return `count` of some paths, at most, in random order."""
    return [items[i] for i in rng.permutation(len(items))[:count]]


def visible(test: TestImage) -> bool:
    """Return whether the network sees half of a defect, as far as that is known."""
    size = read_image(test.path).shape[:2]
    mask = test.mask((size[0], size[1]))
    left, top, right, bottom = Framing.choose(256, 224, (size[0], size[1])).seen(size[0], size[1])
    return not test.masks or 2 * mask[top:bottom, left:right].sum() >= mask.sum()


def shown(category: Category, most: int) -> Shown:
    """Read a category's images, or some of them, a fixed draw; `most` to learn from."""
    rng = np.random.default_rng(0)
    seen = [test.path for test in category.test if test.wrong and visible(test)]
    chosen = (
        drawn(rng, category.train, most),
        drawn(rng, [test.path for test in category.test if not test.wrong], TESTED),
        drawn(rng, seen, TESTED),
    )
    return Shown(category.name, *([read_image(path) for path in paths] for paths in chosen))


def texture(name: str, most: int) -> Shown:
    """Return images of one of the demo's textures, `most` to learn from."""
    return Shown(
        name,
        [render(0, name, "train", i).image for i in range(most)],
        [render(0, name, "good", i).image for i in range(TESTED)],
        [render(0, name, kind, i).image for kind in DEFECTS for i in range(4)],
    )


def sets_of(images: int, counts: Iterable[int], sets: int) -> Iterator[tuple[int, int, Ids]]:
    """Yield n, the set's number, and places of n images; the first set of each n is of one draw."""
    for number in range(sets):
        order = np.random.default_rng(number).permutation(images)
        for n in counts:
            if n <= images and not (n == images and number):
                yield n, number, order[:n]


def outcome(scores: Floats, copies: Copies, good: Floats, defects: Floats) -> Record:
    """Return the threshold that leave-one-out scores give, and what it does."""
    weights = copy_weights(copies)
    record: Record = {
        "independent": round(float(weights.sum()), 2),
        "good": len(good),
        "defects": len(defects),
    }
    for key, quantile in (("", None), ("_fixed", FIXED)):
        threshold = draw_threshold(scores, quantile, weights)
        limit = np.inf if threshold.value is None else threshold.value
        record |= {
            f"aimed{key}": round(1 - threshold.quantile, 5),
            f"threshold{key}": threshold.value and round(threshold.value, 4),
            f"odd{key}": len(threshold.outliers),
            f"found{key}": int((defects > limit).sum()),
            f"false_alarms{key}": int((good > limit).sum()),
        }
    return record


class Pairs:
    """A category's images, each compared with each of those to learn from."""

    def __init__(self, one: Shown, network: Backbone) -> None:
        spade = Spade(network).fit(one.learnt, calibrate=False)
        index = spade.index_
        self.framing, self.n = index.manifest.framing.framing(), len(index)
        self.sizes = [image.shape[:2] for image in [*one.learnt, *one.tests()]]
        self.shapes = [(level.height, level.width) for level in index.manifest.levels]
        new = list(query_by(spade.pipeline, one.tests(), learn))
        self.descriptors = np.concatenate([index.descriptors, *(b.parts.descriptors for b in new)])
        self.distances = np.empty(
            (len(self.sizes), self.n, sum(h * w for h, w in self.shapes)), np.float32
        )
        at = 0
        for level, (h, w) in enumerate(self.shapes):
            rows = np.concatenate(
                [
                    index.rows(level, 0, self.n),
                    *(b.parts.levels[level].flatten(0, 1).numpy() for b in new),
                ]
            )
            for i in range(self.n):
                near = nearest(rows, rows[i * h * w : (i + 1) * h * w])[0]
                self.distances[:, i, at : at + h * w] = np.sqrt(near).reshape(-1, h * w)
            at += h * w
        coarse = torch.tensor(rows[: self.n * h * w])
        gallery, images = LevelSearch(coarse, h * w), torch.arange(self.n)
        self.apart = np.stack(
            [
                between_images(image, gallery, images).numpy()
                for image in coarse.reshape(self.n, h, w, -1)
            ]
        )

    def copies(self, chosen: Ids) -> Copies:
        """Return which of some images show the same part."""
        if len(chosen) < 3:
            return (np.empty(0, np.int64),) * len(chosen)
        some = self.descriptors[chosen]
        _, order = nearest(some, some, min(CANDIDATES + 1, len(chosen)))
        near = np.stack(
            [row[row != i][: len(chosen) - 1][:CANDIDATES] for i, row in enumerate(order)]
        )
        return find_copies(self.apart[chosen[:, None], chosen[near]], near)

    def peak(self, image: int, others: Ids) -> float:
        """Return the peak of an image's map against the K nearest of some images to learn from."""
        if len(others) > K:
            own = self.descriptors[image][None]
            others = others[nearest(own, self.descriptors[others], K)[1][0]]
        least, at, levels = self.distances[image, others].min(0), 0, []
        for h, w in self.shapes:
            levels.append(least[at : at + h * w].reshape(h, w))
            at += h * w
        values = anomaly_map(levels, self.framing.size)
        return float(self.framing.place(values, self.sizes[image]).max())

    def left_out(self, chosen: Ids, copies: Copies) -> Floats:
        """Return the peaks of some images, each against the others that show other parts."""
        return np.array(
            [self.peak(i, np.delete(chosen, [at, *copies[at]])) for at, i in enumerate(chosen)]
        )


def curve(one: Shown, pairs: Pairs, sets: int) -> Iterator[Record]:
    """Yield what thresholds of n images do, for sets of them."""
    first = pairs.n + len(one.good)
    for n, number, chosen in sets_of(pairs.n, COUNTS, sets):
        copies = pairs.copies(chosen)
        # Few categories have enough good test images: those that the set left join them.
        left = np.setdiff1d(np.arange(pairs.n), chosen)[: max(0, TESTED - len(one.good))]
        good, defects = (
            np.array([pairs.peak(i, chosen) for i in some])
            for some in ([*range(pairs.n, first), *left], range(first, len(pairs.sizes)))
        )
        yield {
            "part": "curve",
            "category": one.name,
            "preset": "paper",
            "n": n,
            "set": number,
            **outcome(pairs.left_out(chosen, copies), copies, good, defects),
        }
    every = np.arange(pairs.n)
    copies = pairs.copies(every)
    yield {
        "part": "scores",
        "category": one.name,
        "copies": sum(map(len, copies)) // 2,
        "scores": [round(float(v), 4) for v in pairs.left_out(every, copies)],
    }


def whole(one: Shown, network: Backbone, preset: str, counts: Iterable[int]) -> Iterator[Record]:
    """Yield the same, with indices that are built and queried."""
    for n, number, chosen in sets_of(len(one.learnt), counts, 1):
        spade = Spade(network, preset=preset).fit([one.learnt[i] for i in chosen])
        found = spade.calibration
        assert found
        left = np.setdiff1d(np.arange(len(one.learnt)), chosen)[: max(0, TESTED - len(one.good))]
        good, defects = (
            spade.predict(some).scores
            for some in ([*one.good, *(one.learnt[i] for i in left)], one.defects)
        )
        yield {
            "part": "whole",
            "category": one.name,
            "preset": preset,
            "n": n,
            "set": number,
            **outcome(np.array(found.peaks), copies_in(spade.index_), good, defects),
        }


def simulation(real: dict[str, Floats], draws: int) -> Iterator[Record]:
    """Yield rates seen, as shares of those aimed at, and how far one score moves a threshold."""
    laws = {
        "log-normal": stats.lognorm(0.15),
        "Gumbel": stats.gumbel_r(1, 0.12),
        "Pareto": stats.pareto(1 / 0.15),
    }
    for n in (2, 3, 5, 10, 20, 50, 100, 200):
        for name, law in laws.items():
            rng = np.random.default_rng(n)
            limits = [drawn_limit(law.rvs(n, rng)) for _ in range(draws)]
            yield seen(name, n, [float(law.sf(limit)) for limit in limits])
        for name, scores in real.items():
            if 2 * n <= len(scores):
                rng = np.random.default_rng(n)
                mixed = [rng.permutation(scores) for _ in range(draws)]
                yield seen(
                    name,
                    n,
                    [float(np.mean(some[n:] > drawn_limit(some[:n]))) for some in mixed],
                )
    for n in (5, 20, 50):
        for times in (0, 0.001, 0.5, 1.5, 2, 3, 1e6):
            rng = np.random.default_rng(n)
            moved = []
            for _ in range(draws // 4):
                others = laws["log-normal"].rvs(n - 1, rng)
                moved.append(
                    drawn_limit([*others, times * np.median(others)]) / drawn_limit(others)
                )
            yield {
                "part": "simulation",
                "n": n,
                "one_score_times_median": times,
                "threshold_times": {
                    f"{q:g}": round(float(np.quantile(moved, q)), 3) for q in (0, 0.5, 1)
                },
            }


def drawn_limit(scores: npt.ArrayLike) -> float:
    """Return the threshold that scores, which are not all alike, give."""
    value = draw_threshold(scores).value
    assert value is not None
    return value


def seen(name: str, n: int, rates: Sequence[float]) -> Record:
    """Return a record of a simulated rate."""
    aimed = 1 - aimed_quantile(n)
    return {
        "part": "simulation",
        "scores": name,
        "n": n,
        "aimed": round(aimed, 5),
        "seen": round(float(np.mean(rates)), 5),
        "seen_over_aimed": round(float(np.mean(rates)) / aimed, 2),
    }


def read(path: Path) -> list[Record]:
    """Return a file's records."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
    """Run the parts, or draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("roots", nargs="*", type=Path, metavar="ROOT")
    parser.add_argument("--json", action="store_true", help="for a common call; it always is JSON")
    parts = ("curve", "whole", "simulation")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--category", action="append", help="may be given again")
    parser.add_argument("--preset", default="paper", help="of the part whole")
    parser.add_argument("--counts", type=int, nargs="+", default=(10,), help="of the part whole")
    parser.add_argument("--most", type=int, default=100, help="images of a category to learn from")
    parser.add_argument("--sets", type=int, default=5, help="of n images each")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--scores", type=Path, metavar="FILE", help="results with the part scores")
    parser.add_argument("--draw", type=Path, nargs=2, metavar=("RESULTS", "PICTURE"))
    args = parser.parse_args()
    if args.draw:
        draw(read(args.draw[0]), args.draw[1])
        return
    torch.set_num_threads(1)
    records = read(args.scores) if args.scores else []

    def tell(record: Record) -> None:
        records.append(record)
        print(json.dumps(record), flush=True)

    if {"curve", "whole"} & {*args.only}:
        tell(
            {
                "part": "machine",
                "processor": processor(),
                "cores": os.cpu_count(),
                "threads": 1,
                "backbone": "efficientnet_lite0",
                "torch": torch.__version__,
            }
        )
        network = load_backbone("efficientnet_lite0")
        categories = {c.name: c for root in args.roots for c in load_mvtec(root)}
        for name in (*categories, *TEXTURES):
            if args.category and name not in args.category:
                continue
            one = (
                shown(categories[name], args.most)
                if name in categories
                else texture(name, args.most)
            )
            print(name, file=sys.stderr)
            if "curve" in args.only:
                for record in curve(one, Pairs(one, network), args.sets):
                    tell(record)
            if "whole" in args.only:
                for record in whole(one, network, args.preset, args.counts):
                    tell(record)
    if "simulation" in args.only:
        real = {str(r["category"]): np.array(r["scores"]) for r in records if r["part"] == "scores"}
        for record in simulation(real, args.draws):
            tell(record)


def by_count(records: Iterable[Record], names: set[str], key: str = "") -> Iterator[Record]:
    """Yield by n what was aimed at, found and called wrong: means and ranges over categories.

    Sets of n images of a category count together.
    """
    rows = [r for r in records if r["category"] in names]
    for n in sorted({r["n"] for r in rows}):
        each = [
            [r for r in rows if r["n"] == n and r["category"] == name]
            for name in sorted({r["category"] for r in rows if r["n"] == n})
        ]
        line: Record = {
            "n": n,
            "categories": len(each),
            "sets": sum(map(len, each)),
            "aimed": np.mean([r[f"aimed{key}"] for some in each for r in some]),
        }
        for what, of in (("found", "defects"), ("false_alarms", "good")):
            shares = [sum(r[what + key] for r in some) / sum(r[of] for r in some) for some in each]
            line[what] = [float(np.mean(shares)), min(shares), max(shares)]
        yield line


def draw(records: list[Record], path: Path) -> None:
    """Draw what was found and false alarms against n, and print the figures of the page."""
    lines = [r for r in records if r["part"] in ("curve", "whole")]
    for preset, part in sorted({(r["preset"], r["part"]) for r in lines}):
        some = [r for r in lines if (r["preset"], r["part"]) == (preset, part)]
        names = {r["category"] for r in some}
        for group in (names - APART, names & APART):
            for key in ("", "_fixed"):
                for line in by_count(some, group, key):
                    print(
                        json.dumps(
                            {
                                "part": part,
                                "preset": preset,
                                "fixed": key == "_fixed",
                                "of": sorted(group),
                                **line,
                            }
                        )
                    )
    fine, width, height = 2, 880, 330
    picture = Image.new("RGB", (width * fine, height * fine), rgb("paper"))
    measured = [r for r in lines if r["part"] == "curve"]
    panel(picture, fine, (64, 424), measured, "found", 1.0, "defects found")
    panel(picture, fine, (504, 864), measured, "false_alarms", 0.4, "false alarms")
    picture.resize((width, height), Image.Resampling.BOX).save(path, optimize=True)


def panel(
    picture: Image.Image,
    fine: int,
    sides: tuple[int, int],
    records: list[Record],
    what: str,
    most: float,
    title: str,
) -> None:
    """Draw a share against n: a line a category, and the mean where all of them are there."""
    pen, (left, right), (top, bottom) = ImageDraw.Draw(picture), sides, (74, 274)
    font = ImageFont.load_default(13 * fine)

    def at(n: float, share: float) -> tuple[float, float]:
        x = left + np.log(n / 1.8) / np.log(110 / 1.8) * (right - left)
        return x * fine, (bottom - min(share / most, 1) * (bottom - top)) * fine

    def text(x: float, y: float, said: str, colour: str, anchor: str) -> None:
        pen.text((x * fine, y * fine), said, rgb(colour), font, anchor=anchor)

    for step in range(5):
        level = at(1.8, step * most / 4)[1]
        pen.line([(left * fine, level), (right * fine, level)], rgb("line"), fine)
        text(left - 8, level / fine, f"{100 * step * most / 4:.3g} %", "muted", "rm")
    for n in COUNTS:
        text(at(n, 0)[0] / fine, bottom + 14, str(n), "muted", "mm")
    names = {r["category"] for r in records}
    legend = (
        (names - APART, "accent", "#a9c4e4", "the same parts"),
        (names & APART, "second", "#e3bd97", "other parts"),
    )
    for group, _, pale, _ in legend:
        for name in group:
            pen.line(
                [at(p["n"], p[what][0]) for p in by_count(records, {name})],
                rgb(pale),
                3 * fine // 2,
            )
    for at_row, (group, strong, _, said) in enumerate(legend):
        points = list(by_count(records, group))
        spots = [at(p["n"], p[what][0]) for p in points if p["categories"] == len(group)]
        pen.line(spots, rgb(strong), 2 * fine)
        for x, y in spots:
            pen.ellipse([x - 4 * fine, y - 4 * fine, x + 4 * fine, y + 4 * fine], rgb(strong))
        text(right, 20 + 18 * at_row, f"{said}: each kind, mean", strong, "rm")
    if what == "false_alarms":
        aimed = [at(n, 1 - aimed_quantile(n)) for n in COUNTS]
        pen.line(aimed, rgb("ink"), 2 * fine)
        text(right, 56, "aimed at", "ink", "rm")
    text(left, 20, title, "ink", "lm")
    text((left + right) / 2, bottom + 38, "good images learnt", "muted", "mm")


if __name__ == "__main__":
    main()
