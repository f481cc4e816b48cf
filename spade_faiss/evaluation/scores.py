"""Score one category or scene: learn from good images, query the others, compare with the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .._support.stages import Stages
from ..detector import Detector, Result
from ..detector.extract import Images
from ..detector.pipeline import Batch, Pipeline
from ..detector.query import compare, query_by, with_levels
from ..errors import SpadeError
from ..images import Framing, OnError, Source
from ..metrics import PixelMetrics, image_rocauc
from ..metrics.collect import Region
from ..types import Mask
from .images import RECORDED, Confusion, Judge, confusion_of, judge_of, ranked
from .truth import RegionTruth, Truth

METRICS = (
    "image_rocauc",
    "image_rocauc_map_max",
    "image_ap",
    "image_ap_map_max",
    "image_f1",
    "image_f1_map_max",
    "pixel_rocauc",
    "pro",
)
"""In 0…1."""
INDEX = ".index-"
"""What the name of an evaluation's index begins with; it goes when its scores are there."""


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
        Seconds of these for features (decoding included), index, calibration, stage_one,
        stage_two, maps and metrics.
    more : dict of str to float
        Metrics that were asked for besides these.
    image_ap, image_ap_map_max, image_f1, image_f1_map_max : float or None
        Average precision and the greatest F1 of the same two scores; None where not computed.
    confusion : Confusion or None
        What the index's own threshold makes of the images; None where none was drawn.
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
    image_ap: float | None = None
    image_ap_map_max: float | None = None
    image_f1: float | None = None
    image_f1_map_max: float | None = None
    confusion: Confusion | None = None

    def record(self) -> dict[str, Any]:
        """Return what `results.json` holds of it: nothing of what is None."""
        values: dict[str, Any] = asdict(replace(self, confusion=None))
        more: dict[str, float] = values.pop("more")
        metrics = {name: values.pop(name) for name in METRICS}
        del values["confusion"]
        said = {name: value for name, value in metrics.items() if value is not None}
        judged = self.confusion.record() if self.confusion else {}
        return {**said, **more, **judged, **values}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Scores:
        """Undo `record`."""
        record = {"pixel_rocauc": None, "pro": None, **record}
        judged = Confusion.from_record(record) if "confusion" in record else None
        own = {one.name for one in fields(cls)} & record.keys() - {"confusion"}
        more = record.keys() - own - {*RECORDED}
        return cls(
            **{name: record[name] for name in own},
            confusion=judged,
            more={name: record[name] for name in record if name in more},
        )


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


class Scorer:
    """Collects the results of test images, in any order, and scores them.

    Parameters
    ----------
    truth : Truth
    original_size : bool
        Whether maps are scored on the images' own grids instead of the network's input.
    scratch : path, optional
        A folder for what would fill the memory; see `PixelMetrics`.
    judge : Judge, optional
        How the images are called, for the confusion matrix.
    max_fpr : float in (0, 1]
        The false-positive rate up to which PRO and sPRO are integrated.

    Attributes
    ----------
    positions : list of int
        The images' places among the test images.
    mapped : list of int
        Those of the images whose pixels are counted.
    labels : list of bool
    descriptor_scores, peaks : list of float
        Peaks are of the maps on the network's input.
    """

    def __init__(
        self,
        truth: Truth,
        original_size: bool = False,
        scratch: Path | None = None,
        judge: Judge | None = None,
        max_fpr: float = 0.3,
    ) -> None:
        self.judge = judge
        self._truth = truth
        self._original_size = original_size
        self._pixels = PixelMetrics(max_fpr, scratch)
        self.mapped: list[int] = []
        self.positions: list[int] = []
        self.labels: list[bool] = []
        self.descriptor_scores: list[float] = []
        self.peaks: list[float] = []
        self._own_peaks: list[float] = []

    def add(
        self,
        result: Result,
        truth: tuple[bool, Mask | None] | None = None,
        regions: Sequence[Region] = (),
    ) -> None:
        """Take the result of a test image, and what `truth` says of it if that is known.

        Raises
        ------
        SpadeError
            If its mask cannot be read or has another size.
        """
        wrong, mask = truth or self._truth.of(result)
        if mask is not None:
            values = result.map if self._original_size else result.input_map
            self._pixels.add(values, mask, result.name, regions)
            self.mapped.append(result.position)
        self.positions.append(result.position)
        self.labels.append(wrong)
        self.descriptor_scores.append(result.descriptor_score)
        self.peaks.append(float(result.input_map.max()))
        self._own_peaks.append(result.peak)

    @property
    def judged(self) -> list[float]:
        """The scores that the judge compares with the threshold; of the maps without a judge."""
        by_descriptor = self.judge and self.judge.score == "descriptor"
        return self.descriptor_scores if by_descriptor else self._own_peaks

    def metrics(self) -> tuple[float, float, float | None, float | None]:
        """Return the image ROCAUC by descriptor and by map, the pixel ROCAUC, and PRO.

        The last two are None where no image has a mask.

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
        """The pixels of the images that have a mask; None where none has."""
        return self._pixels if self.mapped else None

    def scores(
        self, n_train: int, seconds: float = 0.0, more: Mapping[str, float] | None = None
    ) -> Scores:
        """Return the metrics beside what the caller knows."""
        return Scores(
            *self.metrics(),
            n_train,
            len(self.labels),
            round(seconds, 3),
            more=dict(more or {}),
            **ranked(self.descriptor_scores, self.peaks, self.labels),
            confusion=confusion_of(self.judge, self.positions, self.judged) if self.judge else None,
        )


def point_of(spade: Detector) -> Point:
    """Return the settings that an estimator, or an ensemble's first member, has."""
    return Point(spade.k, spade.kappa, spade.sigma)


