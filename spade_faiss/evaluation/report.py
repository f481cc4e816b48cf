"""An evaluation's report: figures beside the paper's, curves, and the worst misses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..datasets import published_mvtec, published_stc
from ..report.charts import ClipCurve, Histogram, clip_curve, histogram, line
from ..report.page import common_folder, within, write_page
from .columns import IMAGE_TITLES, TITLES, columns_of, image_columns_of, judged_by, rate_in_words
from .localisation import limit_of
from .results import Results
from .store import ResultStore

_NAMES = {
    "mvtec": "MVTec AD",
    "mvtec-loco": "MVTec LOCO AD",
    "mvtec-ad-2": "MVTec AD 2",
    "visa": "VisA",
    "stc": "ShanghaiTech Campus",
    "folder": "your folders",
}
_FACTS = (
    "backbone",
    "resize",
    "crop",
    "region",
    "k",
    "kappa",
    "sigma",
    "standardise",
    "contrast",
    "motion",
    "margin",
    "averaged",
    "score",
    "min_area",
    "factory",
    "coreset",
    "engine",
    "device",
    "ground_truth",
    "max_fpr",
    "threshold",
)


def write_report(store: ResultStore, results: Results) -> None:
    """Write `report.html` beside `results.json`, from it and from what the store keeps.

    One category's curves and pictures are in memory at a time.

    Raises
    ------
    SpadeError
        If what is kept of a category is not there.
    """
    stc = results["dataset"] == "stc"
    categories, mean = results["categories"], results["mean"]
    columns = columns_of(results)
    main = "image_rocauc" if stc or mean.get("pro") is None else "pro"
    published = _published(categories) if main == "pro" else {}
    write_page(
        store.claim_report(),
        "evaluation.html",
        dataset=_dataset(results),
        main=TITLES[main],
        kind="scene" if stc else "category",
        kinds="scenes" if stc else "categories",
        bars=_bars(results, main, published),
        methods=[*published_stc().items(), ("SPADE, here", mean[main])] if stc else [],
        with_published=bool(published),
        mean=[(TITLES[one], mean.get(one)) for one in columns],
        columns=[TITLES[one] for one in columns],
        rows=[
            (name, [record.get(one) for one in columns], record)
            for name, record in categories.items()
        ],
        images=_images(results),
        sweep=_sweep(results),
        notes=results.get("notes", ()),
        facts=_facts(results["config"]),
        by_default="descriptor" if stc else results["config"].get("score", "map"),
        max_fpr=(max_fpr := limit_of(results)),
        sections=_sections(store, categories, columns, max_fpr),
    )


def _dataset(results: Results) -> str:
    """Return what a person calls the data set."""
    name = _NAMES[results["dataset"]]
    if results["dataset"] == "mvtec" and not _published(results["categories"]):
        return f"laid out like {name}"
    return name


def _published(categories: Collection[str]) -> dict[str, float]:
    """Return SPADE's published PRO of the categories that the paper has."""
    return {name: row["SPADE"] for name, row in published_mvtec().items() if name in categories}


def _bars(
    results: Results, main: str, published: Mapping[str, float]
) -> list[tuple[str, float | None, float | None]]:
    """Return the main figure of each category, and their mean, beside the published ones."""
    categories = results["categories"]
    bars = [(name, record.get(main), published.get(name)) for name, record in categories.items()]
    if len(bars) > 1:
        whole = len(published) == len(categories)
        theirs = float(np.mean(list(published.values()))) if whole else None
        bars.append(("mean", results["mean"].get(main), theirs))
    return bars


def _facts(config: Mapping[str, Any]) -> dict[str, object]:
    """Return the options that a person wants to know, by name."""
    facts = {
        name.replace("_", " "): _as_written(config[name])
        for name in _FACTS
        if config.get(name) is not None
    }
    return facts | ({"members": len(config["members"])} if config.get("members") else {})


def _as_written(value: object) -> object:
    """Return an option's value as a person would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else value


def _sections(
    store: ResultStore, categories: Mapping[str, Any], columns: Sequence[str], limit: float
) -> Iterator[dict[str, Any]]:
    """Yield what is shown of each category; PRO's curve goes to a false-positive rate `limit`."""
    for name, record in categories.items():
        data = store.report_data(name)
        labels = np.array(data["labels"], bool)
        histograms = _histograms(data, labels)
        misses = data["misses"]
        folder = common_folder(
            card["name"]
            for by_score in misses.values()
            for cards in by_score.values()
            for card in cards
        )
        yield {
            "name": name,
            "folder": folder,
            "figures": [(TITLES[one], record.get(one)) for one in columns],
            "train": record["n_train"],
            "test": record["n_test"],
            "defects": int(labels.sum()),
            "charts": _charts(data["curves"], limit),
            "histograms": histograms,
            "known": _known(data, labels, histograms),
            "judged": _judged(record),
            "clips": _clips(data, folder),
            "misses": {
                score: {
                    kind: [_shown(card, folder, score, data["pixel_threshold"]) for card in cards]
                    for kind, cards in by_score.items()
                }
                for score, by_score in misses.items()
            },
        }


