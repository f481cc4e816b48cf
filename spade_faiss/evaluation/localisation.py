"""What maps are scored by besides ROCAUC and PRO, and the limit that PRO is integrated to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..datasets import Category, published_mvtec
from ..datasets.category import GOOD
from ..errors import SpadeError
from ..metrics.pimo import BOUNDS
from .scores import Scorer, Scores

PRO_LIMIT = 0.3
"""The false-positive rate that PRO is integrated to, in MVTec AD's paper and in SPADE's."""
_LATER_LIMIT = 0.05  # of MVTec LOCO AD's authors and of MVTec AD 2's
_AUPIMO_PIXELS = round(1 / BOUNDS[0])  # fewer cannot show the lowest of its rates


def check_limit(max_fpr: float) -> None:
    """Raise SpadeError unless PRO can be integrated to such a false-positive rate."""
    if not 0 < max_fpr <= 1:
        raise SpadeError(
            f"--max-fpr {max_fpr:g}: a false-positive rate is more than 0, and 1 at most"
        )


def localised(
    scorer: Scorer, kinds: Sequence[str] = ()
) -> tuple[dict[str, float], list[float | None] | None]:
    """Return AUPIMO, and sPRO where it is defined, of the images that have been scored.

    Parameters
    ----------
    scorer : Scorer
    kinds : sequence of str
        What each test image is, `good` or a kind of defect.

    Returns
    -------
    figures : dict of str to float
        `aupimo`, if the good images have 100 000 pixels together; `spro`, and if there are
        several kinds of defects `spro_<kind>`, against the good images alone, and `spro_kinds`,
        the mean of these.
    aupimo : list of float or None
        Of each image whose pixels are counted, None for good ones; None as a whole if `aupimo`
        is not there.
    """
    if scorer.pixels is None:
        return {}, None
    figures: dict[str, float] = {}
    each: list[float | None] | None = None
    found = scorer.pixels.images.defects
    if sum(one.good for one in found if not one.regions) >= _AUPIMO_PIXELS and any(
        one.regions for one in found
    ):
        values = scorer.pixels.aupimo()
        figures["aupimo"] = float(np.nanmean(values))
        each = [None if np.isnan(value) else float(value) for value in values]
    if any(one.saturated is not None for one in found):
        own = [kinds[at] for at in scorer.mapped] if kinds else []
        figures |= _saturated(scorer, own)
    return figures, each


def _saturated(scorer: Scorer, kinds: Sequence[str]) -> dict[str, float]:
    """Return sPRO of all defects, of each kind, and the mean of the kinds."""
    pixels = scorer.pixels
    assert pixels is not None
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


def limit_notes(categories: Sequence[Category], max_fpr: float, original_size: bool) -> list[str]:
    """Return what is to be said where others take PRO or sPRO otherwise."""
    masked = [one for one in categories if one.masked]
    notes = []
    if max_fpr != PRO_LIMIT and published_mvtec().keys() & {one.name for one in masked}:
        notes.append(
            f"PRO is integrated to a false-positive rate of {max_fpr:g}, and the "
            f"published figures to {PRO_LIMIT}: they cannot be compared"
        )
    if max_fpr != _LATER_LIMIT and any(one.layout == "mvtec-ad-2" for one in masked):
        notes.append(
            "MVTec AD 2's authors integrate PRO to a false-positive rate of "
            f"{_LATER_LIMIT}, as --max-fpr {_LATER_LIMIT} does"
        )
    if bare := [one.name for one in masked if one.layout == "mvtec-loco" and not one.config]:
        notes.append(
            f"sPRO is missing of {', '.join(bare)}: there is no defects_config.json, "
            "which has the saturation thresholds"
        )
    if any(one.config for one in masked) and not (max_fpr == _LATER_LIMIT and original_size):
        notes.append(
            "sPRO's authors integrate it to a false-positive rate of "
            f"{_LATER_LIMIT}, of maps on the images' own grids, as --max-fpr "
            f"{_LATER_LIMIT} --original-size does"
        )
    return notes


def missing_notes(finished: Mapping[str, Iterable[Scores]]) -> list[str]:
    """Return what is to be said of categories that have pixel metrics and no AUPIMO."""
    without = [
        name
        for name, scores in finished.items()
        if any(one.pro is not None and "aupimo" not in one.more for one in scores)
    ]
    if not without:
        return []
    return [
        f"AUPIMO is missing of {', '.join(without)}: its good images do not have "
        f"{_AUPIMO_PIXELS} pixels together"
    ]


def limit_of(results: Mapping[str, Any]) -> float:
    """Return the false-positive rate that PRO was integrated to."""
    return float(results["config"].get("max_fpr", PRO_LIMIT))
