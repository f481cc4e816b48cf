"""Table 3 measured beside published, and PaDiM and PatchCore too, on any data laid out as MVTec AD.

    python benchmarks/compare.py ROOT [--method PaDiM …] [--category bottle …] [--out DIR] [--json]
    python benchmarks/compare.py stc ROOT [--method MemAE …] [--scene 01 …] [--out DIR] [--json]

With `stc` it is Table 4 on video, laid out as ShanghaiTech Campus is; see `compare_stc.py`.

Every method of `benchmarks/baselines` is fitted on each category's good images and judges its test
images, framed as the paper does (256, 224), on the same backbone and with the same metrics. `DIR`
gets `table.md`, `results.json`, and in `checkpoints` the networks that were trained. With --json,
one JSON object a method and category on standard output, otherwise the table.

A call that was stopped is taken up by the same call: a method's category that is finished is not
done again, and a training goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import compare_stc
import numpy as np
import numpy.typing as npt
from baselines import METHODS, Method
from comparison import Clock, add_options, check_options, config_of, note, percent, rounded

from spade_faiss._support.files import replace_file
from spade_faiss.datasets import Category, load_mvtec, published_mvtec
from spade_faiss.errors import SpadeError
from spade_faiss.evaluation import CategoryTruth, Scores, results_of
from spade_faiss.evaluation.columns import markdown
from spade_faiss.evaluation.record import Messages, Record, key_of
from spade_faiss.evaluation.scores import ranking_metrics
from spade_faiss.evaluation.store import ResultStore
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.images import Framing, Loaded, OnError, load_images
from spade_faiss.maps import power_mean
from spade_faiss.metrics import PixelMetrics, image_rocauc

Results = Mapping[str, Mapping[str, Any]]
"""What `results.json` holds of each method."""

FRAMING = Framing.choose(256, 224, (256, 256))
_COLUMNS = {
    "pro": "PRO",
    "pixel_rocauc": "pixel ROCAUC",
    "image_rocauc": "image ROCAUC",
    "image_rocauc_map_max": "image ROCAUC, map max",
    "image_rocauc_map_mean": "image ROCAUC, map mean",
}
_SECONDS = {
    "fit_seconds": "fit, s",
    "fit_cpu_seconds": "fit, CPU s",
    "image_seconds": "an image, s",
    "image_cpu_seconds": "an image, CPU s",
}


def evaluate(method: Method, category: Category, on_error: OnError) -> Scores:
    """Fit a method on a category's good images, and score its maps of the test images.

    Seconds are those of `fit` and, by their median, of an image's map; decoding is in neither.
    """

    def seen(one: Loaded) -> npt.NDArray[np.uint8]:
        return one.image if method.frames else one.wide

    good = [seen(one) for one in load_images(category.train, FRAMING, on_error)]
    if not good:
        raise SpadeError("no good image can be used")
    clock = Clock()
    method.fit(good)
    fit = clock.read()
    truth = CategoryTruth(category, FRAMING)
    pixels, times = PixelMetrics(), []
    masked = False
    scores: list[float] = []
    peaks: list[float] = []
    means: list[float] = []
    labels: list[bool] = []
    for loaded in load_images([test.path for test in category.test], FRAMING, on_error):
        known = truth.of(loaded.position, loaded.size)
        if known.problem:
            on_error(loaded.name, f"{known.problem}; it counts for image metrics alone")
        clock = Clock()
        found, score = method.map_and_score(seen(loaded))
        times.append(clock.read())
        if known.mask is not None:
            pixels.add(found, known.mask, loaded.name)
            masked = masked or known.anomalous
        scores.append(score)
        peaks.append(float(found.max()))
        means.append(power_mean(found))
        labels.append(known.anomalous)
    try:
        by_score, by_map = image_rocauc(scores, labels), image_rocauc(peaks, labels)
        of_pixels = pixels.compute() if masked else None
    except ValueError as error:
        raise SpadeError(f"no metric is defined: {error}") from None
    walls, cpus = zip(*times, strict=True)
    return Scores(
        by_score,
        by_map,
        of_pixels.pixel_rocauc if of_pixels else None,
        of_pixels.pro if of_pixels else None,
        len(good),
        len(labels),
        round(fit[0] + sum(walls), 3),
        extra={
            "fit_seconds": round(fit[0], 3),
            "fit_cpu_seconds": round(fit[1], 3),
            "image_seconds": round(median(walls), 4),
            "image_cpu_seconds": round(median(cpus), 4),
            "fit_from_step": method.taken_up,
        },
        **ranking_metrics(scores, peaks, means, labels),
    )


def compare(
    categories: Sequence[Category],
    names: Sequence[str],
    network: Backbone,
    budget: str,
    seed: int,
    out: Path,
    on_error: OnError,
    as_json: bool,
) -> Results:
    """Evaluate methods one after another, and leave the table of those finished so far."""
    every: dict[str, Mapping[str, Any]] = {}
    for name in names:
        config = config_of(name, METHODS[name], network, budget, seed)
        try:
            for scores in evaluated(categories, name, network, config, out, on_error):
                every[name] = results_of("mvtec", config, scores)
                replace_file(out / "results.json", (json.dumps(every, indent=1) + "\n").encode())
                replace_file(out / "table.md", table(every).encode())
                if as_json:
                    print(_line(name, every[name], list(scores)[-1]), flush=True)
        except SpadeError as error:
            on_error(name, str(error))
    if not every:
        raise SpadeError("nothing could be evaluated")
    return every


def evaluated(
    categories: Sequence[Category],
    name: str,
    network: Backbone,
    config: Mapping[str, Any],
    out: Path,
    on_error: OnError,
) -> Iterator[dict[str, Scores]]:
    """Yield a method's scores of the categories that are finished, one more each time."""
    make = METHODS[name]
    scores: dict[str, Scores] = {}
    with ResultStore(out / "runs" / name) as store:
        for category in categories:
            key = key_of(config, category.files, category.kinds)
            record, why = store.find(category.name, key)
            if why:
                note(f"{category.name} is evaluated anew: {why}")
            if record is not None:
                record.repeat(on_error, note)
            else:
                kept = out / "checkpoints" / name / f"{category.name}.safetensors"
                method = make(network, make.budgets[config["budget"]], config["seed"], kept)
                messages = Messages(on_error, note)
                try:
                    found = evaluate(method, category, messages.error)
                except SpadeError as error:
                    on_error(category.name, f"{error}; left out")
                    continue
                record = Record(key, messages.problems, messages.notes, [found], None)
                store.keep(category.name, record)
            scores[category.name] = record.scores[0]
            yield dict(scores)
    if not scores:
        raise SpadeError("nothing could be evaluated")


