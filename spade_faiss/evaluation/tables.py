"""Results as JSON, and as Markdown beside the paper's tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._support.files import replace_file
from .._support.text import printable
from ..datasets import published_mvtec, published_stc
from ..verdict.rates import percent
from .images import RECORDED
from .localisation import PRO_LIMIT, limit_of
from .scores import METRICS, Point, Scores
from .sweep import Sweep

Results = Mapping[str, Any]
"""What `results.json` holds."""

_NOT_AVERAGED = {"n_train", "n_test", "seconds", "stages", *RECORDED}
_OF_MASKS = ("pro", "aupimo", "pixel_rocauc")
TITLES = {
    "pro": "PRO",
    "spro": "sPRO",
    "spro_logical_anomalies": "sPRO, logical",
    "spro_structural_anomalies": "sPRO, structural",
    "spro_kinds": "sPRO, mean of both",
    "aupimo": "AUPIMO",
    "pixel_rocauc": "pixel ROCAUC",
    "image_rocauc": "image ROCAUC",
    "image_rocauc_map_max": "image ROCAUC, map max",
    "image_rocauc_normalised_clips": "image ROCAUC, clips normalised",
    "image_rocauc_map_max_normalised_clips": "image ROCAUC, map max, clips normalised",
    "image_rocauc_by_score": "image ROCAUC by that score",
}
"""Columns of the tables, in order."""
IMAGE_TITLES = {
    "image_ap": "image AP",
    "image_ap_map_max": "image AP, map max",
    "image_f1": "best image F1",
    "image_f1_map_max": "best image F1, map max",
}
"""Columns of the table of whole images, in order."""
_RATES = ("found_rate", "false_alarm_rate")


def results_of(
    dataset: str,
    config: Mapping[str, object],
    categories: Mapping[str, Scores],
    sweep: Sequence[tuple[Mapping[str, str], Mapping[str, Scores]]] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what `results.json` holds.

    Parameters
    ----------
    dataset : str
    config : mapping
        Options and versions.
    categories : mapping of str to Scores
    sweep : sequence of (options, scores by category)
        The points of a sweep, if there was one.
    notes : sequence of str
        What a reader of the table is to know.
    """
    results: dict[str, Any] = {"dataset": dataset, "config": dict(config)} | _averaged(categories)
    if sweep:
        results["sweep"] = [
            {"options": dict(options)} | _averaged(scores, whole=False) for options, scores in sweep
        ]
    if notes:
        results["notes"] = list(notes)
    return results


