"""Several evaluations side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..datasets import published_mvtec
from .columns import TITLES, markdown, percents
from .localisation import PRO_LIMIT, limit_of
from .results import Results
from .tables import table


def runs_table(runs: Mapping[str, Results]) -> str:
    """Return several evaluations side by side, beside the paper's table, as Markdown.

    Parameters
    ----------
    runs : mapping of str to results
        By what each is called; of one data set.
    """
    first = next(iter(runs.values()))
    if len(runs) == 1:
        return table(first)
    stc = first["dataset"] == "stc"
    main = "image_rocauc" if stc else "pro"
    names = list(dict.fromkeys(name for run in runs.values() for name in run["categories"]))
    published = {} if stc else {name: row["SPADE"] for name, row in published_mvtec().items()}
    theirs = {name: published[name] for name in names if name in published}
    head = ["scene" if stc else "category", *runs, *(["SPADE, published"] if theirs else [])]
    columns = [name for name in TITLES if any(name in run["mean"] for run in runs.values())]
    means = [
        [label, *percents(run["mean"].get(column) for column in columns)]
        for label, run in runs.items()
    ]
    parts = [
        f"{TITLES[main]} in percent.{'' if stc else _limits(runs)}",
        markdown(head, _rows(runs, main, names, theirs)),
        "Means over the categories of each run, in percent.",
        markdown(["run", *(TITLES[column] for column in columns)], means),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(
    runs: Mapping[str, Results], main: str, names: Sequence[str], theirs: Mapping[str, float]
) -> list[list[str]]:
    """Return the main figure of each category, by run and as published, and the means."""
    rows = [
        [
            name,
            *percents(run["categories"].get(name, {}).get(main) for run in runs.values()),
            *(percents([theirs.get(name)]) if theirs else []),
        ]
        for name in names
    ]
    # A mean over fewer categories is no mean of these.
    ours = [
        run["mean"].get(main) if run["categories"].keys() >= set(names) else None
        for run in runs.values()
    ]
    mean = float(np.mean([*theirs.values()])) if len(theirs) == len(names) else None
    rows.append(["mean", *percents(ours), *(percents([mean]) if theirs else [])])
    return rows


def _limits(runs: Mapping[str, Results]) -> str:
    """Say to which false-positive rates PRO was integrated, unless to the paper's alone."""
    limits = {label: limit_of(run) for label, run in runs.items()}
    if {*limits.values()} == {PRO_LIMIT}:
        return ""
    each = ", ".join(f"{limit:g} ({label})" for label, limit in limits.items())
    return (
        f" Integrated to a false-positive rate of {each}, and in the paper of "
        f"{PRO_LIMIT}: only figures of the same rate can be compared."
    )
