"""What options stand for: a folder that exists, a number, a limit of memory, a detector."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._support.memory import parse_size
from ..errors import SpadeError
from .region import region_of

if TYPE_CHECKING:
    from ..detector import Detector
    from .options import NetworkOptions, PatchOptions, SearchOptions


def existing_folder(path: Path) -> Path:
    """Return a folder that is there."""
    if not path.exists():
        raise SpadeError(f"{path}: no such folder")
    if not path.is_dir():
        raise SpadeError(f"{path} is a file; name a folder")
    return path


def crop_side(text: str) -> int | None:
    """Return the side of the centre crop in pixels; None for the whole frame."""
    return _pixels_or("none", "--crop", text)


def overlay_side(text: str) -> int | None:
    """Return the longer side of an image in its overlay in pixels; None for its own size."""
    return _pixels_or("full", "--overlay-size", text)


def _pixels_or(word: str, option: str, text: str) -> int | None:
    if text.lower() == word:
        return None
    try:
        return int(text)
    except ValueError:
        raise SpadeError(f"{option} {text}: give a number of pixels, or '{word}'") from None


def number_or(word: str, option: str, text: str | None) -> float | None:
    """Return the number that an option was given; None for the word that it may be instead."""
    if text is None or text == word:
        return None
    try:
        return float(text)
    except ValueError:
        raise SpadeError(f"{option} {text}: give a number, or '{word}'") from None


def memory_limit(text: str | None, ray: str | None = None) -> int | None:
    """Keep to a limit of memory, and return it; called once the libraries are there.

    With a cluster it is kept from when that runs: what is started before would inherit it.
    """
    size = None if text is None else parse_size(text)
    if size is not None and ray is None:
        from .._support.limit import limit_memory

        limit_memory(size)
    return size


def detector_for(
    network: NetworkOptions,
    patches: PatchOptions,
    search: SearchOptions,
    views: str | None,
    **settings: Any,
) -> Detector:
    """Return the detector that the options describe."""
    from ..detector import new_detector

    if network.tile is not None and network.crop not in (None, "none"):
        raise SpadeError(
            f"tiles cover the whole picture: leave out `crop={network.crop}`, or `tile`"
        )
    of_patches = asdict(patches)
    if patches.preset is None:
        approximate = search.factory is not None or search.coreset is not None
        of_patches["preset"] = "paper" if approximate else "best"
    return new_detector(
        network.backbone.split(","),
        views.split(",") if views else (),
        network.weights or (),
        k=network.k,
        kappa=network.kappa,
        resize=network.resize,
        crop=crop_side(network.crop or "224"),
        tile=network.tile,
        overlap=network.overlap,
        region=region_of(network.region, network.ignore),
        progress=True,
        **of_patches,
        **asdict(search),
        **settings,
    )
