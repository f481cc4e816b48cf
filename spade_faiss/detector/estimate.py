"""What an index will take, before it is made: tiles, patches, room on the disk, and time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch

from .._support.stages import Stages
from ..errors import SpadeError
from ..features import devices_of
from ..images import Framing, Loaded, Source, load_images
from ..index.layout import layout_of
from ..index.size import bytes_of, patches_of
from ..maps import contrast
from ..search import level_search
from .executor import ThisProcess
from .extract import features_of_parts, framing_for
from .pipeline import Parts, Pipeline

Made = TypeVar("Made")

_TIMES = 2
"""How often something is timed: the quicker one counts, lest other programs do."""


@dataclass(frozen=True)
class Estimate:
    """What an index of some images will take.

    Attributes
    ----------
    images : int
        As many as were given: some may turn out to be damaged.
    width, height : int
        Of most of them, in pixels, as they are cut.
    tiles : int
        Of all images: 1 an image without tiles. Of an ensemble, those of one member.
    patches : int
        Of all images and levels, and all members.
    bytes : int
        On the disk, but for galleries, which `factory` and `coreset` make.
    seconds : float or None
        About how long it takes at most. None where it is not known: of work that is done
        elsewhere, or with galleries.
    """

    images: int
    width: int
    height: int
    tiles: int
    patches: int
    bytes: int
    seconds: float | None


def estimate(
    pipelines: Sequence[Pipeline], images: Sequence[Source], *, calibrate: bool = True
) -> Estimate:
    """Return what an index of some images will take.

    One image is decoded. A batch of its tiles goes through the network, and is timed when all
    is warm; so is the search for one of them among the others.

    Parameters
    ----------
    pipelines : sequence of Pipeline
        Of a detector, or of an ensemble's members.
    images : sequence of Source
    calibrate : bool
        Whether thresholds will be drawn.

    Raises
    ------
    SpadeError
        If none of the images can be used, or the settings do not suit them.
    """
    own = [_of_member(one, images, calibrate=calibrate) for one in pipelines]
    seconds = [one.seconds for one in own if one.seconds is not None]
    return replace(
        own[0],
        patches=sum(one.patches for one in own),
        bytes=sum(one.bytes for one in own),
        seconds=sum(seconds) if len(seconds) == len(own) else None,
    )


def _of_member(pipeline: Pipeline, images: Sequence[Source], *, calibrate: bool) -> Estimate:
    pipeline = replace(pipeline.on(None), stages=Stages())
    settings = pipeline.settings
    framing, _ = framing_for(pipeline, images)
    loaded, to_load = _timed(lambda: _first_usable(pipeline, images, framing))
    units = [(0, part) for part in range(len(framing.corners))][: settings.batch_size]

    def seen() -> Parts:
        return features_of_parts(pipeline, [loaded], framing, units)

    parts, to_see = _timed(seen)
    n, tiles = len(images), len(images) * len(framing.corners)
    shapes = [
        (*shape, level.shape[2]) for shape, level in zip(parts.shapes, parts.levels, strict=True)
    ]
    seconds = None
    if isinstance(pipeline.executor, ThisProcess) and not settings.gallery_spec:
        seconds = n * to_load + tiles / len(units) * to_see
        scored = n if settings.contrast else min(n, settings.calibrated) if calibrate else 0
        most = min(settings.k, (n - 1) * len(framing.corners))  # those of any place, at most
        seconds += scored * len(framing.corners) * most * _to_search(pipeline, parts, framing)
    height, width = framing.tiles.picture if framing.tiles else framing.size
    return Estimate(
        images=n,
        width=width,
        height=height,
        tiles=tiles,
        patches=n * patches_of(framing, shapes),
        bytes=bytes_of(
            framing,
            parts.descriptors.shape[1],
            shapes,
            n,
            half=settings.store == "float16",
            normal_distances=settings.contrast,
        ),
        seconds=seconds,
    )


def _timed(of: Callable[[], Made]) -> tuple[Made, float]:
    """Return what a function makes, and the seconds that it takes when all is warm."""
    made, taken = of(), []
    for _ in range(_TIMES):
        start = perf_counter()
        made = of()
        taken.append(perf_counter() - start)
    return made, min(taken)


def _first_usable(pipeline: Pipeline, images: Iterable[Source], framing: Framing) -> Loaded:
    """Return the first image that can be used."""
    problems: list[str] = []
    for image in images:
        found = load_images(
            [image],
            framing,
            lambda _, why: problems.append(why),
            on_note=lambda *_: None,
            motion=pipeline.settings.motion,
        )
        for loaded in found:
            return loaded
    raise SpadeError("none of the images can be used")


def _to_search(pipeline: Pipeline, parts: Parts, framing: Framing) -> float:
    """Return the seconds that it takes to search one tile for another's matches, all levels."""
    settings = pipeline.settings
    k = max(contrast.NEAREST, settings.kappa) if settings.contrast else settings.kappa
    total, others = 0.0, max(1, len(parts.units) - 1)
    for shape, level in zip(parts.shapes, parts.levels, strict=True):
        patches = layout_of(framing, shape).patches
        rows = np.ascontiguousarray(level[:others].flatten(0, 1).cpu().numpy())
        search = level_search(rows, patches, devices_of(settings.device))
        among = torch.arange(others)[None]
        near = min(k, len(rows))

        def found() -> object:
            distances, _ = search.search(level[-1:], among, near, settings.engine)  # noqa: B023
            return distances.cpu()

        total += _timed(found)[1]
    return total / others
