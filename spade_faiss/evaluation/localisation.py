"""What maps are scored by besides ROCAUC and PRO, and the limit that PRO is integrated to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..datasets.category import GOOD
from ..errors import SpadeError
from ..metrics import PixelMetrics
from ..metrics.pimo import BOUNDS
from .scorer import Scorer

PRO_LIMIT = 0.3
"""The false-positive rate that PRO is integrated to, in MVTec AD's paper and in SPADE's."""
AUPIMO_PIXELS = round(1 / BOUNDS[0])
"""How many good pixels AUPIMO takes: fewer cannot show the lowest of its rates."""


def check_limit(max_fpr: float) -> None:
    """Raise SpadeError unless PRO can be integrated to such a false-positive rate."""
    if not 0 < max_fpr <= 1:
        raise SpadeError(
            f"`max_fpr={max_fpr:g}`: a false-positive rate is more than 0, and 1 at most"
        )


@dataclass(frozen=True)
class Localisation:
    """How well maps say where defects are, by other metrics than ROCAUC and PRO.

    Attributes
    ----------
    metrics : dict of str to float
        `aupimo`, if the good images have 100 000 pixels together; `spro` where it is defined,
        and if there are several kinds of defects `spro_<kind>`, against the good images alone,
        and `spro_kinds`, the mean of these.
    aupimo : list of float or None
        Of each image whose pixels are counted, None for good ones; None as a whole if `aupimo`
        is not there.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    aupimo: list[float | None] | None = None


def localisation_of(scorer: Scorer) -> Localisation:
    """Return AUPIMO and sPRO of the images that have been scored.

    Raises
    ------
    SpadeError
        If sPRO is not defined of a kind of defect.
    """
    pixels = scorer.pixels
    if pixels is None:
        return Localisation()
    metrics: dict[str, float] = {}
    each: list[float | None] | None = None
    found = pixels.images.defects
    if sum(one.good for one in found if not one.regions) >= AUPIMO_PIXELS and any(
        one.regions for one in found
    ):
        values = pixels.aupimo()
        metrics["aupimo"] = float(np.nanmean(values))
        each = [None if np.isnan(value) else float(value) for value in values]
    if any(one.saturated is not None for one in found):
        metrics |= _saturated(pixels, scorer.mapped_kinds)
    return Localisation(metrics, each)


def _saturated(pixels: PixelMetrics, kinds: Sequence[str]) -> dict[str, float]:
    """Return sPRO of all defects, of each kind, and the mean of the kinds."""
    try:
        figures = {"spro": pixels.spro()}
        names = sorted({*kinds} - {GOOD})
        if len(names) > 1:
            each = {f"spro_{name}": pixels.spro(_numbers(kinds, {name, GOOD})) for name in names}
            figures |= each | {"spro_kinds": float(np.mean([*each.values()]))}
    except ValueError as error:  # such as a kind whose defects all lie outside the crop
        raise SpadeError(f"no metric is defined: {error}") from None
    return figures


def _numbers(kinds: Sequence[str], wanted: Collection[str]) -> list[int]:
    return [number for number, kind in enumerate(kinds) if kind in wanted]


def limit_of(results: Mapping[str, Any]) -> float:
    """Return the false-positive rate that PRO was integrated to."""
    return float(results["config"].get("max_fpr", PRO_LIMIT))
