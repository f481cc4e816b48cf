"""What a reader of results is to know of a data set and of how it was scored, in one line each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ..datasets import Category, published_mvtec
from ..datasets.overlaps import overlaps
from .localisation import AUPIMO_PIXELS, PRO_LIMIT
from .scorer import Scorer
from .scores import Scores

_LATER_LIMIT = 0.05  # of MVTec LOCO AD's authors and of MVTec AD 2's


def dataset_notes(
    categories: Sequence[Category],
    names: Collection[str] | None = None,
    *,
    max_fpr: float = PRO_LIMIT,
    original_size: bool = False,
) -> list[str]:
    """Return what is to be known of categories before any of them is evaluated.

    Parameters
    ----------
    categories : sequence of Category
    names : collection of str, optional
        Those that were asked for; by default all.
    max_fpr : float in (0, 1]
        The false-positive rate up to which PRO is integrated.
    original_size : bool
        Whether maps are scored on the images' own grids.
    """
    return [
        *dict.fromkeys(note for one in categories for note in one.notes),
        *_absent_notes(categories, names),
        *_overlap_notes(categories),
        *_unmasked_notes(categories),
        *_limit_notes(categories, max_fpr, original_size=original_size),
    ]


def mask_notes(scorer: Scorer) -> list[str]:
    """Return what is to be known of masks that cannot be used, or lie outside the region."""
    notes = []
    if scorer.left_out:
        some = f"{scorer.left_out} of {len(scorer.labels)} test images"
        notes.append(
            f"the defects of {some} lie outside the region: by image they count as defects, and "
            "by pixel they do not count"
        )
    if not scorer.unusable_masks:
        return notes
    done = "and pixel metrics leave them out" if scorer.pixels else "so pixel metrics are missing"
    many = f"{scorer.unusable_masks} of {len(scorer.labels)} test images"
    return [*notes, f"the masks of {many} cannot be used, {done}"]


def missing_notes(finished: Mapping[str, Iterable[Scores]]) -> list[str]:
    """Return what is to be known of categories that have pixel metrics and no AUPIMO."""
    without = [
        name
        for name, scores in finished.items()
        if any(one.pro is not None and "aupimo" not in one.extra for one in scores)
    ]
    if not without:
        return []
    return [
        f"AUPIMO is missing of {', '.join(without)}: its good images do not have "
        f"{AUPIMO_PIXELS} pixels together"
    ]


def _absent_notes(categories: Sequence[Category], names: Collection[str] | None) -> list[str]:
    """Name the categories of MVTec AD that a data set of several lacks, unless asked for some."""
    there = {one.name for one in categories if one.layout == "mvtec"}
    everything = published_mvtec().keys() - {"average"}
    absent = sorted(everything - there)
    if names or not there & everything or not absent:
        return []
    return [f"of MVTec AD's 15 categories these are not there: {', '.join(absent)}"]


def _overlap_notes(categories: Sequence[Category]) -> list[str]:
    """Name an image of each category that has some of them twice."""
    notes = []
    for one in categories:
        if not (found := overlaps(one)):
            continue
        first, why = next(iter(found.items()))
        path = [*one.train, *(test.path for test in one.test)][first]
        notes.append(
            f"{one.name}: {len(found)} of its images should not count and do, being there "
            f"twice: {path} {why}" + (", for one" if len(found) > 1 else "")
        )
    return notes


def _unmasked_notes(categories: Sequence[Category]) -> list[str]:
    """Name the categories without masks, and those that lack some."""
    bare = [one.name for one in categories if not one.masked]
    notes = []
    if bare:
        notes.append(f"there are no masks of {', '.join(bare)}, so pixel metrics are missing")
    for one in categories:
        wrong = [test for test in one.test if test.wrong]
        without = sum(not test.masks for test in wrong)
        if one.masked and without:
            notes.append(
                f"{one.name}: {without} of {len(wrong)} defects have no mask, and pixel "
                "metrics leave them out"
            )
    return notes


def _limit_notes(
    categories: Sequence[Category], max_fpr: float, *, original_size: bool
) -> list[str]:
    """Say where others take PRO or sPRO otherwise."""
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
            f"{_LATER_LIMIT}, as `max_fpr={_LATER_LIMIT}` does"
        )
    if bare := [one.name for one in masked if one.layout == "mvtec-loco" and not one.config]:
        notes.append(
            f"sPRO is missing of {', '.join(bare)}: there is no defects_config.json, "
            "which has the saturation thresholds"
        )
    if any(one.config for one in masked) and not (max_fpr == _LATER_LIMIT and original_size):
        notes.append(
            "sPRO's authors integrate it to a false-positive rate of "
            f"{_LATER_LIMIT}, of maps on the images' own grids, as "
            f"`max_fpr={_LATER_LIMIT}` with `original_size=True` does"
        )
    return notes
