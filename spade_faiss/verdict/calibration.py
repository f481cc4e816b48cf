"""A calibration, as a manifest keeps it: which images it scores, and the thresholds of the scores.

Thresholds are drawn again from kept scores, so that an index of an older version is judged by
today's rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..types import Doubles, Ids
from .copies import copy_weights, from_pairs
from .threshold import aimed_quantile, good_threshold

if TYPE_CHECKING:
    from ..index.ensemble import EnsembleManifest
    from ..index.manifest import Calibration, CalibrationSet, Manifest

Record = TypeVar("Record", "Manifest", "EnsembleManifest")


def calibration_sample(names: Sequence[str], count: int) -> Ids:
    """Return which images to draw thresholds from, ascending: all, or `count` of them.

    Those whose names' digests are the smallest: a fixed draw that has nothing to do with what
    the images show, and that mostly stays when images come and go.

    Parameters
    ----------
    names : sequence of str, n long
    count : int

    Returns
    -------
    int64 [min(n, count)]
    """
    if len(names) <= count:
        return np.arange(len(names))
    digests = [hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names]
    order = sorted(range(len(names)), key=lambda i: (digests[i], i))
    return np.sort(np.array(order[:count], np.int64))


def image_weights(manifest: Manifest) -> Doubles:
    """Return for how many independent images each of the index's images stands, [n]."""
    return copy_weights(from_pairs(manifest.copies, len(manifest.images)))


def scored_weights(manifest: Manifest, made: Calibration) -> Doubles:
    """Return for how many independent images each image that a calibration scored stands."""
    return image_weights(manifest)[np.asarray(made.scored, np.int64)]


def draw_thresholds(
    descriptor_scores: Sequence[float],
    peaks: Sequence[float],
    quantile: float | None,
    weights: Doubles | None = None,
    shifts: tuple[float, float] = (0, 0),
) -> dict[str, Any]:
    """Return the thresholds of both kinds of score, and the quantile, as a manifest names them.

    Parameters
    ----------
    descriptor_scores, peaks : float [n]
    quantile : float or None
        None for `aimed_quantile` of so many images.
    weights : float [n], optional
    shifts : (float, float)
        The means that were taken off both kinds of score, of which the rest may be below 0.

    Returns
    -------
    dict
        `quantile`; `descriptor_threshold` and `pixel_threshold`, float or None.
    """
    n = float(len(peaks) if weights is None else weights.sum())
    share = aimed_quantile(n) if quantile is None else quantile
    limits = []
    for scores, shift in zip((descriptor_scores, peaks), shifts, strict=True):
        limit = good_threshold(np.asarray(scores) + shift, share, weights)
        limits.append(None if limit is None else limit - shift)
    return {"quantile": share, "descriptor_threshold": limits[0], "pixel_threshold": limits[1]}


def explicit_quantile(quantile: float, images: float) -> float | None:
    """Return a quantile, but None if it is the default of so many images."""
    return None if abs(quantile - aimed_quantile(images)) < 1e-9 else quantile


def requested_quantile(record: Manifest | EnsembleManifest, images: Manifest) -> float | None:
    """Return the quantile that somebody asked for when thresholds were last drawn, or None.

    Parameters
    ----------
    record : Manifest or EnsembleManifest
        With the calibrations.
    images : Manifest
        With the training images: the record itself, or the manifest of an ensemble's first member.
    """
    if held := record.calibration_set:
        return explicit_quantile(held.quantile, len(held.good.peaks))
    if made := record.calibration:
        return explicit_quantile(made.quantile, scored_weights(images, made).sum())
    return None


def redraw_thresholds(
    record: Record, images: Manifest, shifts: tuple[float, float] = (0, 0)
) -> Record:
    """Return a manifest with thresholds by today's rule, whichever version drew those that it has.

    Each is for the share that it was drawn for.

    Parameters
    ----------
    record, images
        As `requested_quantile` takes them.
    shifts : (float, float)
        See `draw_thresholds`.
    """
    new: dict[str, object] = {}
    if made := record.calibration:
        new["calibration"] = redraw_calibration(images, made, made.quantile, shifts)
    if held := record.calibration_set:
        new["calibration_set"] = redraw_calibration_set(held, held.quantile, shifts)
    return record.model_copy(update=new)


def redraw_calibration(
    manifest: Manifest,
    made: Calibration,
    quantile: float | None,
    shifts: tuple[float, float] = (0, 0),
) -> Calibration:
    """Return a calibration with thresholds by today's rule; see `draw_thresholds`."""
    if not made.peaks:
        return made
    weights = scored_weights(manifest, made)
    return made.model_copy(
        update=draw_thresholds(made.descriptor_scores, made.peaks, quantile, weights, shifts)
    )


def redraw_calibration_set(
    held: CalibrationSet, quantile: float | None, shifts: tuple[float, float] = (0, 0)
) -> CalibrationSet:
    """Return a calibration by further images with thresholds by today's rule, likewise."""
    good = held.good
    return held.model_copy(
        update=draw_thresholds(good.descriptor_scores, good.peaks, quantile, None, shifts)
    )
