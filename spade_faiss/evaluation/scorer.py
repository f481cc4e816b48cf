"""Collect the results of test images, and score them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..datasets.category import GOOD
from ..detector import Result
from ..errors import SpadeError
from ..metrics import PixelMetrics, image_rocauc
from .confusion import Confusion
from .scores import Scores, ranking_metrics
from .truth import GroundTruth


class Scorer:
    """Takes the results of test images, in any order, and scores them.

    Parameters
    ----------
    original_size : bool
        Whether maps are scored on the images' own grids instead of the network's input.
    max_fpr : float in (0, 1]
        The false-positive rate up to which PRO and sPRO are integrated.
    spill : path, optional
        A folder for the pixels of the maps, which else are in memory; see `PixelMetrics`.

    Attributes
    ----------
    positions : list of int
        The images' places among the test images.
    labels : list of bool
        Whether each image has a defect.
    places : list of (str, int)
        The clips that frames are of, and their numbers there; empty where images are no frames.
    descriptor_scores, peaks, means : list of float
        Peaks and power means are of the maps on the network's input.
    mapped_kinds : list of str
        What each image whose pixels are counted is: `good`, or a kind of defect.
    unusable_masks : int
        Images that have a mask which cannot be used.
    left_out : int
        Images with a defect that lies all outside the region that is looked at.
    """

    def __init__(
        self, *, original_size: bool = False, max_fpr: float = 0.3, spill: Path | None = None
    ) -> None:
        self._original_size = original_size
        self._pixels = PixelMetrics(max_fpr, spill)
        self.positions: list[int] = []
        self.labels: list[bool] = []
        self.places: list[tuple[str, int]] = []
        self.descriptor_scores: list[float] = []
        self.peaks: list[float] = []
        self.means: list[float] = []
        self.mapped_kinds: list[str] = []
        self.unusable_masks = self.left_out = 0

    def add(self, result: Result, truth: GroundTruth) -> None:
        """Take the result of a test image; without a mask it counts for image metrics alone."""
        if truth.mask is not None:
            values = result.map if self._original_size else result.input_map
            self._pixels.add(values, truth.mask, result.name, truth.regions, truth.looked_at)
            self.mapped_kinds.append(truth.kind)
        self.unusable_masks += bool(truth.problem)
        self.left_out += truth.is_left_out
        self.positions.append(result.position)
        self.labels.append(truth.anomalous)
        if truth.place is not None:
            self.places.append(truth.place)
        self.descriptor_scores.append(result.descriptor_score)
        self.peaks.append(float(result.input_map.max()))
        self.means.append(result.mean_score)

    @property
    def pixels(self) -> PixelMetrics | None:
        """The pixels of the images that have a mask; None where no defect has one."""
        return self._pixels if {*self.mapped_kinds} - {GOOD} else None

    def metrics(self) -> tuple[float, float, float | None, float | None]:
        """Return the image ROCAUC by descriptor and by map, the pixel ROCAUC, and PRO.

        The last two are None where no defect has a mask.

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

    def scores(
        self,
        n_train: int,
        seconds: float = 0.0,
        *,
        extra: Mapping[str, float] | None = None,
        confusion: Confusion | None = None,
    ) -> Scores:
        """Return the metrics beside what the caller knows.

        Raises
        ------
        SpadeError
            As `metrics` does.
        """
        return Scores(
            *self.metrics(),
            n_train,
            len(self.labels),
            round(seconds, 3),
            extra=dict(extra or {}),
            **ranking_metrics(self.descriptor_scores, self.peaks, self.means, self.labels),
            confusion=confusion,
        )
