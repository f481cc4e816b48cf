"""From images to features, batch by batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import SpadeError
from ..features.surroundings import without_margin
from ..images import (
    Framing,
    Loaded,
    OnError,
    Source,
    find_images,
    report_problem,
    sizes_of,
)
from ..images.motion import motion_shape
from .pipeline import Batch, Pipeline

Images = str | os.PathLike[str] | Iterable[Source] | npt.NDArray[np.uint8]
"""A folder, paths, or RGB uint8 arrays [H, W, 3]."""
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


def framing_for(pipeline: Pipeline, sources: Iterable[Source]) -> tuple[Framing, Iterable[Source]]:
    """Return the framing that suits most of some images, and all the images."""
    settings, sizes = pipeline.settings, list[tuple[int, int]]()
    if settings.crop is None:  # only a whole frame's shape depends on the images
        sizes, sources = sizes_of(sources)
    framing = Framing.for_most(settings.resize, settings.crop, sizes)
    if settings.margin:
        framing = replace(framing, margin=pipeline.network.cell)
    return framing, sources


def features_of(pipeline: Pipeline, loaded: list[Loaded], framing: Framing) -> Batch:
    """Return the features of images that are decoded.

    With an index, they are on the scale of its features; without, as the network gives them.
    """
    images = np.stack([one.wide for one in loaded])
    settings = pipeline.settings
    mirror = settings.mirror
    features = pipeline.network(np.ascontiguousarray(images[:, :, ::-1]) if mirror else images)
    # Patches of a mirror image go back to where they are in the image itself.
    levels = tuple(level.flip(2) for level in features.levels) if mirror else features.levels
    if framing.margin or settings.averaged:
        levels = without_margin(levels, framing.size, framing.margin, averaged=settings.averaged)
    if settings.motion:
        levels = (*levels, _motion_of(loaded, framing).to(levels[0].device))
    batch = Batch(loaded, framing, features.descriptors.cpu().numpy(), levels)
    scales = pipeline.opened and pipeline.opened.scales
    return batch.scaled(scales) if scales else batch


def _motion_of(loaded: list[Loaded], framing: Framing) -> Tensor:
    """Return the level of motion of B images, [B, h, w, 4]; nothing moves where none is known."""
    still = np.zeros(motion_shape(framing.size), np.float32)
    moves = [still if one.motion is None else one.motion for one in loaded]
    return torch.from_numpy(np.stack(moves))


def map_batches(
    pipeline: Pipeline,
    sources: Iterable[Source],
    framing: Framing,
    of: Callable[[Pipeline, Batch], Iterable[Made]],
    on_error: OnError | None,
    title: str,
) -> Iterator[Made]:
    """Yield what a function yields of each batch of features, in order.

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


def itself(_: Pipeline, batch: Batch) -> list[Batch]:
    """Return the features alone, for `map_batches`."""
    return [batch]