def _line(name: str, results: Mapping[str, Any], category: str) -> str:
    config, record = results["config"], results["categories"][category]
    told = ("budget", "setting", "backbone", "seed", "device", "threads")
    line = {
        "benchmark": "compare",
        "category": category,
        "method": name,
        **{key: value for key, value in record.items() if key not in ("stages", "seconds")},
        "published_pro": published_mvtec().get(category, {}).get(name),
        **{key: config[key] for key in told},
    }
    return json.dumps(rounded(line))


def table(every: Results) -> str:
    """Return PRO by category and method, then all figures by method, as Markdown."""
    published = published_mvtec()
    names = list(dict.fromkeys(of for run in every.values() for of in run["categories"]))
    rows = [
        [
            name,
            *(
                _pair(
                    run["categories"].get(name, {}).get("pro"), published.get(name, {}).get(method)
                )
                for method, run in every.items()
            ),
        ]
        for name in names
    ]
    whole = {method: run for method, run in every.items() if run["categories"].keys() >= {*names}}
    known = all(name in published for name in names)
    if len(names) > 1:
        # A mean over fewer categories is no mean of these.
        rows.append(
            [
                "mean",
                *(
                    _pair(
                        run["mean"].get("pro") if method in whole else None,
                        float(np.mean([published[name][method] for name in names]))
                        if known and method in published["average"]
                        else None,
                    )
                    for method, run in every.items()
                ),
            ]
        )
    figures = [
        [
            method,
            *(percent(run["mean"].get(column)) for column in _COLUMNS),
            *(f"{run['mean'][column]:.2f}" for column in _SECONDS),
        ]
        for method, run in whole.items()
    ]
    config = next(iter(every.values()))["config"]
    return (
        "\n\n".join(
            [
                "PRO in percent, to a false-positive rate of 0.3. In brackets: Table 3 of Cohen & "
                "Hoshen, 2020 (arXiv 2005.02357).",
                markdown(["category", *every], rows),
                f"Means over {len(names)} {'category' if len(names) == 1 else 'categories'}: "
                "metrics in percent, image ROCAUC by each method's own score; seconds, an image's "
                f"by their median. {config['backbone']}, budget "
                f"{config['budget']}, {config['device']}, {config['threads']} threads, seed "
                f"{config['seed']}.",
                markdown(["method", *_COLUMNS.values(), *_SECONDS.values()], figures),
            ]
        )
        + "\n"
    )


def _pair(measured: float | None, published: float | None) -> str:
    told = "" if published is None else f"({percent(published)})"
    return f"{percent(measured)} {told}".strip()


def main() -> int:
    """Compare methods; 0: all is done, 1: some was left out, 2: the call is wrong."""
    if sys.argv[1:2] == ["stc"]:
        return compare_stc.main(sys.argv[2:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root", type=Path, metavar="ROOT", help="MVTec AD, or laid out like it")
    parser.add_argument("--category", action="append", metavar="NAME", help="may be given again")
    add_options(parser, METHODS)
    args = parser.parse_args()
    problems: list[str] = []

    def on_error(name: str, why: str) -> None:
        problems.append(name)
        print(f"{name}: {why}", file=sys.stderr)

    try:
        check_options(args)
        categories = load_mvtec(args.root, args.category, on_error)
        network = load_backbone(args.backbone, args.weights, args.device)
        every = compare(
            categories,
            args.method or list(METHODS),
            network,
            args.budget,
            args.seed,
            args.out,
            on_error,
            args.json,
        )
    except (SpadeError, OSError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    if not args.json:
        print(table(every), end="")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
