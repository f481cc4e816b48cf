"""Results as Markdown beside the paper's tables, and as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._support.files import replace_file
from .._support.text import json_text, printable, valid
from ..datasets import published_mvtec, published_stc
from ..verdict.rates import percent
from .columns import (
    IMAGE_TITLES,
    TITLES,
    columns_of,
    image_columns_of,
    judged_by,
    markdown,
    percents,
    rate_in_words,
)
from .localisation import limit_of
from .results import RATES, Results

_OF_MASKS = ("pro", "aupimo", "pixel_rocauc")


def write_results(out: Path, results: Results) -> None:
    """Write `results.json` and `table.md` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "results.json", (json_text(results, indent=1) + "\n").encode())
    replace_file(out / "table.md", valid(table(results)).encode())


def table(results: Results) -> str:
    """Return the figures of each category in percent, beside the paper's table, as Markdown."""
    parts = [_stc(results) if results["dataset"] == "stc" else _mvtec(results)]
    parts += _images(results)
    if results.get("sweep"):
        parts.append(_sweep(results))
    parts += [f"Note: {printable(note)}." for note in results.get("notes", ())]
    return "\n\n".join(parts) + "\n"


def _mvtec(results: Results) -> str:
    """Return the table of a data set of parts; PRO beside the paper's Table 3 where it has it."""
    categories = results["categories"]
    published = published_mvtec()
    columns = columns_of(results)
    known = {name: published[name] for name in categories if name in published and "pro" in columns}
    methods = list(published["average"]) if known else []
    rows = [
        [
            name,
            *_measured(record, columns),
            *percents(known.get(name, {}).get(method) for method in methods),
        ]
        for name, record in categories.items()
    ]
    if len(categories) > 1:
        theirs = [
            float(np.mean([row[method] for row in known.values()]))
            if len(known) == len(categories)
            else None
            for method in methods
        ]
        rows.append(
            [
                "mean",
                *percents(results["mean"].get(column) for column in columns),
                *percents(theirs),
            ]
        )
    head = [
        "category",
        *(TITLES[column] for column in columns),
        *(f"{method}, published PRO" for method in methods),
    ]
    notes = "All figures in percent."
    if "pro" in columns:
        measured = "PRO and sPRO are" if "spro" in columns else "PRO is"
        notes += f" {measured} integrated to a false-positive rate of {limit_of(results):g}."
    if known:
        notes += " Published: Table 3 of Cohen & Hoshen, 2020 (arXiv 2005.02357)."
        if 1 < len(categories) < 15:
            notes += f" The mean is over {len(categories)} of its 15 categories."
    return f"{markdown(head, rows)}\n\n{notes}"


def _stc(results: Results) -> str:
    """Return the scenes' figures, and their mean among those of the paper's Table 4."""
    columns = columns_of(results)
    rows = [[name, *_measured(record, columns)] for name, record in results["categories"].items()]
    rows.append(["mean", *percents(results["mean"].get(column) for column in columns)])
    ours = f"ours, mean of {len(results['categories'])} scenes"
    methods = [[method, *percents([value])] for method, value in published_stc().items()]
    methods.append([ours, *percents([results["mean"]["image_rocauc"]])])
    notes = (
        "All figures in percent; ROCAUC over a scene's frames. Published: Table 4 of Cohen & "
        "Hoshen, 2020 (arXiv 2005.02357), averaged over scenes."
    )
    return "\n\n".join(
        [
            markdown(["scene", *(TITLES[column] for column in columns)], rows),
            markdown(["method", "image ROCAUC"], methods),
            notes,
        ]
    )


def _images(results: Results) -> list[str]:
    """Return what scores of whole images say, and what each index's own threshold makes of them."""
    records = results["categories"]
    columns = image_columns_of(results)
    if not columns:
        return []
    judged = judged_by(results)
    rows = [
        [
            name,
            *percents(record.get(column) for column in columns),
            *(_judged(record) if judged else ()),
        ]
        for name, record in records.items()
    ]
    if len(records) > 1:
        rates = results["mean"].get("confusion", {})
        rows.append(
            [
                "mean",
                *percents(results["mean"].get(column) for column in columns),
                *(
                    ["", *(percent(rates[rate]) if rates else "" for rate in RATES)]
                    if judged
                    else ()
                ),
            ]
        )
    head = [
        "scene" if results["dataset"] == "stc" else "category",
        *(IMAGE_TITLES[column] for column in columns),
        *(["threshold", "defects found", "false alarms"] if judged else ()),
    ]
    parts = [markdown(head, rows)]
    if judged:
        kinds = [
            [f"{name}, {kind}", rate_in_words(own)]
            for name, record in records.items()
            for kind, own in record.get("kinds", {}).items()
        ]
        parts += [judged, markdown(["kind of defect", "found"], kinds)]
    return parts


def _judged(record: Mapping[str, Any]) -> list[str]:
    """Return a category's threshold, and the rates at it."""
    if "confusion" not in record:
        return ["none", "", ""]
    confusion = record["confusion"]
    return [
        f"{record['threshold']:.4g}",
        rate_in_words(confusion),
        rate_in_words(confusion, "false_alarm"),
    ]


def _sweep(results: Results) -> str:
    """Return the means of each point, and the main figure of each category at each point."""
    points = results["sweep"]
    axes = list(points[0]["options"])
    columns = columns_of(points[0])
    means = [
        [*point["options"].values(), *percents(point["mean"].get(c) for c in columns)]
        for point in points
    ]
    main = "image_rocauc" if results["dataset"] == "stc" or "pro" not in columns else "pro"
    if "score" in axes:
        main = "image_rocauc_by_score"
    labels = [
        ", ".join(f"{name} = {value}" for name, value in point["options"].items())
        for point in points
    ]
    each = [
        [name, *percents(point["categories"][name].get(main) for point in points)]
        for name in results["categories"]
    ]
    return "\n\n".join(
        [
            f"Sweep of {', '.join(axes)}: means over the categories.",
            markdown([*axes, *(TITLES[column] for column in columns)], means),
            f"{TITLES[main]} of each category.",
            markdown(["category", *labels], each),
        ]
    )


def _measured(record: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    """Return a category's figures; what it lacks for want of masks says so."""
    return [
        "no masks"
        if column in _OF_MASKS and record.get("pro") is None
        else percents([record.get(column)])[0]
        for column in columns
    ]
