"""Evaluate on MVTec AD and data sets laid out like it, beside the paper's Table 3."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..datasets import Category, load_mvtec, published_mvtec
from ..detector import Spade
from ..ensemble import Ensemble
from ..errors import SpadeError
from ..images import Framing, OnError
from .config import config_of, level_count
from .evidence import Evidence
from .report import write_report
from .resume import Job, OnNote, run_jobs
from .scores import CategoryTruth, Point, Scores, evaluate_points, point_of
from .sweep import Sweep
from .tables import write_points


def evaluate_mvtec(
    spade: Spade | Ensemble, root: str | os.PathLike[str], out: Path, *,
    names: Collection[str] | None = None, sweep: Sequence[str] = (),
    original_size: bool = False, report: bool = False, on_error: OnError, on_note: OnNote,
) -> dict[str, Any]:
    """Score each category of a data set, and leave `results.json` and `table.md` in a folder.

    Both are there from the first finished category on. What is finished is not done again when
    the call is repeated.

    Parameters
    ----------
    spade : Spade or Ensemble
        Its settings are used; it need not be fitted.
    root : path
        MVTec AD, MVTec LOCO AD, MVTec AD 2, VisA, or the folder of one category.
    out : Path
    names : collection of str, optional
        The categories; by default all.
    sweep : sequence of str
        Such as `k=5,50`; several make a grid.
    original_size : bool
        Whether maps are scored on the images' own grids, against untouched masks, instead of
        on the network's input, against masks framed like the images (the paper's protocol).
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
    if sweep and isinstance(spade, Ensemble):
        raise SpadeError("--sweep takes one network without views, not an ensemble")
    axes = Sweep.parse(sweep, level_count(spade.network))
    base = point_of(spade)
    points = axes.points(base)
    categories = load_mvtec(root, names, on_error)
    layouts = list(dict.fromkeys(one.layout for one in categories))
    dataset = layouts[0] if len(layouts) == 1 else "mvtec"
    notes = list(dict.fromkeys(note for one in categories for note in one.notes))
    if missing := _missing(categories, names):
        notes.append(f"of MVTec AD's 15 categories these are not there: {', '.join(missing)}")
    for note in notes:
        on_note(note)
    config = config_of(spade, ground_truth="original" if original_size else "framed",
                       sweep=axes.written())

    def job(category: Category) -> Job:
        return Job(category.name, category.files, lambda complain: _evaluate(
            spade, category, points, original_size, out, complain))

    def finish(finished: dict[str, list[Scores]]) -> dict[str, Any]:
        results = write_points(out, dataset, config, finished, axes, base, notes)
        if report:
            write_report(out, results)
        return results

    return run_jobs([job(one) for one in categories], out, config, finish, on_error, on_note,
                    report)


def evaluate_category(spade: Spade | Ensemble, category: Category) -> Scores:
    """Index a category's good images, query its test images, and score the maps.

    Raises
    ------
    SpadeError
        If an image or mask cannot be used.
    """
    return _evaluate(spade, category, [point_of(spade)], False, None, None)[0][0]


def _evaluate(
    spade: Spade | Ensemble, category: Category, points: Sequence[Point], original_size: bool,
    scratch: Path | None, on_error: OnError | None,
) -> tuple[list[Scores], dict[str, Any]]:
    evidence = Evidence(original_size)

    def truth(framing: Framing) -> CategoryTruth:
        return CategoryTruth(category, None if original_size else framing)

    scores = evaluate_points(
        spade, category.train, [test.path for test in category.test], truth, points,
        original_size=original_size, scratch=scratch, on_error=on_error, more=evidence.finish,
        on_result=evidence.add,
    )
    return scores, evidence.record


def _missing(categories: Sequence[Category], names: Collection[str] | None) -> list[str]:
    """Return the categories of MVTec AD that a data set of several lacks, unless asked for some."""
    there = {one.name for one in categories if one.layout == "mvtec"}
    everything = published_mvtec().keys() - {"average"}
    if names or not there & everything:
        return []
    return sorted(everything - there)
