"""SPADE as one estimator: fit on good images, predict where a new one is wrong."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from .._support.stages import Stages
from .._support.versions import installed
from ..errors import SpadeError
from ..features import DEFAULT_BACKBONE, Backbone, devices_of, load_backbone
from ..features.scale import Spread
from ..images import (
    Framing,
    Loaded,
    OnError,
    Source,
    find_images,
    load_images,
    name_of,
    report_problem,
    sizes_of,
)
from ..index import (
    GallerySpec,
    Index,
    IndexWriter,
    Manifest,
    TrainingImage,
    build_galleries,
    discard_leftovers,
    index_lock,
    rewrite_manifest,
)
from ..index.gallery import set_search_params
from ..index.manifest import BackboneRecord, Calibration, FramingRecord, HeldOut, Store
from ..index.store import write_usual
from ..maps.contrast import NEAREST, contrast, usual
from ..maps.smoothing import anomaly_map
from ..search import (
    ENGINES,
    LevelSearch,
    ShardedLevel,
    gallery_search,
    level_search,
    nearest,
    nearest_in_gallery,
)
from ..verdict.copies import Copies, from_pairs, independent, pairs_of
from ..verdict.drawn import asked_quantile, drawn_of, redrawn_calibration, redrawn_held_out
from ..verdict.drift import Drift, compare
from ..verdict.notes import USUAL_K, image_notes, index_notes
from ..verdict.threshold import calibration_sample
from .calibrate import Report, calibrate
from .judging import Judging
from .leave_one_out import copies_in, other_images
from .presets import name_of_preset, preset_of

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Images = str | os.PathLike[str] | Iterable[Source] | npt.NDArray[np.uint8]
Made = TypeVar("Made")

K, KAPPA, SIGMA = USUAL_K, 1, 4.0
STORES = ("float32", "float16")
CALIBRATED = 1000
"""Good images that thresholds are drawn from, at most: five times what the quantile needs."""
SCORES = ("map", "descriptor")
_MADE_WITH = ("spade-faiss", "torch", "numpy", "faiss-cpu", "faiss-gpu")


@dataclass(frozen=True)
class Result:
    """What a query says of one image.

    Attributes
    ----------
    position : int
        Place in the list of images that was passed.
    name : str
        The image's path, or "image N" for an array.
    image : uint8 [H, W, 3]
    input : uint8 [h, w, 3]
        What the network saw of it.
    map : float32 [H, W]
        Anomaly map on the image's own pixel grid; 0 where the crop left pixels unseen.
    input_map : float32 [h, w]
        The same map on the network's input grid.
    descriptor_score : float
        Mean squared distance to the K nearest descriptors (SPADE, section 3.2).
    neighbours : int64 [K]
        The K nearest training images; where a gallery is searched whole, `matches` may be of
        others.
    distances : tuple of float32 [h, w]
        Per level, each patch's mean Euclidean distance to its kappa nearest good patches; with
        contrast, less half of what is usual for the nearest.
    matches : tuple of int64 [h, w]
        Per level, each patch's nearest good patch, as a row of the index's level.
    notes : tuple of str
        What should be known before the verdict is relied on, each in one line: how little of
        the image the network saw, say.
    """

    position: int
    name: str
    image: npt.NDArray[np.uint8]
    input: npt.NDArray[np.uint8]
    map: Floats
    input_map: Floats
    descriptor_score: float
    neighbours: Ids
    distances: tuple[Floats, ...]
    matches: tuple[Ids, ...]
    notes: tuple[str, ...] = ()

    @property
    def peak(self) -> float:
        """The map's largest value."""
        return float(self.map.max())


@dataclass(frozen=True)
class Prediction:
    """Scores and maps of some images, in their order.

    Attributes
    ----------
    scores : float32 [n]
        How anomalous each image is, 0 or more.
    maps : list of float32 [H, W]
        How anomalous each pixel is, on the images' own grids.
    notes : list of tuple of str
        What should be known of each image; see `Result`.
    """

    scores: Floats
    maps: list[Floats]
    notes: list[tuple[str, ...]]


