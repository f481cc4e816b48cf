"""Queries on a GPU, from pixels to maps, with nothing that waits in between.

The host starts all work on some images and goes on; what was found is copied back when it is done.
So a GPU works on the next images while the host makes results of the last. Where as many images at
once come again and again, their work is recorded, and then started by one call (a CUDA graph): an
image alone otherwise waits for the host, which starts hundreds of kernels.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._support.memory import is_shortage
from ..features import devices_of
from ..images.framing import Placing
from ..maps.contrast import expected_distances
from ..maps.smoothing import smoothing_of
from ..search import LevelSearch
from ..search.level import ON_A_GPU
from ..types import Floats
from .correspond import contrast_of, units_compared
from .extract import levels_within
from .maps import ImageFound
from .pipeline import Pipeline
from .under_way import Begun, Made, Recording, Work

logger = logging.getLogger("spade_faiss")

_RECORDED_FROM = 3
"""The time from which on so many images at once are thought to come again: work is recorded."""
_RECORDED_AT_ONCE = 4
"""Images up to which that pays: more keep a GPU busy while the host starts what follows."""
_MOST_PIXELS = 1 << 26
"""Of images whose maps are placed at once. Larger ones go one by one, stage after stage."""
_FAILURES = 3
"""Batches after another of which something was not complete, until the stages do what follows."""
_REST = 256
"""Batches that the stages do before what failed is tried again."""
_ANY = 0
"""Stands for any number of images at once."""
_LATER = 32
"""How many times as many have to come before it is tried anew to record their work."""
_KEPT = 4
"""Passes of one index that are kept: those of an ensemble's views, say."""
_SIZES = 32
"""Sizes of images whose placing is kept."""
_ROWS = 1 << 12
"""Descriptors that are compared at a time, in float64."""
_SPARE = 8
"""Descriptors beyond the nearest that are compared by differences."""

Size = tuple[int, int]