def query_points(
    spade: Detector, images: Images, points: Sequence[Point], on_error: OnError | None = None
) -> Iterator[list[Result]]:
    """Yield an image's results at each point; its features are extracted once.

    Points that share `k` and `kappa` share the search, too.
    """
    return query_by(spade.pipeline, images, partial(_at_points, points=tuple(points)), on_error)


def _at_points(pipeline: Pipeline, batch: Batch, points: Sequence[Point]) -> Iterator[list[Result]]:
    """Yield each image's results at each point."""
    searches = list(dict.fromkeys((point.k, point.kappa) for point in points))
    compared = [compare(pipeline.by(k=k, kappa=kappa), batch) for k, kappa in searches]
    for results in zip(*compared, strict=True):
        found = dict(zip(searches, results, strict=True))
        yield [_at(pipeline, found[point.k, point.kappa], point) for point in points]


def _at(pipeline: Pipeline, result: Result, point: Point) -> Result:
    if (point.sigma, point.levels) == (pipeline.settings.sigma, None):
        return result
    return with_levels(pipeline.by(sigma=point.sigma), result, point.levels)


def evaluate_points(
    spade: Detector,
    train: Iterable[Source],
    test: Sequence[Source],
    truth: Callable[[Framing], Truth],
    points: Sequence[Point],
    *,
    original_size: bool = False,
    kinds: Sequence[str] | None = None,
    max_fpr: float = 0.3,
    scratch: Path | None = None,
    on_error: OnError | None = None,
    more: Callable[[Scorer, int], Mapping[str, float]] | None = None,
    on_result: Callable[[Result, bool, Mask | None], object] | None = None,
) -> list[Scores]:
    """Index good images, query the test images, and score them at each point.

    Parameters
    ----------
    spade : Detector
        Is fitted anew.
    train, test : images
    truth : callable
        Given the framing, returns what is known of the test images.
    points : sequence of Point
        Of an ensemble its own alone.
    original_size : bool
        Whether maps are scored on the images' own grids.
    kinds : sequence of str, optional
        What each test image is, `good` or a kind of defect. With it the index draws its
        threshold, each training image being scored against the others, and the first point's
        scores have the confusion matrix at it.
    max_fpr : float in (0, 1]
        The false-positive rate up to which PRO and sPRO are integrated.
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
    stages = spade.stages
    stages.seconds.clear()
    with TemporaryDirectory(
        prefix=INDEX,
        dir=scratch,
        ignore_cleanup_errors=True,  # NFS keeps files that are open
    ) as index:
        drawn = kinds is not None and not spade.by_hand
        spade.fit(train, index, calibrate=drawn, on_error=leave_out)
        known = truth(spade.index_.manifest.framing.framing())
        judges = [judge_of(spade, kinds) if kinds and not at else None for at in range(len(points))]
        scorers = [Scorer(known, original_size, scratch, judge, max_fpr) for judge in judges]
        found_at = (
            ([one] for one in spade.query(test, leave_out))
            if spade.is_ensemble
            else query_points(spade, test, points, leave_out)
        )
        _collect(found_at, known, scorers, stages, leave_out, on_result)
    with stages("metrics"):
        found = [
            scorer.scores(len(spade.index_), more=more(scorer, number) if more else {})
            for number, scorer in enumerate(scorers)
        ]
    seconds = round(time.perf_counter() - start, 3)
    spent = {name: round(value, 3) for name, value in stages.seconds.items()}
    return [replace(scores, seconds=seconds, stages=spent) for scores in found]


def _collect(
    found: Iterable[Sequence[Result]],
    truth: Truth,
    scorers: Sequence[Scorer],
    stages: Stages,
    leave_out: OnError,
    on_result: Callable[[Result, bool, Mask | None], object] | None,
) -> None:
    """Give each image's results to the scorers of their points."""
    for results in found:
        with stages("metrics"):
            try:
                said = truth.of(results[0])
                regions = truth.regions(results[0]) if isinstance(truth, RegionTruth) else ()
            except SpadeError as error:
                leave_out(results[0].name, str(error))
                continue
            for scorer, result in zip(scorers, results, strict=True):
                scorer.add(result, said, regions)
            if on_result:
                on_result(results[0], *said)
