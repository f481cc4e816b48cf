"""The thresholds of an index, drawn from the scores that it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..index.manifest import Manifest
from .copies import from_pairs, independent
from .rates import images_needed, percent
from .threshold import Threshold, aimed_quantile, draw_threshold, good_threshold

if TYPE_CHECKING:
    from ..index import EnsembleManifest
    from ..index.manifest import Calibration, HeldOut


def image_weights(manifest: Manifest) -> npt.NDArray[np.float64]:
    """Return for how many independent images each of the index's images stands."""
    return independent(from_pairs(manifest.copies, len(manifest.images)))


def weights_of(manifest: Manifest, made: Calibration) -> npt.NDArray[np.float64]:
    """Return for how many independent images each scored one stands."""
    return image_weights(manifest)[np.asarray(made.scored, np.int64)]


def drawn_of(
    descriptor_scores: Sequence[float],
    peaks: Sequence[float],
    quantile: float | None,
    weights: npt.NDArray[np.float64] | None = None,
    shifts: tuple[float, float] = (0, 0),
) -> dict[str, Any]:
    """Return the thresholds of both kinds of score, and the quantile, as a manifest names them.

    Parameters
    ----------
    descriptor_scores, peaks : float [n]
    quantile : float or None
        None for the one that so many images can show.
    weights : float [n], optional
    shifts : (float, float)
        What was taken off both kinds of score, of which the rest may be below 0.
    """
    n = float(len(peaks) if weights is None else weights.sum())
    share = aimed_quantile(n) if quantile is None else quantile
    limits = []
    for scores, shift in zip((descriptor_scores, peaks), shifts, strict=True):
        limit = good_threshold(np.asarray(scores) + shift, share, weights)
        limits.append(None if limit is None else limit - shift)
    return {"quantile": share, "descriptor_threshold": limits[0], "pixel_threshold": limits[1]}


def asked_quantile(
    record: Manifest | EnsembleManifest, images: Manifest | None = None
) -> float | None:
    """Return the quantile that somebody asked for when thresholds were last drawn, or None.

    Parameters
    ----------
    record : Manifest or EnsembleManifest
    images : Manifest, optional
        With the training images, where the record has none: of an ensemble's first member.
    """
    if held := record.held_out:
        return unless_aimed(held.quantile, len(held.good.peaks))
    if made := record.calibration:
        manifest = record if images is None else images
        assert isinstance(manifest, Manifest)
        return unless_aimed(made.quantile, weights_of(manifest, made).sum())
    return None


def redrawn(manifest: Manifest) -> Manifest:
    """Return a manifest with thresholds by today's rule, whichever version drew those that it has.

    Each is for the share that it was drawn for.
    """
    new: dict[str, object] = {}
    if made := manifest.calibration:
        new["calibration"] = redrawn_calibration(manifest, made, made.quantile)
    if held := manifest.held_out:
        new["held_out"] = redrawn_held_out(held, held.quantile)
    return manifest.model_copy(update=new)


def redrawn_calibration(
    manifest: Manifest,
    made: Calibration,
    quantile: float | None,
    shifts: tuple[float, float] = (0, 0),
) -> Calibration:
    """Return a calibration with thresholds by today's rule, for a share or None."""
    if not made.peaks:
        return made
    weights = weights_of(manifest, made)
    return made.model_copy(
        update=drawn_of(made.descriptor_scores, made.peaks, quantile, weights, shifts)
    )


def redrawn_held_out(
    held: HeldOut, quantile: float | None, shifts: tuple[float, float] = (0, 0)
) -> HeldOut:
    """Return what `calibrate` found with thresholds by today's rule, for a share or None."""
    good = held.good
    return held.model_copy(
        update=drawn_of(good.descriptor_scores, good.peaks, quantile, None, shifts)
    )


def unless_aimed(quantile: float, images: float) -> float | None:
    """Return a quantile, but None if it is what so many images are aimed at anyway."""
    return None if abs(quantile - aimed_quantile(images)) < 1e-9 else quantile


def threshold_notes(
    names: Sequence[str],
    scores: Sequence[float],
    quantile: float | None,
    weights: npt.NDArray[np.float64] | None = None,
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
        What was taken off scores that are distances.
    """
    drawn = draw_threshold(np.asarray(scores) + shift, quantile, weights)
    notes = [_odd(names, np.asarray(scores), drawn)] if drawn.odd else []
    if drawn.value is None:
        alike = (
            "its good images are all alike"
            if len(scores) > 1
            else ("it takes two good images or more")
        )
        return [*notes, f"no threshold, so no verdicts: {alike}"]
    rate, needed = 1 - drawn.quantile, images_needed(drawn.quantile)
    n = float(len(scores) if weights is None else weights.sum())
    if round(n) < needed:
        notes.append(
            f"the threshold rests on {_images(n)}: it aims at {percent(rate)} of false alarms, "
            f"which takes {needed} to show; give more good images, by add or by calibrate"
        )
    return notes


def _odd(names: Sequence[str], scores: npt.NDArray[np.float64], drawn: Threshold) -> str:
    """Return a line that names the scores that the threshold was drawn without."""
    order = sorted(drawn.odd, key=lambda i: -scores[i])
    said = [f"{names[i]} scores {scores[i]:.3g}" for i in order[:3]]
    more = f" and {len(order) - 3} more" if len(order) > 3 else ""
    others = np.delete(scores, order)
    them = "them" if len(order) > 1 else "it"
    return (
        f"{', '.join(said)}{more}, the other good images {others.min():.3g} to "
        f"{others.max():.3g}: look at {them}, or remove {them}; the threshold is drawn from "
        "the others"
    )


def _images(n: float) -> str:
    return f"{round(n)} good image{'' if round(n) == 1 else 's'}"
