"""The columns of tables, and their cells in words: of `table.md` and of the report alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._support.text import printable
from ..verdict.rates import percent
from .results import Results

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
    "image_rocauc_map_mean": "image ROCAUC, map mean",
    "image_rocauc_normalised_clips": "image ROCAUC, clips normalised",
    "image_rocauc_map_max_normalised_clips": "image ROCAUC, map max, clips normalised",
    "image_rocauc_map_mean_normalised_clips": "image ROCAUC, map mean, clips normalised",
    "image_rocauc_by_score": "image ROCAUC by that score",
}
"""Columns of the tables, in order."""
IMAGE_TITLES = {
    "image_ap": "image AP",
    "image_ap_map_max": "image AP, map max",
    "image_ap_map_mean": "image AP, map mean",
    "image_f1": "best image F1",
    "image_f1_map_max": "best image F1, map max",
    "image_f1_map_mean": "best image F1, map mean",
}
"""Columns of the table of whole images, in order."""

_JUDGED_BY = {
    "map": "the map's maximum",
    "descriptor": "the distance to the nearest descriptors",
    "mean": "the map's power mean",
}


def columns_of(results: Results) -> list[str]:
    """Return the metrics that any category has, in the order of the tables."""
    return _there(results, TITLES)


def image_columns_of(results: Results) -> list[str]:
    """Return the further metrics of whole images that any category has, in order."""
    return _there(results, IMAGE_TITLES)


def _there(results: Results, titles: Iterable[str]) -> list[str]:
    records = results["categories"].values()
    return [name for name in titles if any(record.get(name) is not None for record in records)]


def judged_by(results: Results) -> str:
    """Return what a threshold is and what intervals mean, for a person; empty if there is none."""
    scores = {
        record["confusion"]["score"]
        for record in results["categories"].values()
        if "confusion" in record
    }
    if not scores:
        return ""
    score = " and ".join(_JUDGED_BY[one] for one in sorted(scores))
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


def rate_in_words(record: Mapping[str, Any], rate: str = "found") -> str:
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


def percents(values: Iterable[float | None]) -> list[str]:
    """Return figures in percent, and nothing of what is None."""
    return ["" if value is None else f"{100 * value:.1f}" for value in values]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, all columns but the first to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(
        f"| {' | '.join(printable(cell).replace('|', '&#124;') for cell in cells)} |"
        for cells in lines
    )