class Spade(Judging):
    """Sub-image anomaly detection with deep pyramid correspondences (Cohen & Hoshen, 2020).

    Parameters
    ----------
    backbone : str or Backbone
        One of `spade_faiss.features.BACKBONES`, or a network of your own.
    k : int
        Training images that an image is compared with (the paper's K).
    kappa : int
        Good patches that a patch is compared with (the paper's kappa).
    weights : path, optional
        A checkpoint for the named backbone, instead of the published one.
    resize : int
        Length of the shorter side after resizing, in pixels.
    crop : int or None
        Side of the centre crop that the network sees; None for the whole frame.
    sigma : float
        Smoothing of the maps in pixels of the network's input.
    quantile : float in (0, 1), optional
        Share of good images that the thresholds are to let pass. By default what so many images
        can show: all but one in n + 1 (see `spade_faiss.verdict.threshold.aimed_quantile`).
    calibrated : int
        How many training images, at most, are scored against the others to find the thresholds;
        of more, so many are drawn by their names (see `spade_faiss.verdict.threshold`).
    score : {"map", "descriptor"}
        An image's score: its map's largest value, or the paper's mean squared distance to the
        K nearest descriptors (section 3.2), which notices global change rather than small flaws.
    preset : one of `spade_faiss.detector.presets.PRESETS`
        "paper", or "best", which standardises and contrasts, and is not the paper's.
    standardise : bool, optional
        Whether each channel of the patches is divided by its standard deviation over the good
        images that an index is first made of, and each of the descriptors by the root of that.
        By default as the preset says.
    contrast : bool, optional
        Whether maps say how much farther patches are from their matches than is usual for these
        (see `spade_faiss.maps.contrast`). By default as the preset says.
    store : {"float32", "float16"}
        What patches are stored as; float16 takes half the space. A query is compared exactly
        with what is stored.
    mirror : bool
        Whether the network sees each image's mirror image, as a view for an ensemble.
    engine : one of `spade_faiss.search.ENGINES`
        For what is searched exactly.
    factory : str, optional
        An approximate index over all training patches of each level, as `faiss.index_factory`
        names it ("IVF256,Flat", "HNSW32", …), to be searched instead of the exact search among
        the K nearest images.
    coreset : float in (0, 1), optional
        Share of each level's patches, chosen as in PatchCore, to be searched whole instead;
        exactly, or with `factory` too, through such an index over them.
    search_params : str, optional
        How thoroughly that index is searched: "nprobe=16"; see `spade_faiss.index.GallerySpec`.
    exact : bool
        Whether to search exactly among the K nearest images, even so.
    device : str
        "auto", or a torch device's name. Of several, "cuda:0,cuda:1" or "all", the first has
        the network, and each a part of the training images' patches.
    batch_size : int
        Images that go through the network at once.
    progress : bool
        Whether to show progress bars on standard error (only when that is a terminal).

    Attributes
    ----------
    index_ : Index
        The fitted index.
    image_threshold, pixel_threshold, review : float or None
        Drawn from the index's own images by `fit`, or from others by `calibrate`; or set by hand:
        see `spade_faiss.detector.judging`.
    stages : Stages
        Seconds spent so far on features, index, calibration, stage_one, stage_two and maps.

    Examples
    --------
    Images may be arrays, and results may be had one by one:

    >>> from spade_faiss import Spade
    >>> from spade_faiss.datasets.demo import render
    >>> good = [render(0, "brick", "train", i).image for i in range(5)]
    >>> spade = Spade("efficientnet_lite0", quantile=0.9).fit(good)
    >>> len(spade.index_)
    5
    >>> result = next(spade.query([render(0, "brick", "hole", 0).image]))
    >>> result.name, result.map.shape, result.peak > spade.image_threshold
    ('image 0', (256, 256), True)

    More good images give a threshold that is known to hold:

    >>> more = [render(0, "brick", "good", i).image for i in range(5)]
    >>> report = spade.calibrate(more, false_alarms=0.2)
    >>> report.needed, report.chosen.threshold == spade.image_threshold
    (4, True)
    """

    index_: Index
    score: str

    def __init__(
        self,
        backbone: str | Backbone = DEFAULT_BACKBONE,
        k: int = K,
        kappa: int = KAPPA,
        *,
        weights: str | os.PathLike[str] | None = None,
        resize: int = 256,
        crop: int | None = 224,
        sigma: float = SIGMA,
        quantile: float | None = None,
        calibrated: int = CALIBRATED,
        score: str = "map",
        preset: str = "paper",
        standardise: bool | None = None,
        contrast: bool | None = None,
        store: str = "float32",
        mirror: bool = False,
        engine: str = "auto",
        factory: str | None = None,
        coreset: float | None = None,
        search_params: str | None = None,
        exact: bool = False,
        device: str = "auto",
        batch_size: int = 8,
        progress: bool = False,
    ) -> None:
        for name, value in (
            ("k", k),
            ("kappa", kappa),
            ("calibrated", calibrated),
            ("batch_size", batch_size),
        ):
            if value < 1:
                raise SpadeError(f"{name} = {value} must be 1 or more")
        if not 0 <= sigma < 1000:
            raise SpadeError(f"sigma = {sigma} must lie between 0 and 1000 pixels")
        if quantile is not None and not 0 < quantile < 1:
            raise SpadeError(f"quantile = {quantile} must lie between 0 and 1")
        if engine not in ENGINES:
            raise SpadeError(f"unknown engine {engine!r}: choose one of {', '.join(ENGINES)}")
        if score not in SCORES:
            raise SpadeError(f"unknown score {score!r}: choose one of {', '.join(SCORES)}")
        if store not in STORES:
            raise SpadeError(f"unknown store {store!r}: choose one of {', '.join(STORES)}")
        if store == "float16" and (factory or coreset):
            raise SpadeError(
                "--factory and --coreset need float32 patches: leave out --store "
                "float16 (a factory of SQfp16 or PQ8 makes the gallery itself small)"
            )
        Framing.choose(resize, crop, (1, 1))
        chosen = preset_of(preset)
        if (chosen["contrast"] if contrast is None else contrast) and (factory or coreset):
            raise SpadeError(
                "contrast, which the preset 'best' has, needs the exact search: "
                "leave out --factory and --coreset, or take the preset 'paper'"
            )
        GallerySpec(factory, coreset, search_params)
        self.backbone = backbone
        self.k = k
        self.kappa = kappa
        self.weights = weights
        self.resize = resize
        self.crop = crop
        self.sigma = sigma
        self.quantile = quantile
        self.calibrated = calibrated
        self.standardise = chosen["standardise"] if standardise is None else standardise
        self.contrast = chosen["contrast"] if contrast is None else contrast
        self.store = store
        self.mirror = mirror
        self.score = score
        self.engine = engine
        self.factory = factory
        self.coreset = coreset
        self.search_params = search_params
        self.exact = exact
        self.device = device
        self.batch_size = batch_size
        self.progress = progress
        self.stages = Stages()
        self._network: Backbone | None = backbone if isinstance(backbone, Backbone) else None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._calibration: tuple[tuple[object, ...], Calibration] | None = None
        self._redrawn: tuple[HeldOut, float | None, HeldOut] | None = None
        self._searches: tuple[Index, bool, tuple[LevelSearch | ShardedLevel, ...]] | None = None

    # Fitting ------------------------------------------------------------------------------

    def fit(
        self,
        images: Images,
        index: str | os.PathLike[str] | None = None,
        *,
        calibrate: bool = True,
        on_error: OnError | None = None,
    ) -> Spade:
        """Index good images.

        Parameters
        ----------
        images : folder, paths, or RGB uint8 arrays [H, W, 3]
            An iterator, of `spade_faiss.video.read_frames` for one, is gone through once and
            never held whole.
        index : path, optional
            Folder to keep the index in; it replaces an index that is there. By default a
            temporary one that lasts as long as this object.
        calibrate : bool
            Whether to score each image against the others and so to find the thresholds.
        on_error : callable, optional
            Called with (name, why) for an image that cannot be used, which is then left out.

        Raises
        ------
        SpadeError
            If an image cannot be used (without `on_error`), or none can.
        """
        sources = sources_of(images, on_error)
        network = self._loaded_network()
        self._calibration = None
        if index is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="spade-faiss-")
            index = self._temporary.name
        folder = Path(index)
        with index_lock(folder):
            self._write(folder, network, None, [], sources, calibrate, on_error)
        return self

    def add(self, images: Images, on_error: OnError | None = None) -> int:
        """Add good images to the index and calibrate anew; return how many were added.

        An image whose path is in the index already is refused. What `calibrate` found was of
        the index as it was, and goes: thresholds are then drawn from the index's own images, for
        the rate of false alarms that was last wished for.
        """
        folder = self._fitted().folder
        with index_lock(folder):
            old = self._reopened()
            here = {image.path for image in old.manifest.images}
            sources: list[Source] = []
            for source in sources_of(images, on_error):
                name = name_of(source, -1)
                if name in here:
                    report_problem(on_error, name, "is in the index already; remove it first")
                else:
                    sources.append(source)
            if sources:
                self._write(
                    folder,
                    self._network_for(old),
                    old,
                    list(range(len(old))),
                    sources,
                    old.manifest.calibration is not None,
                    on_error,
                )
            return len(self.index_) - len(old)

    def remove(self, names: Iterable[str], on_error: OnError | None = None) -> int:
        """Remove training images by path and calibrate anew; return how many were removed.

        A name is a path as `info` lists it, or the end of one that no other shares. What
        `calibrate` found goes, as with `add`.
        """
        folder = self._fitted().folder
        with index_lock(folder):
            old = self._reopened()
            paths = [image.path for image in old.manifest.images]
            gone: set[int] = set()
            for name in names:
                try:
                    gone.add(_find(name, paths))
                except SpadeError as error:
                    report_problem(on_error, name, str(error))
            if len(gone) == len(paths):
                raise SpadeError(f"an index cannot be empty; delete the folder {folder} instead")
            if gone:
                keep = [i for i in range(len(paths)) if i not in gone]
                self._write(folder, None, old, keep, [], old.manifest.calibration is not None, None)
            return len(gone)

    def _write(
        self,
        folder: Path,
        network: Backbone | None,
        old: Index | None,
        keep: list[int],
        sources: Iterable[Source],
        calibrate: bool,
        on_error: OnError | None,
    ) -> None:
        """Write a new generation, the kept images of the old one first, and make it count."""
        discard_leftovers(folder)
        records = [old.manifest.images[i] for i in keep] if old else []
        framing = old.manifest.framing.framing() if old else None
        scales = _scales(old)
        store: Store | None = "float16" if self.store == "float16" else None
        spreads: list[Spread] = []
        writer: IndexWriter | None = None
        spec = GallerySpec(self.factory, self.coreset, self.search_params)
        # How many frames a video has is not known beforehand.
        n = len(keep) + (len(sources) if isinstance(sources, Sequence) else 1 << 20)
        try:
            if old is not None:
                shapes = [(v.height, v.width, v.channels) for v in old.manifest.levels]
                spec = spec.tried(shapes, n)
                writer = IndexWriter(folder, old.manifest.descriptor_size, shapes, store)
                for i in keep:
                    rows = [old.rows(level, i, i + 1) for level in range(len(shapes))]
                    writer.append(old.descriptors[i : i + 1], rows, old.crops[i : i + 1])
            for batch in self._extract(sources, framing, network, on_error, "features", scales):
                framing = batch.framing
                if writer is None:
                    shapes = [(v.shape[1], v.shape[2], v.shape[3]) for v in batch.levels]
                    spec = spec.tried(shapes, n)
                    writer = IndexWriter(folder, batch.descriptors.shape[1], shapes, store)
                flat = [level.reshape(-1, level.shape[-1]).cpu().numpy() for level in batch.levels]
                with self.stages("index"):
                    writer.append(
                        batch.descriptors, flat, np.stack([v.input for v in batch.loaded])
                    )
                    if self.standardise and old is None:
                        spreads = spreads or [Spread() for _ in (batch.descriptors, *flat)]
                        for spread, values in zip(spreads, (batch.descriptors, *flat), strict=True):
                            spread.add(values)
                records += [
                    TrainingImage(path=v.name, height=v.size[0], width=v.size[1])
                    for v in batch.loaded
                ]
            if writer is None or framing is None:
                raise SpadeError("none of the images can be used")
            with self.stages("index"):
                if spreads:  # of a new index; what is added later is brought to the same scale
                    few, *many = spreads  # descriptors are one an image
                    scales = [few.factors(0.5), *(spread.factors() for spread in many)]
                    writer.scale(scales)
                descriptors, levels, crops = writer.finish()
            draft = Manifest(
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                made_with=installed(_MADE_WITH),
                backbone=record_of(network) if network else _kept(old).backbone,
                framing=FramingRecord(
                    resize=framing.resize,
                    height=framing.size[0],
                    width=framing.size[1],
                    crop=framing.crop,
                ),
                images=tuple(records),
                descriptor_size=writer.descriptor_size,
                descriptors=descriptors,
                levels=levels,
                crops=crops,
            )
            if self.mirror or scales or store:
                draft = draft.extended(
                    mirrored=self.mirror,
                    store=store,
                    scales=tuple(tuple(one.tolist()) for one in scales) if scales else None,
                )
            if old and old.manifest.by_hand:
                draft = draft.extended(by_hand=old.manifest.by_hand)
            index = Index(folder, draft)
            if spec:
                made = build_galleries(writer.place, index.levels, spec, self.progress)
                draft = draft.extended(gallery=made)
                index = Index(folder, draft)
            if copies := pairs_of(copies_in(index)):
                index.manifest = draft = draft.extended(copies=copies)
            if self.contrast:
                with self.stages("index"):
                    found = write_usual(folder, draft.generation, self._usual(index))
                index.manifest = draft = draft.extended(usual=found)
            if calibrate:
                known = _known(old, keep, len(records)) if old and not spec else None
                with self.stages("calibration"):
                    calibration = self._calibrate(index, known)
                index.manifest = (
                    draft.model_copy(update={"calibration": calibration})
                    if calibration.sample is None
                    else draft.extended(calibration=calibration)
                )
            index.manifest.write(folder)
        except BaseException as error:
            if writer is not None:
                writer.abandon()
            discard_leftovers(folder)  # by what counts: a signal may come between any two steps
            if isinstance(error, OSError):
                raise SpadeError(
                    f"{folder} cannot be written: {error.strerror or error}; "
                    "what was there before is whole"
                ) from None
            raise
        discard_leftovers(folder)
        self.index_ = index

    def _calibrate(
        self, index: Index, known: _Known | None = None, exact: bool = False
    ) -> Calibration:
        """Score each training image against the others and draw thresholds from the scores.

        After a change, an image whose K nearest are what they were keeps its scores.
        """
        names = [image.path for image in index.manifest.images]
        chosen = calibration_sample(names, self.calibrated)
        if known and (known.settings != (self.k, self.kappa, self.sigma) or self.contrast):
            known = None  # with contrast, what is usual for a match may have changed
        others, scores = self._others(index, chosen)
        peaks = np.zeros(len(chosen))
        before = known.neighbours(self.k, chosen) if known else {}
        enough = len(names) > 1
        todo: list[int] = []
        for at, i in enumerate(chosen.tolist() if enough else ()):
            if known and (was := known.place[i]) in before:
                moved = {known.new_place[j] for j in before[was]}
                if moved == set(others[at].tolist()):
                    scores[at], peaks[at] = known.scores[was]
                    continue
            todo.append(at)
        found = self._peaks(index, chosen[todo], [others[at] for at in todo], exact)
        for at, peak in zip(todo, self._bar(found, "calibration", len(todo)), strict=True):
            peaks[at] = peak
        weights = independent(copies_in(index))[chosen]
        return Calibration(
            k=self.k,
            kappa=self.kappa,
            sigma=self.sigma,
            descriptor_scores=tuple(scores.tolist()) if enough else (),
            peaks=tuple(peaks.tolist()) if enough else (),
            **drawn_of(scores.tolist(), peaks.tolist(), self.quantile, weights),
            sample=tuple(chosen.tolist()) if len(chosen) < len(names) else None,
        )

    def _others(self, index: Index, images: Ids | None = None) -> tuple[list[Ids], Floats]:
        """Return each training image's nearest others, and what that makes its score."""
        return other_images(index.descriptors, self.k, copies_in(index), images)

    def _peaks(
        self, index: Index, images: Ids, others: Sequence[Ids], exact: bool
    ) -> Iterator[float]:
        """Yield the peak of each training image's map, against its own nearest others alone."""
        copies = copies_in(index)
        for i, own in zip(images.tolist(), others, strict=True):
            distances = self._left_out(index, i, own, copies, exact)
            record = index.manifest.images[i]
            yield float(self._map(index, distances, (record.height, record.width))[1].max())

    def _left_out(
        self, index: Index, i: int, others: Ids, copies: Copies, exact: bool
    ) -> tuple[Floats, ...]:
        """Return training image i's distances, level by level, to its nearest others [K]."""
        rows = (index.rows(level, i, i + 1) for level in range(len(index.levels)))
        levels = [torch.tensor(patches)[None] for patches in rows]
        return self._correspond(index, levels, others[None], exact, [i, *copies[i].tolist()])[0][0]

    def leave_one_out(self) -> Iterator[tuple[float, Floats]]:
        """Yield each training image's descriptor score, and its map on the network's input.

        Both are as if the image were not in the index, which must hold two or more.
        """
        index = self._fitted()
        others, scores = self._others(index)
        maps = self._maps_left_out(index, np.arange(len(index)), others)
        for score, values in zip(scores, self._bar(maps, "leave one out", len(index)), strict=True):
            yield float(score), values

    def _maps_left_out(self, index: Index, images: Ids, others: Sequence[Ids]) -> Iterator[Floats]:
        """Yield each training image's map, against its own nearest others alone."""
        size, copies = index.manifest.framing.framing().size, copies_in(index)
        for i, own in zip(images.tolist(), others, strict=True):
            distances = self._left_out(index, i, own, copies, self.exact)
            yield anomaly_map(distances, size, self.sigma)

    def _usual(self, index: Index) -> Iterator[Floats]:
        """Yield, level by level and image by image, what is usual for good patches."""
        others, _ = self._others(index)
        for number in range(len(index.levels)):
            found = self._usual_at(index, number, np.arange(len(index)), others)
            yield from self._bar(found, f"contrast, level {number + 1}", len(index))

    def _usual_at(
        self, index: Index, number: int, images: Ids, others: Sequence[Ids]
    ) -> Iterator[Floats]:
        """Yield what is usual for each training image's patches of a level."""
        search, level = self._level_searches(index, True)[number], index.manifest.levels[number]
        copies = copies_in(index)
        for i, own in zip(images.tolist(), others, strict=True):
            k = min(NEAREST, len(own) * level.patches)
            if k == 0:  # a single image: nothing is usual
                yield np.zeros((level.patches, 3), np.float32)
                continue
            rows = torch.tensor(index.rows(number, i, i + 1))[None]
            near, ids = search.search(rows, torch.tensor(own)[None], k, self.engine)
            yield usual(near[0].sqrt().numpy(), ids[0].numpy() // level.patches, copies)

    # Querying -----------------------------------------------------------------------------

    def predict(self, images: Images) -> Prediction:
        """Score images and map where they are wrong.

        Parameters
        ----------
        images : folder, paths, or RGB uint8 arrays [H, W, 3]

        Raises
        ------
        SpadeError
            If an image cannot be used.
        """
        results = list(self.query(images))
        scores = np.array([self.score_of(result) for result in results], np.float32)
        return Prediction(scores, [one.map for one in results], [one.notes for one in results])

    def query(self, images: Images, on_error: OnError | None = None) -> Iterator[Result]:
        """Yield one Result an image, in order, as they come.

        With `on_error`, an image that cannot be used is reported to it and left out. An
        iterator of images is gone through once, a few ahead of the results.

        What is odd about an image is among its result's `notes`.
        """
        yield from self.map_batches(images, Spade.compare, on_error)

    def map_batches(
        self,
        images: Images,
        of: Callable[[Spade, Batch], Iterable[Made]],
        on_error: OnError | None = None,
    ) -> Iterator[Made]:
        """Yield what a function yields for this estimator and each batch of features, in order."""
        for batch in self.extract(images, on_error):
            yield from of(self, batch)

    def extract(self, images: Images, on_error: OnError | None = None) -> Iterator[Batch]:
        """Yield the features of images, batch by batch, for `compare`."""
        index = self._fitted()
        network = self._network_for(index)
        self._check_kappa(index)
        framing = index.manifest.framing.framing()
        sources = sources_of(images, on_error)
        scales = _scales(index)
        yield from self._extract(sources, framing, network, on_error, "query", scales)

    def compare(self, batch: Batch) -> Iterator[Result]:
        """Yield one Result an image of a batch; of the network there is no more need."""
        index = self._fitted()
        k = self._check_kappa(index)
        with self.stages("stage_one"):
            near, ids = nearest(batch.descriptors, index.descriptors, k, self.engine)
        levels = [level.flatten(1, 2) for level in batch.levels]
        with self.stages("stage_two"):
            found = self._correspond(index, levels, ids, self.exact)
        for i, (loaded, (distances, matches)) in enumerate(zip(batch.loaded, found, strict=True)):
            with self.stages("maps"):
                on_input, placed = self._map(index, distances, loaded.size)
            yield Result(
                loaded.position,
                loaded.name,
                loaded.image,
                loaded.input,
                placed,
                on_input,
                float(near[i].mean()),
                ids[i],
                distances,
                matches,
                image_notes(index.manifest, loaded.size),
            )

    def calibrate(
        self,
        images: Images,
        defects: Images | None = None,
        *,
        false_alarms: float | None = None,
        on_error: OnError | None = None,
    ) -> Report:
        """Try the index on good images that are not in it, and choose its thresholds by them.

        The thresholds, for both kinds of score, and the images' scores are kept in the index,
        and count wherever it is searched with the same `k`, `kappa` and so on.

        Parameters
        ----------
        images : folder, paths, or RGB uint8 arrays [H, W, 3]
            Good ones, taken as those to come will be, each for itself: the frames of a video
            resemble each other and stand for fewer.
        defects : folder, paths, or arrays, optional
            Known defects. How many are found is reported; no threshold is chosen by them.
        false_alarms : float in (0, 1), optional
            The share of good images that may be called wrong. By default 1 - `quantile`.
        on_error : callable, optional
            Called with (name, why) for an image that is left out: one that cannot be used, that
            is in the index, or that was given twice.

        Raises
        ------
        SpadeError
            If an image is to be left out (without `on_error`), if fewer than two good ones
            remain, or if the index was changed meanwhile.
        """
        return calibrate(self, images, defects, false_alarms=false_alarms, on_error=on_error)

    def drift(self, scores: npt.ArrayLike, descriptor_scores: npt.ArrayLike) -> Drift:
        """Compare images that were queried with the good ones of the calibration.

        Parameters
        ----------
        scores, descriptor_scores : float [m]
            By `score_of(result)` and `result.descriptor_score`, of m independent images.

        Raises
        ------
        SpadeError
            If the index was never calibrated, or with other settings. Its own images will not do
            instead: each scored against the others, of 16 they are so much alike that 3 to 10 %
            of unchanged batches would be warned of.
        """
        held = self.held_out
        if held is None:
            raise SpadeError(
                f"{self._fitted().folder} has no calibration to compare with, or one of other "
                "settings: make one with spade-faiss calibrate DIR IMAGE…"
            )
        limit = self.image_threshold
        assert limit is not None
        return compare(
            scores,
            held.good.scores(self.score),
            limit,
            descriptor_scores,
            held.good.descriptor_scores,
        )

    def remap(self, result: Result, levels: Sequence[int] | None = None) -> Result:
        """Return a result with its maps made anew: by this sigma, and of some levels alone.

        Parameters
        ----------
        result : Result
        levels : sequence of int, optional
            Levels to average, 1 the finest; by default all.
        """
        chosen = [result.distances[level - 1] for level in levels or ()] or result.distances
        original = result.map.shape[0], result.map.shape[1]
        with self.stages("maps"):
            on_input, placed = self._map(self._fitted(), chosen, original)
        return replace(result, map=placed, input_map=on_input)

    def with_options(self, **options: int | float | None) -> Spade:
        """Return this estimator, its index shared, with another `k`, `kappa` or `sigma`.

        One that is to be fitted anew may have other settings, too.
        """
        other = copy.copy(self)
        for name, value in options.items():
            setattr(other, name, value)
        return other

    def _check_kappa(self, index: Index) -> int:
        """Return how many images a query is compared with."""
        k = min(self.k, len(index))
        among_images = self.exact or not index.galleries
        if among_images and self.kappa > k * min(v.patches for v in index.manifest.levels):
            raise SpadeError(f"kappa = {self.kappa} is more than the patches of {k} images")
        return k

    def score_of(self, result: Result) -> float:
        """Return an image's score, as `score` chooses it."""
        return result.peak if self.score == "map" else result.descriptor_score

    def _drawn_threshold(self, score: str) -> float | None:
        found = self.held_out or self.calibration
        if found is None:
            return None
        return found.pixel_threshold if score == "map" else found.descriptor_threshold

    def _manifest(self) -> Manifest:
        return self._fitted().manifest

    def _settings_of_scores(self) -> tuple[int, int, float, str | None]:
        return self.k, self.kappa, self.sigma, self.gallery_search

    def _store(self, **changes: object) -> None:
        index = self._fitted()
        manifest = rewrite_manifest(index.folder, index.manifest, **changes)
        assert isinstance(manifest, Manifest)
        index.manifest = manifest

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known before the verdicts are relied on, each in one line."""
        drawn = self._hand("threshold", "map") is None
        return (*index_notes(self._fitted().manifest, self.k, drawn), *self._notes_by_hand())

    @property
    def held_out(self) -> HeldOut | None:
        """What `calibrate` found, for this `quantile`; None if never, or with other settings."""
        stored, n = self._fitted().manifest.held_out, len(self.index_)
        if stored is None or (min(stored.k, n), stored.kappa, stored.sigma, stored.search) != (
            min(self.k, n),
            self.kappa,
            self.sigma,
            self.gallery_search,
        ):
            return None
        kept = self._redrawn  # each image is judged by it
        if kept is None or kept[0] is not stored or kept[1] != self.quantile:
            kept = stored, self.quantile, redrawn_held_out(stored, self.quantile)
            self._redrawn = kept
        return kept[2]

    @property
    def gallery_search(self) -> str | None:
        """How the index's galleries are searched; None if it has none."""
        gallery = self._fitted().manifest.gallery
        if gallery is None:
            return None
        return "exact" if self.exact else self.search_params or gallery.search_params

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of the index, made anew if it was made with other settings."""
        index = self._fitted()
        stored = index.manifest.calibration
        if stored is None:
            return None
        key = (index, self.k, self.kappa, self.sigma, self.quantile, self.exact, self.search_params)
        if self._calibration is None or self._calibration[0] != key:
            calibration = (
                redrawn_calibration(index.manifest, stored, self.quantile)
                if self._scored_like(stored)
                else self._calibrate(index, exact=self.exact)
            )
            self._calibration = key, calibration.model_copy(update={"k": self.k})
        return self._calibration[1]

    def _scored_like(self, stored: Calibration) -> bool:
        """Say whether these settings would give the scores that a calibration has."""
        gallery, n = self.index_.manifest.gallery, len(self.index_)
        same_search = gallery is None or not (
            self.exact or (self.search_params or gallery.search_params) != gallery.search_params
        )
        return same_search and (min(stored.k, n - 1), stored.kappa, stored.sigma) == (
            min(self.k, n - 1),
            self.kappa,
            self.sigma,
        )

    @property
    def quantile_(self) -> float | None:
        """The share of good images that the drawn thresholds are to let pass, once drawn."""
        found = self.held_out or self.calibration
        return found.quantile if found else self.quantile

    def _extract(
        self,
        sources: Iterable[Source],
        framing: Framing | None,
        network: Backbone | None,
        on_error: OnError | None,
        title: str,
        scales: Sequence[Floats] | None = None,
    ) -> Iterator[Batch]:
        """Yield batches of features; the next images are decoded and framed meanwhile."""
        if not sources:
            return
        assert network is not None
        total = len(sources) if isinstance(sources, Sequence) else None
        if framing is None:
            sizes: list[tuple[int, int]] = []
            if self.crop is None:  # only a whole frame's shape depends on the images
                sizes, sources = sizes_of(sources)
            framing = Framing.for_most(self.resize, self.crop, sizes)
        batches = self._batches(sources, framing, network, on_error)
        with self._bar(None, title, total) as bar:
            while True:
                with self.stages("features"):
                    batch = next(batches, None)
                    if batch and scales:
                        batch = _scaled(batch, scales)
                if batch is None:
                    return
                yield batch
                bar.update(batch.loaded[-1].position + 1 - bar.n)

    def _batches(
        self,
        sources: Iterable[Source],
        framing: Framing,
        network: Backbone,
        on_error: OnError | None,
    ) -> Iterator[Batch]:
        """Yield batches of features as the network gives them."""
        images = load_images(sources, framing, on_error)
        while loaded := list(islice(images, self.batch_size)):
            yield _batch(loaded, framing, network, self.mirror)

    def features_of(self, loaded: list[Loaded], framing: Framing) -> Batch:
        """Return the features of images that are decoded, as `extract` would.

        Without an index, they are as the network gives them.
        """
        batch = _batch(loaded, framing, self._loaded_network(), self.mirror)
        scales = _scales(getattr(self, "index_", None))
        return _scaled(batch, scales) if scales else batch

    def _correspond(
        self,
        index: Index,
        levels: Sequence[Tensor],
        images: Ids,
        exact: bool,
        leave_out: Sequence[int] = (),
    ) -> list[tuple[tuple[Floats, ...], tuple[Ids, ...]]]:
        """Return each of B images' distances to the nearest good patches, and those patches.

        Both are [h, w] per level; an image's patches are sought in its training images [B, K],
        or, where the index has galleries and unless `exact`, in these, but not among the patches
        of the training images `leave_out`. With contrast, distances are less half of what is usual
        for those patches, as if these images were not there.

        Euclidean, not squared as in the paper's section 3.3: a square lets a few strong patches
        outweigh the rest of a region. On MVTec AD's hazelnuts PRO is 0.974 against 0.960.
        """
        distances: list[Floats] = []
        matches: list[Ids] = []
        among = torch.from_numpy(images)
        expected: Sequence[Floats | None] = index.usual() or [None] * len(levels)
        if exact or not index.galleries:
            index.read_ahead(images)
        for number, (queries, search, level, own_usual) in enumerate(
            zip(
                levels,
                self._level_searches(index, exact),
                index.manifest.levels,
                expected,
                strict=True,
            )
        ):
            if index.galleries and not exact:
                own = [range(i * level.patches, (i + 1) * level.patches) for i in leave_out]
                assert isinstance(search, LevelSearch)  # galleries are on one device
                near, ids = nearest_in_gallery(
                    queries.flatten(0, 1).cpu().numpy(),
                    index.galleries[number],
                    self.kappa,
                    own,
                    self.engine,
                    search,
                )
            else:
                found_here = search.search(queries, among, self.kappa, self.engine)
                near, ids = (values.cpu().numpy() for values in found_here)
            grid = (len(images), level.height, level.width)
            distances.append(np.sqrt(near).mean(axis=-1).reshape(grid))
            matches.append(ids[..., 0].reshape(grid))
            if own_usual is not None:
                distances[-1] = contrast(distances[-1], matches[-1], own_usual, leave_out)
        return list(zip(zip(*distances, strict=True), zip(*matches, strict=True), strict=True))

    def _level_searches(self, index: Index, exact: bool) -> tuple[LevelSearch | ShardedLevel, ...]:
        """Return the levels' searches, of their galleries unless `exact`, kept for next time."""
        if self._searches is None or self._searches[:2] != (index, exact):
            devices = devices_of(self.device)
            self._searches = (
                index,
                exact,
                tuple(map(gallery_search, index.galleries))
                if (index.galleries and not exact)
                else tuple(
                    level_search(rows, level.patches, devices)
                    for rows, level in zip(index.levels, index.manifest.levels, strict=True)
                ),
            )
        return self._searches[2]

    def _map(
        self, index: Index, distances: Sequence[Floats], original: tuple[int, int]
    ) -> tuple[Floats, Floats]:
        framing = index.manifest.framing.framing()
        on_input = anomaly_map(distances, framing.size, self.sigma)
        return on_input, framing.place(on_input, original)

    # Keeping ------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Copy the index into a folder of its own; it replaces an index that is there."""
        source, target = self._fitted(), Path(folder)
        if target.exists() and target.samefile(source.folder):
            return
        with index_lock(target):
            discard_leftovers(target)
            shutil.copytree(
                source.folder / source.manifest.generation,
                target / source.manifest.generation,
                dirs_exist_ok=True,
            )
            source.manifest.write(target)
            discard_leftovers(target)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        k: int | None = None,
        kappa: int | None = None,
        backbone: Backbone | None = None,
        weights: str | os.PathLike[str] | None = None,
        quantile: float | None = None,
        score: str = "map",
        engine: str = "auto",
        search_params: str | None = None,
        exact: bool = False,
        device: str = "auto",
        batch_size: int = 8,
        progress: bool = False,
        verify: bool = True,
    ) -> Spade:
        """Open an index; what is not given is as it was when the index was made.

        Raises
        ------
        SpadeError
            If there is no index, or a file of it is missing or damaged, or its galleries have
            no such search parameters.
        """
        index = Index.open(folder, verify)
        made = index.manifest.calibration
        last = index.manifest.held_out or made
        framing = index.manifest.framing
        gallery = index.manifest.gallery
        spade = cls(
            backbone or index.manifest.backbone.name,
            k or (last.k if last else K),
            kappa or (last.kappa if last else KAPPA),
            weights=weights,
            resize=framing.resize,
            crop=framing.height if framing.crop else None,
            sigma=last.sigma if last else SIGMA,
            quantile=quantile or asked_quantile(index.manifest),
            calibrated=len(made.sample) if made and made.sample else CALIBRATED,
            score=score,
            engine=engine,
            factory=gallery.factory if gallery else None,
            coreset=gallery.coreset if gallery else None,
            search_params=search_params or (gallery.search_params if gallery else None),
            exact=exact,
            device=device,
            batch_size=batch_size,
            progress=progress,
            standardise=index.manifest.scales is not None,
            contrast=index.manifest.usual is not None,
            mirror=index.manifest.mirrored,
            store=index.manifest.store or "float32",
        )
        if search_params:
            for opened in index.galleries:
                set_search_params(opened, search_params)
        spade.index_ = index
        if quantile is not None:
            spade._use_drawn()
        return spade

    def _fitted(self) -> Index:
        if not hasattr(self, "index_"):
            raise SpadeError("this Spade has no index yet: call fit, or use Spade.load")
        return self.index_

    def _reopened(self) -> Index:
        """Return the index as it is now, under the lock: another process may have changed it."""
        return Index.open(self.index_.folder)

    def _network_for(self, index: Index) -> Backbone:
        """Return the network, which must be the one that made the index."""
        network, made = self._loaded_network(), index.manifest.backbone
        if record_of(network) != made:
            raise SpadeError(
                f"{index.folder} was made by {made.name} with weights of sha256 "
                f"{made.weights_sha256[:12]}…, not by {network.name} with "
                f"{network.weights_sha256[:12]}…: name the same file with --weights, "
                "or build the index again"
            )
        return network

    @property
    def preset(self) -> str | None:
        """The preset that has these settings; None if they are a mixture."""
        return name_of_preset(standardise=self.standardise, contrast=self.contrast)

    @property
    def network(self) -> Backbone:
        """The network, loaded if it is not yet."""
        return self._loaded_network()

    def _loaded_network(self) -> Backbone:
        if self._network is None:
            assert isinstance(self.backbone, str)
            self._network = load_backbone(self.backbone, self.weights, self.device)
        return self._network

    def _bar(self, over: Iterable[Any] | None, title: str, total: int | None = None) -> tqdm[Any]:
        return tqdm(over, title, total, disable=None if self.progress else True, unit="image")


