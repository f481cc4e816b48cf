"""What should be known before verdicts are relied on, each in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from ..images.coverage import largest_area, looked_at_share, overlooked_pixels
from ..types import Doubles
from .copies import copy_groups, from_pairs
from .rates import images_needed, percent
from .threshold import Threshold, draw_threshold

if TYPE_CHECKING:
    from ..images import Framing
    from ..index.manifest import Manifest, TrainingImage

LITTLE = 0.5
"""The share of its pixels from which on an image counts as looked at."""
STRETCHED = 1.1
"""How many times as far one way as the other an image may be stretched, cells aside."""
DEFAULT_K = 50
"""The paper's K. It means all images where there are fewer."""
_NAMED = 3
"""Images that a line names."""
_PART = "seen only in part"
_OUT_OF_SHAPE = "stretched out of shape"
_LEARNT = "in the index itself"
_STILL = "looked at without motion"
_SMALL = "smaller than the least area that counts"
STILL = f"{_STILL}: no frame before it"
"""The note on an image alone where a detector looks at motion, too."""
_MEND = {
    _PART: "an index built with `crop=None` sees all of them",
    _OUT_OF_SHAPE: "an index of their own would suit them better",
    _LEARNT: "a score against itself says nothing of an image",
    _SMALL: "no such image is ever called wrong: lower `min_area`",
    _STILL: "what is wrong by its speed alone is not found; give the video",
}
"""By kind of note: what to do about the images of it, or what it means."""


def index_notes(manifest: Manifest, k: int) -> tuple[str, ...]:
    """Return what is odd about an index's images, for every face to show.

    Parameters
    ----------
    manifest : Manifest
    k : int
        Training images that a query is to be compared with.
    """
    return (
        *_framing_notes(manifest),
        *_region_notes(manifest),
        *_k_notes(manifest, k),
        *_copy_notes(manifest),
    )


def image_notes(manifest: Manifest, size: tuple[int, int]) -> tuple[str, ...]:
    """Return what is odd about how an index's framing shows an image of a height and width.

    That a crop shows little of it is not, where it shows as little of most of the index's images:
    that is a note of the index.
    """
    framing = manifest.framing.framing()
    if (share := looked_at_share(framing, size)) < LITTLE:
        others = looked_at_share(framing, _most_common_size(manifest.images))
        if share < 0.9 * min(others, LITTLE):
            return (f"{_PART}: {_seen(framing, size)}",)
    return (f"{_OUT_OF_SHAPE}: {_seen(framing, size)}",) if _is_stretched(framing, size) else ()


def area_notes(manifest: Manifest, size: tuple[int, int], min_area: int | None) -> tuple[str, ...]:
    """Return a note where no place on an image of a height and width has the least area.

    Parameters
    ----------
    manifest : Manifest
    size : (int, int)
    min_area : int or None
        Pixels; None if each counts.
    """
    pixels = largest_area(manifest.framing.framing(), size)
    if min_area is None or pixels >= min_area:
        return ()
    return (f"{_SMALL}: {pixels} of {min_area} pixels",)


def training_image_note(path: str) -> str:
    """Return the note on an image of which the network saw the very pixels of a training image.

    Such an image finds itself, so that it scores 0 and is called good, whatever it shows.

    Parameters
    ----------
    path : str
        The training image's.
    """
    return f"{_LEARNT}: as {path}"


def threshold_notes(
    names: Sequence[str],
    scores: Sequence[float],
    quantile: float | None,
    weights: Doubles | None = None,
    shift: float = 0,
) -> list[str]:
    """Return what should be known of a threshold that was drawn from good images' scores.

    Parameters
    ----------
    names : sequence of str
        The images'.
    scores : float [n]
    quantile : float or None
    weights : float [n], optional
    shift : float
        The mean that was taken off scores, of which the rest may be below 0.
    """
    drawn = draw_threshold(np.asarray(scores) + shift, quantile, weights)
    notes = [_outlier_note(names, np.asarray(scores), drawn)] if drawn.outliers else []
    if drawn.value is None:
        alike = len(scores) > 1
        why = "its good images are all alike" if alike else "it takes two good images or more"
        return [*notes, f"no threshold, so no verdicts: {why}"]
    rate, needed = 1 - drawn.quantile, images_needed(drawn.quantile)
    n = round(float(len(scores) if weights is None else weights.sum()))
    if n < needed:
        notes.append(
            f"the threshold rests on {n} good image{'' if n == 1 else 's'}: it aims at "
            f"{percent(rate)} of false alarms, which takes {needed} to show; add more good "
            "images, or calibrate with more"
        )
    return notes