def _charts(
    curves: Mapping[str, Any], limit: float
) -> list[tuple[str, list[tuple[str, str]], float, bool]]:
    """Return each chart's title, its lines, where its x axis ends, and if chance is a diagonal."""
    by_score = [
        (name, line(curves[f"image_rocauc{figure}"]))
        for name, figure in (("map max", "_map_max"), ("descriptor", ""), ("map mean", "_map_mean"))
    ]
    charts = [("Image ROC", by_score, 1.0, True)]
    if "pixel_rocauc" in curves:
        charts += [
            ("Pixel ROC", [("", line(curves["pixel_rocauc"]))], 1.0, True),
            ("PRO", [("", line(curves["pro"], limit))], limit, False),
        ]
    return charts


def _histograms(data: Mapping[str, Any], labels: npt.NDArray[np.bool_]) -> dict[str, Histogram]:
    """Return the scores of defects and of good images, with the threshold of what was judged."""
    scores, limits = dict(data["scores"]), {}
    if judged := data["judged"]:
        scores[judged["score"]] = judged["scores"]
        limits[judged["score"]] = judged["threshold"]
    return {
        score: histogram(
            np.array(values)[labels].tolist(), np.array(values)[~labels].tolist(), limits.get(score)
        )
        for score, values in scores.items()
    }


def _clips(data: Mapping[str, Any], folder: str) -> dict[str, list[tuple[str, ClipCurve]]]:
    """Return the curves of a scene's clips by score, on one scale; the misses are marked.

    There are none where images are no frames.
    """
    clips = data["clips"]
    if not clips:
        return {}
    names = {
        (score, *card["place"]): within(card["name"], folder)
        for score, kinds in data["misses"].items()
        for cards in kinds.values()
        for card in cards
    }
    curves: dict[str, list[tuple[str, ClipCurve]]] = {}
    for score, values in data["scores"].items():
        low, high = min(values), max(values)
        room = 0.06 * (high - low)
        curves[score] = [
            (
                clip["name"],
                clip_curve(
                    clip["numbers"],
                    [values[i] for i in clip["places"]],
                    [data["labels"][i] for i in clip["places"]],
                    (low - room, high + room),
                    [
                        (at, names[score, clip["name"], number])
                        for at, number in enumerate(clip["numbers"])
                        if (score, clip["name"], number) in names
                    ],
                ),
            )
            for clip in clips
        ]
    return curves


def _known(
    data: Mapping[str, Any], labels: npt.NDArray[np.bool_], drawn: Mapping[str, Histogram]
) -> dict[str, Any] | None:
    """Return what a page needs to say what another threshold would make of the test images."""
    judged = data["judged"]
    if not judged:
        return None
    scores, chart = np.array(judged["scores"]), drawn[judged["score"]]
    return {
        "score": judged["score"],
        "threshold": judged["threshold"],
        "review": None,
        "scores": scores[labels].tolist(),
        "good": scores[~labels].tolist(),
        "low": chart.low,
        "high": chart.high,
    }


def _judged(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the confusion matrix of a category and the rates of its kinds, in words."""
    if "confusion" not in record:
        return None
    confusion = record["confusion"]
    return {
        "threshold": record["threshold"],
        "confusion": confusion,
        "found": rate_in_words(confusion),
        "false_alarms": rate_in_words(confusion, "false_alarm"),
        "kinds": [
            (kind, own["found_rate"], rate_in_words(own)) for kind, own in record["kinds"].items()
        ],
    }


def _images(results: Results) -> dict[str, Any]:
    """Return the table of whole images."""
    columns, records = image_columns_of(results), results["categories"]
    judged = {name: _judged(record) for name, record in records.items()}
    return {
        "columns": [IMAGE_TITLES[one] for one in columns],
        "rows": [
            (name, [record.get(one) for one in columns], judged[name])
            for name, record in records.items()
        ],
        "mean": [results["mean"].get(one) for one in columns],
        "rates": results["mean"].get("confusion"),
        "said": judged_by(results),
    }


def _shown(card: Mapping[str, Any], folder: str, score: str, limit: float | None) -> dict[str, Any]:
    """Return a card as the page's templates and script take it."""
    said = (
        []
        if limit is not None
        else [
            "Blue: where maps are highest, on one scale here; without masks there is no threshold."
        ]
    )
    if card["paths"]["outline"]:
        said.append("White line: the map at the threshold that gives the best F1 of the pixels.")
    if card["paths"]["truth"]:
        said.append("Blue dashed line: the defect, as the ground truth has it.")
    return {
        **card,
        "name": within(card["name"], folder),
        "score": card["scores"][score],
        "regions": [],
        "more": 0,
        "said": said or ["No line: nothing to outline."],
    }


def _sweep(results: Results) -> dict[str, Any] | None:
    """Return the means of each point of a sweep as the table of a page."""
    points = results.get("sweep")
    if not points:
        return None
    columns = columns_of(points[0])
    return {
        "axes": list(points[0]["options"]),
        "columns": [TITLES[one] for one in columns],
        "rows": [
            (list(point["options"].values()), [point["mean"].get(one) for one in columns])
            for point in points
        ],
    }
