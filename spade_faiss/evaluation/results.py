"""What `results.json` holds: the figures of each category, and their means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .confusion import RECORDED
from .scores import METRICS, Scores

Results = Mapping[str, Any]
"""What `results.json` holds."""
RATES = ("found_rate", "false_alarm_rate")
"""The rates of a confusion matrix that are averaged."""

_OF_INDEX = ("seconds", "stages", *RECORDED)  # the points of a sweep share the index
_NOT_AVERAGED = {"n_train", "n_test", *_OF_INDEX}


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
    records = {name: scores.record() for name, scores in categories.items()}
    mean = _means(records)
    mean["seconds"] = round(sum(record["seconds"] for record in records.values()), 3)
    results: dict[str, Any] = {
        "dataset": dataset,
        "config": dict(config),
        "categories": records,
        "mean": mean,
    }
    if sweep:
        results["sweep"] = [_point(options, scores) for options, scores in sweep]
    if notes:
        results["notes"] = list(notes)
    return results


def _point(options: Mapping[str, str], categories: Mapping[str, Scores]) -> dict[str, Any]:
    """Return the metrics at one point of a sweep."""
    records = {
        name: {key: value for key, value in scores.record().items() if key not in _OF_INDEX}
        for name, scores in categories.items()
    }
    return {"options": dict(options), "categories": records, "mean": _means(records)}


def _means(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of the metrics that every category has."""
    every = set.intersection(*(set(record) for record in records.values()))
    means = {
        name: float(np.mean([record[name] for record in records.values()]))
        for name in every - _NOT_AVERAGED
    }
    order = [*METRICS, *sorted(means.keys() - {*METRICS})]
    ordered: dict[str, Any] = {name: means[name] for name in order if name in means}
    if "confusion" in every:
        ordered["confusion"] = {
            rate: float(np.mean([record["confusion"][rate] for record in records.values()]))
            for rate in RATES
        }
    return ordered
