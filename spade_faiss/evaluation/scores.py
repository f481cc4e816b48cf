"""Score one category or scene: learn from good images, query the others, compare with the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._stages import Stages
from ..datasets import Category
from ..detector import Batch, Images, Result, Spade
from ..ensemble import Ensemble
from ..errors import SpadeError
from ..images import Framing, OnError, Source
from ..metrics import PixelMetrics, image_rocauc

METRICS = ("image_rocauc", "image_rocauc_map_max", "pixel_rocauc", "pro")
"""In 0…1."""
INDEX = ".index-"
"""What the name of an evaluation's index begins with; it goes when its scores are there."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """How well the defects of one category were found; metrics lie in 0…1.

    Attributes
    ----------
    image_rocauc : float
        By the mean squared distance to the K nearest descriptors (SPADE, section 3.2).
    image_rocauc_map_max : float
        By the anomaly map's largest value.
    pixel_rocauc, pro : float or None
        Of the maps; PRO to a false-positive rate of 0.3. None where there are no masks.
    n_train, n_test : int
        Images.
    seconds : float
        From the first training image to the last metric.
    stages : dict of str to float
        Seconds of these for features (decoding included), index, stage_one, stage_two, maps
        and metrics.
    more : dict of str to float
        Metrics that were asked for besides these.
    """

    image_rocauc: float
    image_rocauc_map_max: float
    pixel_rocauc: float | None
    pro: float | None
    n_train: int
    n_test: int
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    more: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return what `results.json` holds of it."""
        values: dict[str, Any] = asdict(self)
        more: dict[str, float] = values.pop("more")
        metrics = {name: values.pop(name) for name in METRICS}
        return {**metrics, **more, **values}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Scores:
        """Undo `record`."""
        own = {one.name for one in fields(cls)} & record.keys()
        return cls(**{name: record[name] for name in own},
                   more={name: record[name] for name in record if name not in own})


@dataclass(frozen=True)
class Point:
    """The settings by which features are turned into scores.

    Attributes
    ----------
    k, kappa : int
    sigma : float
    levels : tuple of int or None
        Levels that a map averages, 1 the finest; None for all.
    """

    k: int
    kappa: int
    sigma: float
    levels: tuple[int, ...] | None = None


class Truth(Protocol):
    """What is known of the test images."""

    def of(self, result: Result) -> tuple[bool, Mask | None]:
        """Return whether an image is wrong, and where, on the grid that is scored.

        Raises
        ------
        SpadeError
            If its mask cannot be used.
        """


class CategoryTruth:
    """The defects of a category's test images.

    Parameters
    ----------
    category : Category
    framing : Framing or None
        Frames the masks like their images, by nearest pixel, as the paper does; None leaves
        them untouched.
    """

    def __init__(self, category: Category, framing: Framing | None) -> None:
        self._category = category
        self._framing = framing

    def of(self, result: Result) -> tuple[bool, Mask]:
        """Return whether an image has a defect, and where."""
        test = self._category.test[result.position]
        mask = test.mask((result.map.shape[0], result.map.shape[1]))
        return bool(test.masks), self._framing.apply_mask(mask) if self._framing else mask


class Scorer:
    """Collects the results of test images, in any order, and scores them.

    Parameters
    ----------
    truth : Truth
    original_size : bool
        Whether maps are scored on the images' own grids instead of the network's input.
    scratch : path, optional
        A folder for what would fill the memory; see `PixelMetrics`.

    Attributes
    ----------
    positions : list of int
        The images' places among the test images.
    labels : list of bool
    descriptor_scores, peaks : list of float
    """

    def __init__(
        self, truth: Truth, original_size: bool = False, scratch: Path | None = None
    ) -> None:
        self._truth = truth
        self._original_size = original_size
        self._pixels = PixelMetrics(spill=scratch)
        self._masks = 0
        self.positions: list[int] = []
        self.labels: list[bool] = []
        self.descriptor_scores: list[float] = []
        self.peaks: list[float] = []

    def add(self, result: Result, truth: tuple[bool, Mask | None] | None = None) -> None:
        """Take the result of a test image, and what `truth.of` says of it if that is known.

        Raises
        ------
        SpadeError
            If its mask cannot be read or has another size.
        """
        wrong, mask = truth or self._truth.of(result)
        if mask is not None:
            values = result.map if self._original_size else result.input_map
            self._pixels.add(values, mask, result.name)
            self._masks += 1
        self.positions.append(result.position)
        self.labels.append(wrong)
        self.descriptor_scores.append(result.descriptor_score)
        self.peaks.append(float(result.input_map.max()))

    def metrics(self) -> tuple[float, float, float | None, float | None]:
        """Return the image ROCAUC by descriptor and by map, the pixel ROCAUC, and PRO.

        The last two are None unless all images have masks.

        Raises
        ------
        SpadeError
            If there was no defect or no good image, or no defect pixel.
        """
        try:
            by_descriptor = image_rocauc(self.descriptor_scores, self.labels)
            by_map = image_rocauc(self.peaks, self.labels)
            if self.pixels is None:
                return by_descriptor, by_map, None, None
            pixels = self.pixels.compute()
        except ValueError as error:
            raise SpadeError(f"no metric is defined: {error}") from None
        return by_descriptor, by_map, pixels.pixel_rocauc, pixels.pro

    @property
    def pixels(self) -> PixelMetrics | None:
        """The pixels so far; None unless all images have masks."""
        return self._pixels if self._masks == len(self.labels) else None

    def scores(
        self, n_train: int, seconds: float = 0.0, more: Mapping[str, float] | None = None
    ) -> Scores:
        """Return the metrics beside what the caller knows."""
        return Scores(*self.metrics(), n_train, len(self.labels), round(seconds, 3),
                      more=dict(more or {}))


