"""Evaluate on MVTec AD and what is laid out like it, beside the paper's Table 3, and on folders."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..datasets import Category, load_mvtec, published_mvtec
from ..datasets.overlaps import overlaps
from ..detector import Detector
from ..errors import SpadeError
from ..images import Framing, OnError, OnNote
from .config import config_of, level_count
from .evidence import Evidence
from .localisation import PRO_LIMIT, check_limit, limit_notes, localised, missing_notes
from .report import write_report
from .resume import Job, run_jobs
from .scores import Point, Scorer, Scores, evaluate_points, point_of
from .sweep import Sweep
from .tables import write_points
from .truth import CategoryTruth


def evaluate_mvtec(
    spade: Detector,
    root: str | os.PathLike[str],
    out: Path,
    *,
    names: Collection[str] | None = None,
    sweep: Sequence[str] = (),
    original_size: bool = False,
    max_fpr: float = PRO_LIMIT,
    report: bool = False,
    on_error: OnError,
    on_note: OnNote,
) -> dict[str, Any]:
    """Score each category of a data set, and leave `results.json` and `table.md` in a folder.

    Both are there from the first finished category on. What is finished is not done again when
    the call is repeated.

    Parameters
    ----------
    spade : Detector
        Its settings are used; it need not be fitted.
    root : path
        MVTec AD, MVTec LOCO AD, MVTec AD 2, VisA, or the folder of one category. Without masks
        there are no pixel metrics.
    out : Path
    names : collection of str, optional
        The categories; by default all.
    sweep : sequence of str
        Such as `k=5,50`; several make a grid.
    original_size : bool
        Whether maps are scored on the images' own grids, against untouched masks, instead of
        on the network's input, against masks framed like the images (the paper's protocol).
    max_fpr : float in (0, 1]
        The false-positive rate up to which PRO and sPRO are integrated, and by which they are
        divided.
    report : bool
        Whether to write `report.html`, too; of finished categories, without doing them again.
    on_error, on_note : callable
        Called with (name, why) for what is broken, and with a line that is no error.

    Returns
    -------
    dict
        What `results.json` holds.

    Raises
    ------
    SpadeError
        If there is no category, an option is wrong, or nothing could be evaluated.
    """
    axes = _axes(spade, sweep)
    categories = load_mvtec(root, names, on_error)
    layouts = list(dict.fromkeys(one.layout for one in categories))
    dataset = layouts[0] if len(layouts) == 1 else "mvtec"
    notes = list(dict.fromkeys(note for one in categories for note in one.notes))
    if missing := _missing(categories, names):
        notes.append(f"of MVTec AD's 15 categories these are not there: {', '.join(missing)}")
    notes += [note for one in categories if (note := _overlap_note(one))]
    return _evaluate_all(
        spade,
        categories,
        dataset,
        out,
        axes,
        notes,
        original_size=original_size,
        max_fpr=max_fpr,
        report=report,
        on_error=on_error,
        on_note=on_note,
    )


def evaluate_folder(
    spade: Detector,
    category: Category,
    out: Path,
    *,
    sweep: Sequence[str] = (),
    original_size: bool = False,
    max_fpr: float = PRO_LIMIT,
    report: bool = False,
    on_error: OnError,
    on_note: OnNote,
) -> dict[str, Any]:
    """Score one category, of any folders or a table, and leave results in a folder.

    Parameters
    ----------
    spade : Detector
        Its settings are used; it need not be fitted.
    category : Category
        By `spade_faiss.datasets.load_folders` or `load_table`.
    out, sweep, original_size, max_fpr, report, on_error, on_note
        As `evaluate_mvtec` takes them.

    Returns
    -------
    dict
        What `results.json` holds.

    Raises
    ------
    SpadeError
        If an option is wrong, or nothing could be evaluated.
    """
    return _evaluate_all(
        spade,
        [category],
        "folder",
        out,
        _axes(spade, sweep),
        category.notes,
        original_size=original_size,
        max_fpr=max_fpr,
        report=report,
        on_error=on_error,
        on_note=on_note,
    )


def _axes(spade: Detector, sweep: Sequence[str]) -> Sweep:
    if sweep and spade.is_ensemble:
        raise SpadeError("--sweep takes one network without views, not an ensemble")
    return Sweep.parse(sweep, level_count(spade.network))


def _evaluate_all(
    spade: Detector,
    categories: Sequence[Category],
    dataset: str,
    out: Path,
    axes: Sweep,
    notes: Sequence[str],
    *,
    original_size: bool,
    max_fpr: float,
    report: bool,
    on_error: OnError,
    on_note: OnNote,
) -> dict[str, Any]:
    """Score categories, and write the results of those that are finished."""
    check_limit(max_fpr)
    base = point_of(spade)
    points = axes.points(base)
    notes = [*notes, *_mask_notes(categories), *limit_notes(categories, max_fpr, original_size)]
    for note in notes:
        on_note(note)
    config = config_of(
        spade,
        ground_truth="original" if original_size else "framed",
        max_fpr=max_fpr,
        sweep=axes.written(),
        **({"threshold": spade.image_threshold} if spade.by_hand else {}),
    )

    def job(category: Category) -> Job:
        return Job(
            category.name,
            category.files,
            lambda complain: _evaluate(
                spade, category, points, original_size, max_fpr, out, complain
            ),
            labels=category.kinds,
        )

    def finish(finished: dict[str, list[Scores]]) -> dict[str, Any]:
        results = write_points(
            out, dataset, config, finished, axes, base, [*notes, *missing_notes(finished)]
        )
        if report:
            write_report(out, results)
        return results

    return run_jobs(
        [job(one) for one in categories], out, config, finish, on_error, on_note, report
    )


def evaluate_category(spade: Detector, category: Category) -> Scores:
    """Index a category's good images, query its test images, and score the maps.

    Raises
    ------
    SpadeError
        If an image or mask cannot be used.
    """
    return _evaluate(spade, category, [point_of(spade)], False, PRO_LIMIT, None, None)[0][0]


def _evaluate(
    spade: Detector,
    category: Category,
    points: Sequence[Point],
    original_size: bool,
    max_fpr: float,
    scratch: Path | None,
    on_error: OnError | None,
) -> tuple[list[Scores], dict[str, Any]]:
    evidence = Evidence(original_size, max_fpr)

    def truth(framing: Framing) -> CategoryTruth:
        return CategoryTruth(category, None if original_size else framing)

    def more(scorer: Scorer, number: int) -> dict[str, float]:
        evidence.finish(scorer, number)
        figures, each = localised(scorer, category.kinds)
        if number == 0:
            evidence.record["aupimo"] = each
        return figures

    scores = evaluate_points(
        spade,
        category.train,
        [test.path for test in category.test],
        truth,
        points,
        original_size=original_size,
        kinds=category.kinds,
        max_fpr=max_fpr,
        scratch=scratch,
        on_error=on_error,
        more=more,
        on_result=evidence.add,
    )
    return scores, evidence.record


def _mask_notes(categories: Sequence[Category]) -> list[str]:
    """Return what is to be said of categories without masks, and of those that lack some."""
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


def _overlap_note(category: Category) -> str:
    """Return what is to be said of images that are there twice; empty if there are none."""
    found = overlaps(category)
    if not found:
        return ""
    first, why = next(iter(found.items()))
    path = [*category.train, *(test.path for test in category.test)][first]
    return (
        f"{category.name}: {len(found)} of its images should not count and do, being there "
        f"twice: {path} {why}" + (", for one" if len(found) > 1 else "")
    )


def _missing(categories: Sequence[Category], names: Collection[str] | None) -> list[str]:
    """Return the categories of MVTec AD that a data set of several lacks, unless asked for some."""
    there = {one.name for one in categories if one.layout == "mvtec"}
    everything = published_mvtec().keys() - {"average"}
    if names or not there & everything:
        return []
    return sorted(everything - there)
