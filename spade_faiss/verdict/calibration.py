"""A calibration, as a manifest keeps it: which images it scores, and the thresholds of the scores.

Thresholds are drawn again from kept scores, so that an index of an older version is judged by
today's rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..types import SCORES, THRESHOLDS, Doubles, Ids
from .copies import copy_weights, from_pairs
from .threshold import aimed_quantile, good_threshold

if TYPE_CHECKING:
    from ..index.ensemble import EnsembleManifest
    from ..index.manifest import Manifest
    from ..index.scores import Calibration, CalibrationSet, Scored

Record = TypeVar("Record", "Manifest", "EnsembleManifest")
NO_SHIFTS: Mapping[str, float] = MappingProxyType({})
"""What is taken off the scores of a detector that is no ensemble."""


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
    scores: Mapping[str, npt.ArrayLike],
    quantile: float | None,
    weights: Doubles | None = None,
    shifts: Mapping[str, float] = NO_SHIFTS,
) -> dict[str, Any]:
    """Return the threshold of each kind of score, and the quantile, as a manifest names them.

    Parameters
    ----------
    scores : mapping of str to float [n]
        Of the same good images, by kind: "map", and others of `spade_faiss.types.SCORES`.
    quantile : float or None
        None for `aimed_quantile` of so many images.
    weights : float [n], optional
    shifts : mapping of str to float
        The means that were taken off kinds of score, of which the rest may be below 0.

    Returns
    -------
    dict
        `quantile`, and thresholds by the names of `spade_faiss.types.THRESHOLDS`: float,
        or None, as it is for a kind that has no scores.
    """
    n = float(np.size(scores["map"]) if weights is None else weights.sum())
    share = aimed_quantile(n) if quantile is None else quantile
    drawn: dict[str, Any] = {"quantile": share}
    for kind, name in THRESHOLDS.items():
        own, shift = np.asarray(scores.get(kind, ())), shifts.get(kind, 0.0)
        limit = good_threshold(own + shift, share, weights) if own.size else None
        drawn[name] = None if limit is None else limit - shift
    return drawn


def named_scores(scores: Mapping[str, npt.ArrayLike]) -> dict[str, Any]:
    """Return scores [n] by kind as tuples, by the names that a manifest has for them."""
    return {
        SCORES[kind]: tuple(np.asarray(own, np.float64).tolist()) for kind, own in scores.items()
    }


def scores_by_kind(record: Calibration | Scored) -> dict[str, tuple[float, ...]]:
    """Return the scores of good images that a record keeps, as `draw_thresholds` takes them."""
    return {kind: record.scores(kind) for kind in SCORES}


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
    record: Record, images: Manifest, shifts: Mapping[str, float] = NO_SHIFTS
) -> Record:
    """Return a manifest with thresholds by today's rule, whichever version drew those that it has.

    Each is for the share that it was drawn for.

    Parameters
    ----------
    record, images
        As `requested_quantile` takes them.
    shifts : mapping of str to float
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
    shifts: Mapping[str, float] = NO_SHIFTS,
) -> Calibration:
    """Return a calibration with thresholds by today's rule; see `draw_thresholds`."""
    if not made.peaks:
        return made
    weights = scored_weights(manifest, made)
    return made.model_copy(update=draw_thresholds(scores_by_kind(made), quantile, weights, shifts))


def redraw_calibration_set(
    held: CalibrationSet, quantile: float | None, shifts: Mapping[str, float] = NO_SHIFTS
) -> CalibrationSet:
    """Return a calibration by further images with thresholds by today's rule, likewise."""
    return held.model_copy(
        update=draw_thresholds(scores_by_kind(held.good), quantile, None, shifts)
    )
