"""Score SPADE on a data set of known defects, and set the result beside the paper's table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ._files import replace_file
from .datasets import Category, published_mvtec, read_mask
from .detector import Result, Spade
from .metrics import PixelMetrics, image_rocauc

METRICS = ("image_rocauc", "image_rocauc_map_max", "pixel_rocauc", "pro")


@dataclass(frozen=True)
class Scores:
    """How well one category's defects were found; metrics lie in 0…1.

    Attributes
    ----------
    image_rocauc : float
        By the mean squared distance to the K nearest descriptors (SPADE, section 3.2).
    image_rocauc_map_max : float
        By the anomaly map's largest value.
    pixel_rocauc, pro : float
        Of the maps on the network's input grid, against masks framed like their images (the
        paper's protocol); PRO to a false-positive rate of 0.3.
    n_train, n_test : int
        Images.
    seconds : float
        From the first training image to the last metric.
    """

    image_rocauc: float
    image_rocauc_map_max: float
    pixel_rocauc: float
    pro: float
    n_train: int
    n_test: int
    seconds: float


class Scorer:
    """Collects the results of one category's test images, in any order.

    Parameters
    ----------
    category : Category
    spade : Spade
        Fitted on the category's training images.
    """

    def __init__(self, category: Category, spade: Spade) -> None:
        self._category = category
        self._framing = spade.index_.manifest.framing.framing()
        self._n_train = len(spade.index_)
        self._pixels = PixelMetrics()
        self._labels: list[bool] = []
        self._scores: list[float] = []
        self._peaks: list[float] = []

    def add(self, result: Result) -> None:
        """Take the result of test image `result.position`.

        Raises
        ------
        SpadeError
            If its mask cannot be read or has another size.
        """
        test = self._category.test[result.position]
        size = result.map.shape[0], result.map.shape[1]
        mask = np.zeros(size, bool) if test.mask is None else read_mask(test.mask, size)
        self._pixels.add(result.input_map, self._framing.apply_mask(mask), result.name)
        self._labels.append(test.mask is not None)
        self._scores.append(result.descriptor_score)
        self._peaks.append(float(result.input_map.max()))

    def scores(self, seconds: float) -> Scores:
        """Return the metrics; `seconds` is what the caller measured.

        Raises
        ------
        ValueError
            If there was no defect or no good image.
        """
        pixels = self._pixels.compute()
        return Scores(
            image_rocauc(self._scores, self._labels), image_rocauc(self._peaks, self._labels),
            pixels.pixel_rocauc, pixels.pro, self._n_train, len(self._labels), round(seconds, 3),
        )


def evaluate_category(spade: Spade, category: Category) -> Scores:
    """Index a category's good images, query its test images, and score the maps.

    Raises
    ------
    SpadeError
        If an image or mask cannot be used.
    """
    start = time.perf_counter()
    spade.fit(category.train, calibrate=False)
    scorer = Scorer(category, spade)
    for result in spade.query([test.path for test in category.test]):
        scorer.add(result)
    return scorer.scores(time.perf_counter() - start)


def write_results(
    out: Path, dataset: str, config: Mapping[str, object], categories: Mapping[str, Scores]
) -> dict[str, object]:
    """Write `results.json` and `table.md` into a folder, and return what the JSON holds."""
    mean: dict[str, float] = {
        name: float(np.mean([getattr(scores, name) for scores in categories.values()]))
        for name in METRICS
    }
    mean["seconds"] = round(sum(scores.seconds for scores in categories.values()), 3)
    results: dict[str, object] = {
        "dataset": dataset, "config": dict(config),
        "categories": {name: asdict(scores) for name, scores in categories.items()},
        "mean": mean,
    }
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    replace_file(out / "table.md", table(categories).encode())
    return results


def table(categories: Mapping[str, Scores]) -> str:
    """Return the figures of each category in percent, beside the paper's Table 3 (PRO)."""
    published = published_mvtec()
    methods = list(next(iter(published.values())))
    head = ["category", "PRO", "pixel ROCAUC", "image ROCAUC", "image ROCAUC, map max"]
    lines = [
        _line([*head, *(f"{method}, published PRO" for method in methods)]),
        _line(["---", *["---:"] * (len(head) - 1 + len(methods))]),
    ]
    for name, scores in categories.items():
        theirs = published.get(name, {})
        lines.append(_line([name, *_percents(scores), *_column(theirs.get(m) for m in methods)]))
    if len(categories) > 1:
        means = [
            float(np.mean([getattr(scores, metric) for scores in categories.values()]))
            for metric in ("pro", "pixel_rocauc", "image_rocauc", "image_rocauc_map_max")
        ]
        known = [published[name] for name in categories if name in published]
        theirs_mean = [
            float(np.mean([row[m] for row in known])) if len(known) == len(categories) else None
            for m in methods
        ]
        lines.append(_line(["mean", *_column(means), *_column(theirs_mean)]))
    notes = (
        "All figures in percent. PRO is integrated to a false-positive rate of 0.3. Published: "
        "Table 3 of Cohen & Hoshen, 2020 (arXiv 2005.02357)."
    )
    return "\n".join(lines) + f"\n\n{notes}\n"


def _percents(scores: Scores) -> list[str]:
    return _column([scores.pro, scores.pixel_rocauc, scores.image_rocauc,
                    scores.image_rocauc_map_max])


def _column(values: Iterable[float | None]) -> list[str]:
    return ["" if value is None else f"{100 * value:.1f}" for value in values]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