def write_points(
    out: Path,
    dataset: str,
    config: Mapping[str, object],
    finished: Mapping[str, Sequence[Scores]],
    axes: Sweep,
    base: Point,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the results of categories, and return what `results.json` holds.

    `finished` holds per category the scores of `axes.points(base)`; the first is `base` itself.
    """
    results = results_of(
        dataset,
        config,
        {name: one[0] for name, one in finished.items()},
        axes.table(base, finished),
        notes,
    )
    write_results(out, results)
    return results


def _averaged(categories: Mapping[str, Scores], whole: bool = True) -> dict[str, Any]:
    """Return the records of all categories, and the means of what every one of them has.

    Unless `whole`, of metrics alone: the points of a sweep share features and the index.
    """
    records = {name: scores.record() for name, scores in categories.items()}
    if not whole:
        records = {
            name: {
                key: value
                for key, value in record.items()
                if key not in ("seconds", "stages", *RECORDED)
            }
            for name, record in records.items()
        }
    every = set.intersection(*(set(record) for record in records.values()))
    mean = {
        name: float(np.mean([record[name] for record in records.values()]))
        for name in every - _NOT_AVERAGED
    }
    ordered: dict[str, Any] = {
        name: mean[name] for name in [*METRICS, *sorted(mean.keys() - {*METRICS})] if name in mean
    }
    if "confusion" in every:
        ordered["confusion"] = {
            rate: float(np.mean([record["confusion"][rate] for record in records.values()]))
            for rate in _RATES
        }
    if whole:
        ordered["seconds"] = round(sum(record["seconds"] for record in records.values()), 3)
    return {"categories": records, "mean": ordered}


def write_results(out: Path, results: Results) -> None:
    """Write `results.json` and `table.md` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    replace_file(out / "table.md", table(results).encode("utf-8", "backslashreplace"))


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
            *_percents(known.get(name, {}).get(method) for method in methods),
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
                *_percents(results["mean"].get(column) for column in columns),
                *_percents(theirs),
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
    rows.append(["mean", *_percents(results["mean"].get(column) for column in columns)])
    ours = f"ours, mean of {len(results['categories'])} scenes"
    methods = [[method, *_percents([value])] for method, value in published_stc().items()]
    methods.append([ours, *_percents([results["mean"]["image_rocauc"]])])
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
            *_percents(record.get(column) for column in columns),
            *(_judged(record) if judged else ()),
        ]
        for name, record in records.items()
    ]
    if len(records) > 1:
        rates = results["mean"].get("confusion", {})
        rows.append(
            [
                "mean",
                *_percents(results["mean"].get(column) for column in columns),
                *(
                    ["", *(percent(rates[rate]) if rates else "" for rate in _RATES)]
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
            [f"{name}, {kind}", told(own)]
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
    return [f"{record['threshold']:.4g}", told(confusion), told(confusion, "false_alarm")]


def judged_by(results: Results) -> str:
    """Return what a threshold is and what intervals mean, for a person; empty if there is none."""
    scores = {
        record["confusion"]["score"]
        for record in results["categories"].values()
        if "confusion" in record
    }
    if not scores:
        return ""
    score = "the map's maximum" if scores == {"map"} else "the distance to the nearest descriptors"
    how = (
        "was set by hand"
        if "threshold" in results.get("config", {})
        else "is what each index draws from its own good images, each scored against the others "
        "(leave-one-out)"
    )
    return (
        f"The threshold of {score} {how}; more is called a defect. In brackets: "
        "where the rate lies with 95 % confidence (Clopper and Pearson), if the images are "
        "independent of each other."
    )


def told(record: Mapping[str, Any], rate: str = "found") -> str:
    """Return a rate of a confusion matrix, `found` or `false_alarm`, as a person reads it."""
    count, others = (
        (record["found"], record["missed"])
        if rate == "found"
        else (record["false_alarms"], record["passed"])
    )
    low, high = record[f"{rate}_interval"]
    return (
        f"{count} of {count + others}, {percent(record[f'{rate}_rate'])} "
        f"({percent(low)} to {percent(high)})"
    )


def _sweep(results: Results) -> str:
    """Return the means of each point, and the main figure of each category at each point."""
    points = results["sweep"]
    axes = list(points[0]["options"])
    columns = columns_of(points[0])
    means = [
        [*point["options"].values(), *_percents(point["mean"].get(c) for c in columns)]
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
        [name, *_percents(point["categories"][name].get(main) for point in points)]
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


def columns_of(results: Results) -> list[str]:
    """Return the metrics that any category has, in the order of the tables."""
    return _there(results, TITLES)


def image_columns_of(results: Results) -> list[str]:
    """Return the further metrics of whole images that any category has, in order."""
    return _there(results, IMAGE_TITLES)


def _there(results: Results, titles: Iterable[str]) -> list[str]:
    records = results["categories"].values()
    return [name for name in titles if any(record.get(name) is not None for record in records)]


def _measured(record: Mapping[str, Any], columns: Iterable[str]) -> list[str]:
    """Return a category's figures; what it lacks for want of masks says so."""
    return [
        "no masks"
        if column in _OF_MASKS and record.get(column) is None
        else _percents([record.get(column)])[0]
        for column in columns
    ]


def _percents(values: Iterable[float | None]) -> list[str]:
    return ["" if value is None else f"{100 * value:.1f}" for value in values]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, all columns but the first to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(
        f"| {' | '.join(printable(cell).replace('|', '&#124;') for cell in cells)} |"
        for cells in lines
    )


def runs_table(runs: Mapping[str, Results]) -> str:
    """Return several evaluations side by side, beside the paper's table, as Markdown.

    Parameters
    ----------
    runs : mapping of str to results
        By what each is called; of one data set.
    """
    if len(runs) == 1:
        return table(next(iter(runs.values())))
    first = next(iter(runs.values()))
    stc = first["dataset"] == "stc"
    main = "image_rocauc" if stc else "pro"
    names = list(dict.fromkeys(name for run in runs.values() for name in run["categories"]))
    published = {} if stc else published_mvtec()
    theirs = any(name in published for name in names)
    rows = [
        [
            name,
            *_percents(run["categories"].get(name, {}).get(main) for run in runs.values()),
            *(_percents([published.get(name, {}).get("SPADE")]) if theirs else []),
        ]
        for name in names
    ]
    whole = [published[name]["SPADE"] for name in names if name in published]
    mean = float(np.mean(whole)) if len(whole) == len(names) else None
    # A mean over fewer categories is no mean of these.
    rows.append(
        [
            "mean",
            *_percents(
                run["mean"].get(main) if run["categories"].keys() >= set(names) else None
                for run in runs.values()
            ),
            *(_percents([mean]) if theirs else []),
        ]
    )
    columns = [name for name in TITLES if any(name in run["mean"] for run in runs.values())]
    means = [
        [label, *_percents(run["mean"].get(column) for column in columns)]
        for label, run in runs.items()
    ]
    head = ["scene" if stc else "category", *runs, *(["SPADE, published"] if theirs else [])]
    limits = {label: limit_of(run) for label, run in runs.items()}
    measured = f"{TITLES[main]} in percent."
    if main == "pro" and {*limits.values()} != {PRO_LIMIT}:
        said = ", ".join(f"{limit:g} ({label})" for label, limit in limits.items())
        measured += (
            f" Integrated to a false-positive rate of {said}, and in the paper of "
            f"{PRO_LIMIT}: only figures of the same rate can be compared."
        )
    return (
        "\n\n".join(
            [
                measured,
                markdown(head, rows),
                "Means over the categories of each run, in percent.",
                markdown(["run", *(TITLES[column] for column in columns)], means),
            ]
        )
        + "\n"
    )
