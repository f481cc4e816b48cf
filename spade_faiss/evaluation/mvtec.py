"""Evaluate on MVTec AD and what is laid out like it, beside the paper's Table 3, and on folders."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..datasets import Category, load_mvtec
from ..detector import Detector
from ..images import OnError, OnNote
from .config import config_of
from .localisation import PRO_LIMIT, check_limit
from .loop import ScoringOptions, evaluate_split
from .notes import dataset_notes
from .points import point_of
from .run import Evaluation, run_evaluation
from .scores import Scores
from .splits import CategorySplit
from .sweep import Sweep


def evaluate_mvtec(
    detector: Detector,
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
    detector : Detector
        Its settings are used; it need not be fitted.
    root : path
        MVTec AD, MVTec LOCO AD, MVTec AD 2, VisA, or the folder of one category. Without masks
        there are no pixel metrics.
    out : Path
    names : collection of str, optional
        The categories; by default all.
    sweep, original_size, max_fpr, report, on_error, on_note
        As `evaluate_folder` takes them.

    Returns
    -------
    dict
        What `results.json` holds.

    Raises
    ------
    SpadeError
        If there is no category, an option is wrong, or nothing could be evaluated.
    """
    check_limit(max_fpr)
    categories = load_mvtec(root, names, on_error)
    layouts = list(dict.fromkeys(one.layout for one in categories))
    evaluation = _evaluation(
        detector,
        layouts[0] if len(layouts) == 1 else "mvtec",
        categories,
        names,
        sweep=sweep,
        original_size=original_size,
        max_fpr=max_fpr,
    )
    return run_evaluation(
        evaluation, detector, out, report=report, on_error=on_error, on_note=on_note
    )


def evaluate_folder(
    detector: Detector,
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
    detector : Detector
        Its settings are used; it need not be fitted.
    category : Category
        By `spade_faiss.datasets.load_folders` or `load_table`.
    out : Path
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
        If an option is wrong, or nothing could be evaluated.
    """
    check_limit(max_fpr)
    evaluation = _evaluation(
        detector,
        "folder",
        [category],
        sweep=sweep,
        original_size=original_size,
        max_fpr=max_fpr,
    )
    return run_evaluation(
        evaluation, detector, out, report=report, on_error=on_error, on_note=on_note
    )


def evaluate_category(detector: Detector, category: Category) -> Scores:
    """Index a category's good images, query its test images, and score the maps.

    Raises
    ------
    SpadeError
        If an image or mask cannot be used.
    """
    scoring = ScoringOptions([point_of(detector)])
    scores, _ = evaluate_split(
        detector, CategorySplit(category), scoring, None, None, lambda note: None
    )
    return scores[0]


def _evaluation(
    detector: Detector,
    dataset: str,
    categories: Sequence[Category],
    names: Collection[str] | None = None,
    *,
    sweep: Sequence[str],
    original_size: bool,
    max_fpr: float,
) -> Evaluation:
    """Return what is evaluated, and how; `names` are the categories that were asked for."""
    axes = Sweep.of(detector, sweep)
    options = {"threshold": detector.image_threshold} if detector.by_hand else {}
    return Evaluation(
        dataset,
        [CategorySplit(one, original_size=original_size) for one in categories],
        ScoringOptions(
            axes.points(point_of(detector)), original_size=original_size, max_fpr=max_fpr
        ),
        axes,
        config_of(
            detector,
            ground_truth="original" if original_size else "framed",
            max_fpr=max_fpr,
            sweep=axes.written(),
            **options,
        ),
        dataset_notes(categories, names, max_fpr=max_fpr, original_size=original_size),
    )