def point_of(spade: Spade | Ensemble) -> Point:
    """Return the settings that an estimator, or an ensemble's first member, has."""
    if isinstance(spade, Ensemble):
        spade = spade.members[0]
    return Point(spade.k, spade.kappa, spade.sigma)


def query_points(
    spade: Spade, images: Images, points: Sequence[Point], on_error: OnError | None = None
) -> Iterator[list[Result]]:
    """Yield an image's results at each point; its features are extracted once.

    Points that share `k` and `kappa` share the search, too.
    """
    return spade.map_batches(images, partial(_at_points, points=tuple(points)), on_error)


def _at_points(spade: Spade, batch: Batch, points: Sequence[Point]) -> Iterator[list[Result]]:
    """Yield each image's results at each point."""
    searches = list(dict.fromkeys((point.k, point.kappa) for point in points))
    compared = [spade.with_options(k=k, kappa=kappa).compare(batch) for k, kappa in searches]
    for results in zip(*compared, strict=True):
        found = dict(zip(searches, results, strict=True))
        yield [_at(spade, found[point.k, point.kappa], point) for point in points]


def _at(spade: Spade, result: Result, point: Point) -> Result:
    if (point.sigma, point.levels) == (spade.sigma, None):
        return result
    return spade.with_options(sigma=point.sigma).remap(result, point.levels)


def evaluate_points(
    spade: Spade | Ensemble, train: Iterable[Source], test: Sequence[Source],
    truth: Callable[[Framing], Truth], points: Sequence[Point], *, original_size: bool = False,
    scratch: Path | None = None, on_error: OnError | None = None,
    more: Callable[[Scorer, int], Mapping[str, float]] | None = None,
    on_result: Callable[[Result, bool, Mask | None], object] | None = None,
) -> list[Scores]:
    """Index good images, query the test images, and score them at each point.

    Parameters
    ----------
    spade : Spade or Ensemble
        Is fitted anew.
    train, test : images
    truth : callable
        Given the framing, returns what is known of the test images.
    points : sequence of Point
        Of an ensemble its own alone.
    original_size : bool
        Whether maps are scored on the images' own grids.
    scratch : path, optional
        A folder for the index, and for what would fill the memory: the pixels of all maps. By
        default the index is in the system's temporary folder, and the pixels are in memory.
    on_error : callable, optional
        Called with (name, why) for an image or mask that cannot be used; the image is left
        out. Without it the first one raises SpadeError.
    more : callable, optional
        Given each point's scorer and the point's number, returns metrics of its own.
    on_result : callable, optional
        Is given each image's result at the first point, and what `truth` says of it.

    Raises
    ------
    SpadeError
        If no metric is defined on what is left.
    """

    def leave_out(name: str, why: str) -> None:
        if on_error is None:
            raise SpadeError(f"{name}: {why}")
        on_error(name, f"{why}; left out")

    start = time.perf_counter()
    stages = spade.stages = Stages()
    with TemporaryDirectory(
        prefix=INDEX, dir=scratch, ignore_cleanup_errors=True  # NFS keeps files that are open
    ) as index:
        spade.fit(train, index, calibrate=False, on_error=leave_out)
        known = truth(spade.index_.manifest.framing.framing())
        scorers = [Scorer(known, original_size, scratch) for _ in points]
        found_at = ([one] for one in spade.query(test, leave_out)) if isinstance(
            spade, Ensemble) else query_points(spade, test, points, leave_out)
        for results in found_at:
            with stages("metrics"):
                try:
                    said = known.of(results[0])
                except SpadeError as error:
                    leave_out(results[0].name, str(error))
                    continue
                for scorer, result in zip(scorers, results, strict=True):
                    scorer.add(result, said)
                if on_result:
                    on_result(results[0], *said)
    with stages("metrics"):
        found = [
            scorer.scores(len(spade.index_), more=more(scorer, number) if more else {})
            for number, scorer in enumerate(scorers)
        ]
    seconds = round(time.perf_counter() - start, 3)
    spent = {name: round(value, 3) for name, value in stages.seconds.items()}
    return [replace(scores, seconds=seconds, stages=spent) for scores in found]
