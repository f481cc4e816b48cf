"""From images to features, batch by batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import SpadeError
from ..features.surroundings import without_margin
from ..images import (
    Framing,
    Images,
    Loaded,
    OnError,
    Source,
    find_images,
    report_problem,
    sizes_of,
)
from ..images.choose import framing_of_most, tiled_framing
from ..images.given import kept, listed
from ..images.motion import CELL, motion_shape
from ..images.roi import Roi
from ..index import TrainingImage
from ..index.layout import layout_of
from ..index.manifest import FramingRecord
from .pipeline import Batch, Parts, Pipeline

Made = TypeVar("Made")


def sources_of(images: Images, on_error: OnError | None) -> Iterable[Source]:
    """Return the images from what a user may pass: a folder is searched to any depth."""
    if isinstance(images, str | os.PathLike):

        def complain(name: str, why: str) -> None:
            report_problem(on_error, name, why)

        found = find_images([images], complain)
        if not found:
            raise SpadeError(f"{os.fspath(images)} holds no images (PNG, JPEG, BMP, TIFF, WebP)")
        return [one.path for one in found]
    given = listed(images)
    if isinstance(given, Iterator):
        return map(kept, given)
    sources = list(given)
    if not sources:
        raise SpadeError("there are no images")
    return sources


def is_stream(images: Images) -> bool:
    """Say whether images come but once."""
    return isinstance(listed(images), Iterator)


def framing_for(pipeline: Pipeline, sources: Iterable[Source]) -> tuple[Framing, Iterable[Source]]:
    """Return the framing that suits most of some images, and all the images."""
    settings, sizes = pipeline.settings, list[tuple[int, int]]()
    if settings.crop is None or settings.tile or settings.region:  # else no shape depends on these
        sizes, sources = sizes_of(sources)
    if settings.region:
        _check_aspect(settings.region, sizes)
    if settings.tile:
        cell = pipeline.network.cell
        framing = tiled_framing(settings.tile, settings.overlap, cell, settings.resize, sizes)
    else:
        framing = framing_of_most(settings.shorter_side, settings.crop, sizes)
    if settings.margin:
        framing = replace(framing, margin=pipeline.network.cell)
    framing = replace(framing, roi=settings.region)
    _ = framing.looked_at  # which must be something
    return framing, sources


def _check_aspect(region: Roi, sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse a region that is of another aspect than all images of some sizes."""
    problem = None
    for size in dict.fromkeys(sizes):
        try:
            region.on(size)
            return
        except SpadeError as error:
            problem = problem or error
    if problem:
        raise problem