@dataclass(frozen=True)
class Batch:
    """The features of some images.

    Attributes
    ----------
    loaded : list of Loaded, B long
    framing : Framing
    descriptors : float32 [B, D]
    levels : tuple of float32 tensors [B, h, w, C]
    """

    loaded: list[Loaded]
    framing: Framing
    descriptors: Floats
    levels: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Known:
    """What a calibration before a change says, by the places of the images after it."""

    settings: tuple[int, int, float]
    descriptors: Floats
    copies: Copies
    scores: dict[int, tuple[float, float]]
    place: list[int | None]
    new_place: dict[int, int | None]

    def neighbours(self, k: int, images: Ids) -> dict[int | None, list[int]]:
        """Return the `k` nearest others of those of some images that were scored, before."""
        places = {self.place[i] for i in images.tolist()}
        scored = [was for was in sorted(self.scores) if was in places]
        if not scored:
            return {}
        others = other_images(self.descriptors, k, self.copies, np.array(scored))[0]
        return {was: own.tolist() for was, own in zip(scored, others, strict=True)}


def _known(old: Index, keep: list[int], n: int) -> _Known | None:
    made = old.manifest.calibration
    if made is None or not made.peaks:
        return None
    new_place: dict[int, int | None] = dict.fromkeys(range(len(old)))
    new_place.update({was: now for now, was in enumerate(keep)})
    scores = zip(made.descriptor_scores, made.peaks, strict=True)
    return _Known(
        (made.k, made.kappa, made.sigma),
        old.descriptors,
        from_pairs(old.manifest.copies, len(old)),  # an older version left none out
        dict(zip(made.scored, scores, strict=True)),
        [*keep, *[None] * (n - len(keep))],
        new_place,
    )