class GpuPass:
    """All stages of a pipeline's queries, on the device of its network.

    Parameters
    ----------
    pipeline : Pipeline
    record : callable, optional
        Records work, as `Recording` does; by default each time all work is started anew.

    Attributes
    ----------
    serves : bool
        Whether the index can be searched so; else nothing may be begun.

    Raises
    ------
    OverflowError
        If the index has values that are too large for the search.
    """

    def __init__(
        self, pipeline: Pipeline, record: Callable[[Work, Tensor], Work] | None = None
    ) -> None:
        index, settings, network = pipeline.index, pipeline.settings, pipeline.network
        self._network, self._device = network, network.device
        self._galleries = []
        for search in pipeline.level_searches(exact=True):
            assert isinstance(search, LevelSearch)
            self._galleries.append(search.prepared_on(self._device, settings.engine))
        self.serves = all(one is not None for one in self._galleries)
        if not self.serves:
            return
        self._framing, self._layouts = pipeline.framing, index.layouts
        self._mirror, self._averaged = settings.mirror, settings.averaged
        self._k = units_compared(index, settings)
        shapes = tuple(layout.grid for layout in index.layouts)
        self._smoothing = smoothing_of(shapes, self._framing.size, settings.sigma, self._device)
        self._descriptors = self._here(index.descriptors)
        self._scales = [self._here(own) for own in index.scales or ()]
        self._expected, self._units = self._contrast(pipeline)
        self._looked_at, self._shares = self._region()
        self._placings: dict[Size, Placing] = {}
        self._seen: Counter[int] = Counter()
        self._recordings: dict[int, Work] = {}
        self._record = record
        self._record_from = _RECORDED_FROM
        self._resting: Counter[int] = Counter()
        self._failures = 0

    def _here(self, values: Floats) -> Tensor:
        return torch.from_numpy(np.array(values)).to(self._device)

    def _contrast(self, pipeline: Pipeline) -> tuple[list[Tensor], tuple[float, ...]]:
        """Return what is taken off each level's distances, by their matches, and its unit."""
        normal = pipeline.index.normal_distances()
        if normal is None:
            return [], ()
        share, around, units = contrast_of(pipeline.index)
        expected = [
            self._here(
                expected_distances(np.arange(len(own)), own, layout, share=share, around=around)
            )
            for own, layout in zip(normal, self._layouts, strict=True)
        ]
        return expected, units

    def _region(self) -> tuple[Tensor | None, Tensor | None]:
        """Return which pixels of the input are looked at, and the share of each in its mean."""
        looked = self._framing.looked_at
        if looked is None:
            return None, None
        counted = [
            torch.ones(one.grid)
            if one.looked_at is None
            else torch.from_numpy(one.looked_at).float()
            for one in self._layouts
        ]
        shares = self._smoothing([one.to(self._device) for one in counted])
        return torch.from_numpy(looked).to(self._device), torch.where(shares > 0, shares, 1)

    @classmethod
    def of(cls, pipeline: Pipeline) -> GpuPass | None:
        """Return that of a pipeline, kept for next time; None where one stage does not suit.

        So it is on the CPU, by several devices, for galleries, tiles, motion, and kappa over 1.
        """
        settings, index = pipeline.settings, pipeline.index
        if pipeline.device.type != "cuda" or len(devices_of(settings.device)) > 1:
            return None
        if index.parts > 1 or settings.kappa > 1 or settings.motion:
            return None
        if index.galleries and not settings.exact:
            return None
        passes: _Passes = pipeline.kept.setdefault("passes", _Passes())
        key = (settings.k, settings.sigma, settings.mirror, settings.engine, pipeline.device)
        if key in passes:
            return passes[key]
        try:
            made = cls(pipeline, Recording)
        except OverflowError:
            passes[key] = None
            return None
        except (RuntimeError, MemoryError) as error:
            if not is_shortage(error):
                raise
            return None
        if not made.serves:  # now: another index may leave it room
            return None
        while len(passes) >= _KEPT:
            passes.pop(next(iter(passes)), None)
        passes[key] = made
        return made

    @torch.inference_mode()
    def begin(self, images: npt.NDArray[np.uint8], sizes: Sequence[Size]) -> Begun | None:
        """Start all work on some images.

        Parameters
        ----------
        images : uint8 [b, h, w, 3]
            As the network is to see them.
        sizes : sequence of (int, int), b long
            Height and width of each image before it was framed.

        Returns
        -------
        Begun or None
            None where memory does not suffice.
        """
        count = len(sizes)
        if sum(height * width for height, width in sizes) > _MOST_PIXELS or self._rests(count):
            return None
        from ..search.cuda.device import on

        with ON_A_GPU, on(self._device):
            try:
                pixels = torch.from_numpy(np.require(images, requirements=["C", "W"]))
                if self._device.type == "cuda":
                    pixels = pixels.pin_memory()
                recorded = self._recorded(pixels)
                if recorded is not None:
                    made = recorded(pixels)
                else:
                    made = self._compute(pixels.to(self._device, non_blocking=True))
                return Begun(made, self._placed(made.on_input, sizes))
            except (RuntimeError, MemoryError) as error:
                if not is_shortage(error):
                    raise
                self._recordings.clear()
                self._resting[count] = _REST
                return None

    def _rests(self, count: int) -> bool:
        """Say whether so many images go stage by stage for a while, since these failed before."""
        for which in (_ANY, count):
            if self._resting[which]:
                self._resting[which] -= 1
                return True
        return False

    def found(self, begun: Begun) -> list[ImageFound] | None:
        """Wait, and return what is found of each image; None if that is to be found by stages.

        So it is where a search had no room for what it found, or features are no numbers.
        """
        found = begun.found()
        self._failures = 0 if found is not None else self._failures + 1
        if self._failures >= _FAILURES:
            self._failures, self._resting[_ANY] = 0, _REST
        return found

    def _recorded(self, pixels: Tensor) -> Work | None:
        """Return the recorded work on so many images, once they come again and again."""
        count = len(pixels)
        if count in self._recordings:
            return self._recordings[count]
        if self._record is None or count > _RECORDED_AT_ONCE:
            return None
        self._seen[count] += 1
        if self._seen[count] >= self._record_from:
            try:
                self._recordings[count] = self._record(self._compute, pixels.to(self._device))
            except Exception as error:  # of torch, or of Triton; what is real comes again
                self._record_from *= _LATER
                reason = str(error).strip().split("\n")[0]
                logger.info("work on the GPU is not recorded: %s", reason)
        return self._recordings.get(count)

    def _placed(self, on_input: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
        """Return maps on the images' own grids: of one size, or each by itself."""
        distinct = sizes[:1] if len(set(sizes)) == 1 else sizes
        placings = [self._placing(size) for size in distinct]
        parts = on_input.chunk(len(distinct))
        return [placing(own) for placing, own in zip(placings, parts, strict=True)]

    def _placing(self, size: Size) -> Placing:
        """Return what places maps on images of a size; those used last are kept."""
        placing = self._placings.pop(size, None)
        if placing is None:
            placing = Placing.of(self._framing, size, self._device)
        while len(self._placings) >= _SIZES:
            del self._placings[next(iter(self._placings))]
        self._placings[size] = placing
        return placing

    def _compute(self, pixels: Tensor) -> Made:
        """Return what is found of images [b, h, w, 3] on the device. Nothing here may wait."""
        features = self._network.see(pixels.flip(2) if self._mirror else pixels)
        levels, descriptors = self._levels(features.levels), features.descriptors
        if self._scales:
            descriptors = descriptors * self._scales[0]
            levels = [one * own for one, own in zip(levels, self._scales[1:], strict=True)]
        near, images = nearest_descriptors(descriptors, self._descriptors, self._k)
        distances, matches, complete = self._correspond(levels, images)
        grids = [one.spread(own, 0) for one, own in zip(self._layouts, distances, strict=True)]
        on_input = self._smoothing(grids)
        if self._looked_at is not None and self._shares is not None:
            on_input = torch.where(self._looked_at, on_input / self._shares, 0)
        return Made(
            near,
            images,
            tuple(grids),
            tuple(one.spread(own, -1) for one, own in zip(self._layouts, matches, strict=True)),
            on_input,
            torch.stack([features.finite, *complete]).all(),
        )

    def _levels(self, levels: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the patches [b, patches, C] that are searched for."""
        own = levels_within(self._framing, levels, mirror=self._mirror, averaged=self._averaged)
        return [
            layout.stored(level, [0] * len(level))
            for layout, level in zip(self._layouts, own, strict=True)
        ]

    def _correspond(
        self, levels: Sequence[Tensor], images: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return each patch's distance and match, per level [b, patches], and what is complete."""
        from ..search.cuda import FusedSearch

        distances, matches, complete = [], [], []
        for number, (queries, gallery) in enumerate(zip(levels, self._galleries, strict=True)):
            assert gallery is not None
            search = FusedSearch(queries.contiguous(), gallery, images)
            near, rows = (values[..., 0] for values in search.begin())
            apart = near.sqrt()
            if self._expected:
                # Where a search is not complete a match is no row, which must not be read.
                own = self._expected[number]
                apart = (apart - own[rows.clamp(max=len(own) - 1)]).clamp_(min=0)
                apart = apart / self._units[number]
            distances.append(apart)
            matches.append(rows)
            complete.append(search.complete)
        return distances, matches, complete


class _Passes(dict[Hashable, GpuPass | None]):
    """Those that are kept, by what they depend on; None where an index cannot be searched so."""


def nearest_descriptors(queries: Tensor, descriptors: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest descriptors of each query, by float64, on the device.

    Parameters
    ----------
    queries : float32 [b, D]
    descriptors : float32 [n, D]
    k : int

    Returns
    -------
    distances : float64 [b, k], squared Euclidean, ascending
    ids : int64 [b, k]
        Of equally near ones the first comes first.
    """
    own = queries.double()
    parts = []
    for at in range(0, len(descriptors), _ROWS):
        rows = descriptors[at : at + _ROWS].double()
        parts.append(
            torch.addmm(torch.linalg.vector_norm(rows, dim=1).square(), own, rows.T, alpha=-2)
        )
    scores = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    some = scores.argsort(dim=1, stable=True)[:, : k + _SPARE].sort(dim=1).values
    apart = (own[:, None] - descriptors[some].double()).square().sum(2)
    distances, order = apart.sort(dim=1, stable=True)
    return distances[:, :k], some.gather(1, order[:, :k])