def images_at_once(pipeline: Pipeline, framing: Framing) -> int:
    """Return how many images a batch has: so many that the network sees them at once, or one."""
    return max(1, pipeline.settings.batch_size // len(framing.corners))


def batch_of(pipeline: Pipeline, loaded: list[Loaded], framing: Framing) -> Batch:
    """Return images that are decoded, and their features as they come.

    With an index, these are on the scale of its features; without, as the network gives them.
    """
    return Batch(loaded, framing, _features_of(pipeline, loaded, framing))


def _features_of(pipeline: Pipeline, loaded: list[Loaded], framing: Framing) -> Iterator[Parts]:
    units = [(i, part) for i in range(len(loaded)) for part in range(len(framing.corners))]
    step = pipeline.settings.batch_size
    for at in range(0, len(units), step):
        with pipeline.stages("features"):
            found = features_of_parts(pipeline, loaded, framing, units[at : at + step])
        yield found


def features_of_parts(
    pipeline: Pipeline, loaded: list[Loaded], framing: Framing, units: list[tuple[int, int]]
) -> Parts:
    """Return the features of some parts of images: their places in the list, and the parts'."""
    images = np.stack([framing.cut(loaded[i].wide, part, loaded[i].size) for i, part in units])
    moves = _motion_of(loaded, framing, units) if pipeline.settings.motion else None
    parts = _features(pipeline, framing, images, units, moves)
    scales = pipeline.opened and pipeline.opened.scales
    return parts.scaled(scales) if scales else parts


def features_of_kept(
    pipeline: Pipeline, units: Sequence[tuple[int, int]], framing: FramingRecord
) -> Parts:
    """Return the features of some parts of an index's images, as another framing shows them.

    They are as the network gives them, made of what the index keeps of its images.

    Parameters
    ----------
    pipeline : Pipeline
        Of the index.
    units : sequence of (int, int)
        The image's place in the index, and the number of its part.
    framing : FramingRecord
        It has another region than the index's own and is the same in all else.
    """
    index, own = pipeline.index, framing.framing()
    images = np.stack(
        [
            own.cut(index.wide[i], part, (made.height, made.width))
            for i, part in units
            for made in [index.manifest.images[i]]
        ]
    )
    return _features(pipeline, own, images, units, None)


def _features(
    pipeline: Pipeline,
    framing: Framing,
    images: npt.NDArray[np.uint8],
    units: Sequence[tuple[int, int]],
    moves: Tensor | None,
) -> Parts:
    """Return the features of parts [b, h, w, 3] of images, and how these move, if they do."""
    settings = pipeline.settings
    mirror = settings.mirror
    features = pipeline.network(np.ascontiguousarray(images[:, :, ::-1]) if mirror else images)
    levels = levels_within(framing, features.levels, mirror=mirror, averaged=settings.averaged)
    if moves is not None:
        levels = (*levels, moves.to(levels[0].device))
    shapes = tuple((level.shape[1], level.shape[2]) for level in levels)
    numbers = [part for _, part in units]
    stored = tuple(
        layout_of(framing, shape).stored(level, numbers)
        for shape, level in zip(shapes, levels, strict=True)
    )
    return Parts(tuple(units), features.descriptors.cpu().numpy(), stored, shapes)


def levels_within(
    framing: Framing, levels: tuple[Tensor, ...], *, mirror: bool, averaged: bool
) -> tuple[Tensor, ...]:
    """Return levels [b, h, w, C] without a margin, and their averages, each patch in its place.

    Patches of a mirror image go back to where they are in the image itself.
    """
    if mirror:
        levels = tuple(level.flip(2) for level in levels)
    if not (framing.margin or averaged):
        return levels
    return without_margin(levels, framing.seen_at_once, framing.margin, averaged=averaged)


def _motion_of(loaded: list[Loaded], framing: Framing, units: list[tuple[int, int]]) -> Tensor:
    """Return the level of motion of b parts, [b, h, w, 4]; nothing moves where none is known."""
    still = np.zeros(motion_shape(framing.size), np.float32)
    height, width, _ = motion_shape(framing.seen_at_once)
    moves = []
    for i, part in units:
        motion = loaded[i].motion
        top, left = (at // CELL for at in framing.corners[part])
        whole = still if motion is None else motion
        moves.append(whole[top : top + height, left : left + width])
    return torch.from_numpy(np.stack(moves))


def map_batches(
    pipeline: Pipeline,
    sources: Iterable[Source],
    framing: Framing,
    of: Callable[[Pipeline, Batch], Iterable[Made]],
    on_error: OnError | None,
    title: str,
) -> Iterator[Made]:
    """Yield what a function yields of each batch of images, in order.

    Parameters
    ----------
    pipeline : Pipeline
    sources : iterable of Source
        Gone through once, a few ahead; the next images are decoded and framed meanwhile.
    framing : Framing
    of : callable
        Given a pipeline and a Batch. It may be called on another machine: it must be a function
        of a module.
    on_error : callable, optional
        Called with (name, why) for an image that cannot be used, which is then left out.
    title : str
        Of the progress bar.
    """
    total = len(sources) if isinstance(sources, Sequence) else None
    with pipeline.bar(None, title, total) as bar:
        for done in pipeline.executor.map_batches(pipeline, sources, framing, of, on_error):
            yield from done.made
            bar.update(done.end - bar.n)


@dataclass(frozen=True)
class Learnt:
    """The features of some parts of good images, and what an index keeps of these.

    Attributes
    ----------
    parts : Parts
    images : tuple of TrainingImage
        Those whose first part is among them.
    crops : uint8 [n, h + 2 m, w + 2 m, 3]
        These framed for the network, with the margin; nothing is painted over.
    moving : bool
        Whether any of them has a frame before it.
    """

    parts: Parts
    images: tuple[TrainingImage, ...]
    crops: npt.NDArray[np.uint8]
    moving: bool


def learn(_: Pipeline, batch: Batch) -> Iterator[Learnt]:
    """Yield the features of a batch's images as they come, for `map_batches`."""
    for parts in batch.parts:
        first = [batch.loaded[i] for i, part in parts.units if part == 0]
        none = np.empty((0, *batch.loaded[0].wide.shape), np.uint8)
        yield Learnt(
            parts,
            tuple(
                TrainingImage(path=one.name, height=one.size[0], width=one.size[1]) for one in first
            ),
            np.stack([one.wide for one in first]) if first else none,
            any(one.motion is not None for one in first),
        )