def _batch(loaded: list[Loaded], framing: Framing, network: Backbone, mirror: bool) -> Batch:
    images = np.stack([one.input for one in loaded])
    features = network(np.ascontiguousarray(images[:, :, ::-1]) if mirror else images)
    # Patches of a mirror image go back to where they are in the image itself.
    levels = tuple(level.flip(2) for level in features.levels) if mirror else features.levels
    return Batch(loaded, framing, features.descriptors.cpu().numpy(), levels)


def _scales(index: Index | None) -> list[Floats] | None:
    """Return what an index's descriptors, and the patches of each level, were multiplied by."""
    if index is None or index.manifest.scales is None:
        return None
    return [np.array(one, np.float32) for one in index.manifest.scales]


def _scaled(batch: Batch, scales: Sequence[Floats]) -> Batch:
    return replace(
        batch,
        descriptors=batch.descriptors * scales[0],
        levels=tuple(
            level * torch.from_numpy(own).to(level.device)
            for level, own in zip(batch.levels, scales[1:], strict=True)
        ),
    )


def sources_of(images: Images, on_error: OnError | None) -> Iterable[Source]:
    """Return the images from what a user may pass: a folder is searched to any depth."""
    if isinstance(images, str | os.PathLike):

        def complain(name: str, why: str) -> None:
            report_problem(on_error, name, why)

        found = find_images([images], complain)
        if not found:
            raise SpadeError(f"{os.fspath(images)} holds no images (PNG, JPEG, BMP, TIFF, WebP)")
        return [one.path for one in found]
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise SpadeError(f"images have shape {images.shape}; pass a list of [H, W, 3] arrays")
    if isinstance(images, Iterator):
        return images
    sources = list(images)
    if not sources:
        raise SpadeError("there are no images")
    return sources


def is_stream(images: object) -> bool:
    """Say whether images come but once."""
    return isinstance(images, Iterator)


def _find(name: str, paths: Sequence[str]) -> int:
    """Return the place of the one path that is `name`, or leads to the same file, or ends in it."""
    same: list[Callable[[str], bool]] = [
        lambda path: path == name,
        lambda path: os.path.abspath(path) == os.path.abspath(name),  # noqa: PTH100
        lambda path: path.endswith(f"/{name}"),
    ]
    for test in same:
        places = [i for i, path in enumerate(paths) if test(path)]
        if len(places) == 1:
            return places[0]
        if places:
            raise SpadeError(f"is the end of {len(places)} paths of the index; name one whole")
    raise SpadeError("is not in the index; `spade-faiss info --json` lists its images")


def _kept(old: Index | None) -> Manifest:
    assert old is not None
    return old.manifest


def record_of(network: Backbone) -> BackboneRecord:
    """Return what an index keeps of a network, to know it again."""
    return BackboneRecord(name=network.name, weights_sha256=network.weights_sha256)
