"""Open an index, or an ensemble, whichever a folder holds."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import SpadeError
from ..features import Backbone
from ..index import is_ensemble
from ..verdict.judge import check_limits
from .detector import Detector
from .ensemble import Ensemble
from .pipeline import record_of
from .spade import Spade


def open_detector(
    folder: str | os.PathLike[str],
    *,
    weights: Sequence[str | os.PathLike[str]] = (),
    networks: Iterable[Backbone] = (),
    threshold: float | None = None,
    review: float | None = None,
    calibrate: bool = True,
    **options: Any,
) -> Detector:
    """Open an index, or an ensemble, whichever a folder holds.

    Parameters
    ----------
    folder : path
    weights : sequence of path
        One for each network, in the members' order; or none.
    networks : iterable of Backbone
        Such as are loaded already; those that made the index need not be loaded again.
    threshold, review : float, optional
        To judge by, instead of what was drawn or is kept.
    calibrate : bool
        Whether to draw thresholds that are missing, for settings that the index has none of.
    **options
        As `Spade.load` takes them.

    Raises
    ------
    SpadeError
        If there is neither, or both, or a file of it is missing or damaged, or a threshold or
        mark of review means nothing.
    """
    check_limits(threshold, review, quantile=options.get("quantile"), least=-math.inf)
    detector: Detector
    if is_ensemble(Path(folder)):
        detector = Ensemble.load(folder, weights=weights, calibrate=False, **options)
    elif len(weights) > 1:
        raise SpadeError(f"{folder} is of one network: give `weights` once")
    else:
        file = weights[0] if weights else None
        detector = Spade.load(folder, weights=file, calibrate=False, **options)
    loaded = {record_of(network): network for network in networks}
    for member in detector.members:
        if network := loaded.get(member.manifest.backbone):
            member.pipeline.lazy_network.take(network)
    if threshold is not None:
        detector.image_threshold = threshold
    if calibrate:
        detector.draw_missing_thresholds()
    if review is not None:  # which must be below the threshold
        detector.review = review
    return detector