class BatchNotes:
    """Takes the notes of image after image, and says the same in a line or two."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._named: dict[str, list[str]] = {}

    def add(self, name: str, notes: Iterable[str]) -> None:
        """Take the notes of an image."""
        for note in notes:
            kind, _, details = note.partition(": ")
            self._count[kind] += 1
            named = self._named.setdefault(kind, [])
            if len(named) < _NAMED:
                named.append(f"{name} ({details})")

    def lines(self) -> list[str]:
        """Return one line for each kind of note, which names some of the images."""
        return [
            _line(kind, _images(count), _listed(self._named[kind], count))
            for kind, count in self._count.items()
        ]


def _framing_notes(manifest: Manifest) -> list[str]:
    framing, images = manifest.framing.framing(), manifest.images
    sizes = [(one.height, one.width) for one in images]
    little = [looked_at_share(framing, size) < LITTLE for size in sizes]
    stretched = [_is_stretched(framing, size) for size in sizes]
    return [
        _line(
            kind, _of_all(sum(which), len(images)), _shown(list(compress(images, which)), framing)
        )
        for kind, which in ((_PART, little), (_OUT_OF_SHAPE, stretched))
        if any(which)
    ]


def _region_notes(manifest: Manifest) -> list[str]:
    size = _most_common_size(manifest.images)
    pixels = overlooked_pixels(manifest.framing.framing(), size)
    if not pixels:
        return []
    return [
        f"{pixels} pixels of the region lie in pieces that are too narrow to be seen at the size "
        "that images are brought to: make these wider, or look at more pixels"
    ]


def _k_notes(manifest: Manifest, k: int) -> list[str]:
    n = len(manifest.images)
    if k <= n or k == DEFAULT_K:
        return []
    return [f"K = {k} is more than the index's {_images(n)}: a query is compared with all of them"]


def _copy_notes(manifest: Manifest) -> list[str]:
    if not manifest.copies:
        return []
    parts = copy_groups(from_pairs(manifest.copies, len(manifest.images)))
    said = [
        _listed([manifest.images[i].path for i in part[:_NAMED]], len(part))
        for part in parts[:_NAMED]
    ]
    count = sum(map(len, parts))
    return [
        f"{count} of the index's {_images(len(manifest.images))} show "
        + ("one part" if len(parts) == 1 else f"{len(parts)} parts")
        + f", and are not compared with each other: {'; '.join(said)}"
        + ("; …" if len(parts) > _NAMED else "")
    ]


def _outlier_note(names: Sequence[str], scores: Doubles, drawn: Threshold) -> str:
    """Return a line that names the scores that the threshold was drawn without."""
    order = sorted(drawn.outliers, key=lambda i: -scores[i])
    named = [f"{names[i]} scores {scores[i]:.3g}" for i in order[:_NAMED]]
    others = np.delete(scores, order)
    them = "them" if len(order) > 1 else "it"
    return (
        f"{_listed(named, len(order))}, the other good images {others.min():.3g} to "
        f"{others.max():.3g}: look at {them}, or remove {them}; the threshold is drawn from "
        "the others"
    )


def _line(kind: str, many: str, which: str) -> str:
    return f"{kind}: {many}, {which}; {_MEND[kind]}"


def _is_stretched(framing: Framing, size: tuple[int, int]) -> bool:
    return framing.stretch(*size) > STRETCHED


def _seen(framing: Framing, size: tuple[int, int]) -> str:
    """Return how much the network sees of an image of a size, or how far that is stretched."""
    pixels = f"{size[1]}x{size[0]} pixels"
    if framing.crop:
        whole = f"the region of {pixels}" if framing.roi else pixels
        return f"{100 * looked_at_share(framing, size):.2g} % of {whole}"
    return f"{pixels}, {framing.stretch(*size):.2g} times as far one way as the other"


def _shown(images: Sequence[TrainingImage], framing: Framing) -> str:
    """Return how images are seen: once if they are of one size, else of some by name."""
    seen = [_seen(framing, (one.height, one.width)) for one in images]
    if len(set(seen)) == 1:
        return seen[0]
    some = zip(images[:_NAMED], seen, strict=False)
    return _listed([f"{one.path} ({how})" for one, how in some], len(images))


def _most_common_size(images: Iterable[TrainingImage]) -> tuple[int, int]:
    """Return the height and width that most images have."""
    return Counter((one.height, one.width) for one in images).most_common(1)[0][0]


def _of_all(some: int, n: int) -> str:
    return f"all {_images(n)} of the index" if some == n else f"{some} of the index's {_images(n)}"


def _listed(named: Sequence[str], count: int) -> str:
    more = f" and {count - len(named)} more" if count > len(named) else ""
    return ", ".join(named) + more


def _images(n: int) -> str:
    return f"{n} image" if n == 1 else f"{n} images"
