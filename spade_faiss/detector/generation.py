"""One generation of an index while it is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .._support.versions import installed
from ..errors import SpadeError
from ..features.scale import Spread
from ..images import Framing, OnError, Source
from ..images.coverage import largest_area
from ..index import (
    Index,
    IndexWriter,
    Manifest,
    TrainingImage,
    build_galleries,
)
from ..index.manifest import BackboneRecord, ContrastRecord, FramingRecord, Store
from ..index.size import bytes_of, check_room
from ..index.writer import write_normal_distances
from ..maps.contrast import AROUND, SHARE, contrast_unit
from ..verdict.copies import copy_weights, to_pairs
from .extract import (
    Learnt,
    features_of_kept,
    learn,
    map_batches,
)
from .known_scores import KnownScores
from .leave_one_out import LeftOut, calibration_of, suits_elsewhere
from .neighbours import copies_in
from .pipeline import Pipeline

_MADE_WITH = ("spade-faiss", "torch", "numpy", "faiss-cpu", "faiss-gpu")
Made = TypeVar("Made")
_MANY = 1 << 20
"""Images that a stream may have: how many frames a video has is not known beforehand."""


class Generation:
    """One generation of an index while it is made: images kept, images added, then finished.

    Parameters
    ----------
    folder : Path
        Locked by the caller.
    pipeline : Pipeline
        Of no index.
    backbone : BackboneRecord
    old : Index, optional
        Whose settings are taken over, and of which images may be kept.
    framing : Framing, optional
        Another than that of the old index, whose features are not kept then. If they are, new ones
        are brought to their scale.
    """

    def __init__(
        self,
        folder: Path,
        pipeline: Pipeline,
        backbone: BackboneRecord,
        old: Index | None,
        framing: Framing | None,
    ) -> None:
        self._folder = folder
        self._pipeline = pipeline
        self._backbone = backbone
        self._before = old
        self._old = old = old if framing is None else None
        self._kept: Sequence[int] = ()
        self._images: list[TrainingImage] = []
        self._framing = old.manifest.framing.framing() if old else framing
        self._scales = old.scales if old else None
        self._spreads: list[Spread] = []
        self._spec = pipeline.settings.gallery_spec
        self._store: Store | None = "float16" if pipeline.settings.store == "float16" else None
        self._writer: IndexWriter | None = None
        self._moving = self._before is not None

    def keep(self, places: Sequence[int], more: int = 0) -> None:
        """Keep images of the old index, as the first ones; so many more may come."""
        old = self._old
        assert old is not None
        shapes = [(v.height, v.width, v.channels) for v in old.manifest.levels]
        writer = self._open(old.manifest.descriptor_size, shapes, len(places) + more)
        for i in places:
            rows = [old.rows(level, i, i + 1) for level in range(len(shapes))]
            units = slice(i * old.parts, (i + 1) * old.parts)
            writer.append(old.descriptors[units], rows, old.wide[i : i + 1])
        self._kept = places
        self._images += [old.manifest.images[i] for i in places]

    def extend(self, sources: Iterable[Source], framing: Framing, on_error: OnError | None) -> None:
        """Add images."""
        self._framing = framing
        most = len(sources) if isinstance(sources, Sequence) else _MANY
        for one in map_batches(self._pipeline, sources, framing, learn, on_error, "features"):
            self._append(one, most)

    def learn_kept(self) -> None:
        """Add all images of the old index, their features made anew by another framing."""
        old, framing = self._before, self._framing
        assert old is not None and framing is not None
        pipeline, record = self._pipeline.on(old), FramingRecord.of(framing)
        step = pipeline.settings.batch_size
        every = [(i, part) for i in range(len(old)) for part in range(len(framing.corners))]
        batches = [every[at : at + step] for at in range(0, len(every), step)]
        calls = (
            (
                partial(features_of_kept, units=units, framing=record),
                f"the training images from {units[0][0]} to {units[-1][0]}",
            )
            for units in batches
        )
        with pipeline.bar(None, "features", len(old)) as bar:
            for parts in _timed(pipeline, pipeline.executor.map(pipeline, calls)):
                first = [i for i, part in parts.units if part == 0]
                images = tuple(old.manifest.images[i] for i in first)
                self._append(Learnt(parts, images, old.wide[first], False), len(old))
                bar.update(len(first))

    def _append(self, learnt: Learnt, most: int) -> None:
        parts = learnt.parts if self._scales is None else learnt.parts.scaled(self._scales)
        shapes = [
            (*shape, level.shape[2])
            for shape, level in zip(parts.shapes, parts.levels, strict=True)
        ]
        writer = self._writer or self._open(parts.descriptors.shape[1], shapes, most)
        flat = [level.flatten(0, 1).cpu().numpy() for level in parts.levels]
        with self._pipeline.stages("index"):
            writer.append(parts.descriptors, flat, self._kept_of(learnt.crops))
            if self._pipeline.settings.standardise and self._old is None:
                self._spreads = self._spreads or [Spread() for _ in (parts.descriptors, *flat)]
                for spread, values in zip(self._spreads, (parts.descriptors, *flat), strict=True):
                    spread.add(values)
        self._moving |= learnt.moving
        self._images += learnt.images

    def _kept_of(self, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return crops with their margin, but for an index that an older version began."""
        old = self._old
        if old is None or old.manifest.keeps_margins or not old.manifest.framing.margin:
            return crops
        margin = old.manifest.framing.margin
        return crops[:, margin:-margin, margin:-margin]

    def _open(
        self, descriptor_size: int, shapes: Sequence[tuple[int, int, int]], most: int
    ) -> IndexWriter:
        self._spec = self._spec.tried(shapes, most)
        assert self._framing is not None
        if most < _MANY:
            settings, half = self._pipeline.settings, self._store is not None
            needed = bytes_of(
                self._framing,
                descriptor_size,
                shapes,
                most,
                half=half,
                normal_distances=settings.contrast,
            )
            check_room(self._folder, needed)
        wide = self._old.manifest.keeps_margins if self._old else self._framing.margin > 0
        self._writer = IndexWriter(self._folder, descriptor_size, shapes, self._store, wide=wide)
        return self._writer

    def finish(self, *, calibrate: bool) -> Index:
        """Write the rest, and make the generation count; return its index."""
        writer, framing = self._writer, self._framing
        if writer is None or framing is None:
            raise SpadeError("none of the images can be used")
        if self._pipeline.settings.motion and not self._moving:
            raise SpadeError(
                "the preset 'video' learns how things move, and none of the images has a frame "
                "before it: give videos, or take another preset"
            )
        with self._pipeline.stages("index"):
            if self._spreads:  # of a new index; later images are brought to the same scale
                few, *many = self._spreads  # descriptors are one an image
                last = len(many) - 1 if self._pipeline.settings.motion else None
                levels = (one.factors(alike=number == last) for number, one in enumerate(many))
                self._scales = [few.factors(0.5), *levels]
                writer.scale(self._scales)
            manifest = self._manifest(writer, framing)
        index = Index(self._folder, manifest)
        if self._spec:
            progress = self._pipeline.settings.progress
            made = build_galleries(writer.place, index.levels, self._spec, progress=progress)
            index = Index(self._folder, manifest.extended(gallery=made))
        self._learn_from_images(index, calibrate=calibrate)
        index.manifest.write(self._folder)
        return index

    def _manifest(self, writer: IndexWriter, framing: Framing) -> Manifest:
        settings, scales = self._pipeline.settings, self._scales
        descriptors, levels, crops = writer.finish()
        manifest = Manifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            made_with=installed(_MADE_WITH),
            backbone=self._backbone,
            framing=FramingRecord.of(framing),
            images=tuple(self._images),
            descriptor_size=writer.descriptor_size,
            descriptors=descriptors,
            levels=levels,
            crops=crops,
        )
        of_settings = settings.mirror, settings.motion, settings.averaged
        if any(of_settings) or scales or self._store or manifest.framing.is_new:
            manifest = manifest.extended(
                mirrored=settings.mirror,
                motion=settings.motion,
                averaged=settings.averaged,
                store=self._store,
                scales=tuple(tuple(one.tolist()) for one in scales) if scales else None,
            )
        if self._before and self._before.manifest.by_hand:
            manifest = manifest.extended(by_hand=self._before.manifest.by_hand)
        score = self._before.manifest.score if self._before else settings.score
        if score in ("descriptor", "mean"):
            manifest = manifest.extended(score=score)
        area = self._before.manifest.min_area if self._before else settings.least_area
        if area:
            check_area(area, framing, manifest.images)
            manifest = manifest.extended(min_area=area)
        return manifest

    def _learn_from_images(self, index: Index, *, calibrate: bool) -> None:
        """Find copies, normal distances and thresholds: how the images lie to each other."""
        pipeline, left_out = self._pipeline.on(index, draft=True), None
        if copies := to_pairs(copies_in(index)):
            index.manifest = index.manifest.extended(copies=copies)
        with pipeline.stages("index"):
            old = self._old
            # One image alone said nothing of it.
            if old.manifest.elsewhere if old and len(old) > 1 else suits_elsewhere(pipeline):
                index.manifest = index.manifest.extended(elsewhere=True)
        if pipeline.settings.contrast:
            left_out = LeftOut(pipeline)
            with pipeline.stages("index"):
                generation = index.manifest.generation
                file = write_normal_distances(self._folder, generation, left_out.search())
            index.manifest = index.manifest.extended(normal_distances=file)
            before = self._old.manifest.contrast if self._old else None
            if self._old is None or before:  # else it goes on as an older version began it
                share, around = (before.share, before.around) if before else (SHARE, AROUND)
                weights = copy_weights(copies_in(index))
                units = [contrast_unit(level, weights) for level in index.normal_distances() or ()]
                made = ContrastRecord(share=share, around=around, units=tuple(units))
                index.manifest = index.manifest.extended(contrast=made)
        if calibrate:
            known = KnownScores.of(pipeline, self._old, self._kept) if self._old else None
            with pipeline.stages("calibration"):
                # Another index's means would keep it from older programs, and nobody asks for them.
                means = index.manifest.score == "mean"
                scored = calibration_of(pipeline, known, left_out, means=means)
            # An older program can read a manifest without a sample and without means.
            index.manifest = (
                index.manifest.model_copy(update={"calibration": scored})
                if scored.sample is None and not scored.means
                else index.manifest.extended(calibration=scored)
            )

    def abandon(self) -> None:
        """Close the files as they are."""
        if self._writer is not None:
            self._writer.abandon()


def _timed(pipeline: Pipeline, made: Iterable[Made]) -> Iterator[Made]:
    """Yield features, and count the time that they take."""
    coming = iter(made)
    while True:
        with pipeline.stages("features"):
            one = next(coming, None)
        if one is None:
            return
        yield one


def check_area(area: int | None, framing: Framing, images: Iterable[TrainingImage]) -> None:
    """Refuse a least area that no place on any of an index's images can have."""
    most = max(largest_area(framing, (one.height, one.width)) for one in images)
    if area is not None and area > most:
        raise SpadeError(
            f"`min_area={area}` is more than the {most} pixels of the largest area that is looked "
            "at in one piece, so that nothing would ever be wrong: choose less"
        )
