"""Table 4 measured beside published, on any video laid out as ShanghaiTech Campus.

    python benchmarks/compare.py stc ROOT [--method MemAE …] [--scene 01 …] [--out DIR] [--json]

Every method of `VIDEO_METHODS` in `benchmarks/baselines` learns from each scene's training videos
and scores all frames of its test clips. ROCAUC is over all frames of a scene as they are, and, by
another name, of scores that are brought to 0…1 within each clip, as `spade-faiss evaluate stc` has
both. `DIR` gets `table.md`, `results.json`, each frame's score in `frames`, and in
`checkpoints` the networks that were trained. A call that was stopped is taken up by the same call.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from baselines import VIDEO_METHODS, VideoMethod
from baselines.video import Footage
from comparison import Clock, add_options, check_options, config_of, note, percent, rounded
from machine import processor
from tqdm import tqdm

from spade_faiss._support.files import replace_file
from spade_faiss.datasets import Clip, Scene, load_stc, published_stc
from spade_faiss.errors import SpadeError
from spade_faiss.evaluation import Scores, results_of
from spade_faiss.evaluation.columns import markdown
from spade_faiss.evaluation.record import Messages, Record, key_of
from spade_faiss.evaluation.scores import ranking_metrics
from spade_faiss.evaluation.stc import normalised
from spade_faiss.evaluation.store import ResultStore
from spade_faiss.features import Backbone, load_backbone
from spade_faiss.images import Frame, OnError, read_image
from spade_faiss.images.video import read_frames
from spade_faiss.images.video.open import nominal_step, opened
from spade_faiss.metrics import image_rocauc

Results = Mapping[str, Mapping[str, Any]]
"""What `results.json` holds of each method."""

NORMALISED = "image_rocauc_normalised_clips"
_FIGURES = {"image_rocauc": "ROCAUC", NORMALISED: "normalised within clips"}
_SECONDS = {
    "fit_seconds": "fit, s",
    "fit_cpu_seconds": "fit, CPU s",
    "frame_seconds": "a frame, s",
    "frame_cpu_seconds": "a frame, CPU s",
}
_KEPT = *_FIGURES, *_SECONDS, "n_train", "n_test", "fit_from_step"
"""A method has one score a frame, so what else `Scores` holds says nothing more."""
_PUBLISHED = {"AE2D": "AE(2D)"}
"""What Table 4 calls a method, where it is not the same."""


def footage_of(scene: Scene) -> tuple[list[Footage], list[Footage]]:
    """Return a scene's training videos and its test clips.

    Frames of clips, which have no times, are taken to follow each other as fast as those of the
    first training video.
    """
    with opened(str(scene.videos[0])) as (_, stream, _):
        step = nominal_step(stream)
    train = [Footage(path.name, partial(read_frames, path)) for path in scene.videos]
    return train, [Footage(clip.name, partial(_frames, clip, step)) for clip in scene.clips]


def _frames(clip: Clip, step: float) -> Iterator[Frame]:
    for number, path in enumerate(clip.frames):
        yield Frame(str(path), read_image(path), number * step)


def evaluate(method: VideoMethod, scene: Scene, table: Path) -> Scores:
    """Fit a method on a scene's training videos, and score its test clips frame by frame.

    Seconds are those of `fit` and, by their median over the clips, of a frame; both with decoding.
    """
    train, clips = footage_of(scene)
    clock = Clock()
    method.fit(train)
    fit = clock.read()
    scores: list[float] = []
    times = []
    for clip, known in zip(
        tqdm(clips, "judging", disable=None, leave=False), scene.clips, strict=True
    ):
        clock = Clock()
        found = method.scores(clip)
        times.append([seconds / len(found) for seconds in clock.read()])
        if len(found) != len(known.labels) or not np.isfinite(found).all():
            raise SpadeError(f"{clip.name}: {len(found)} scores for {len(known.labels)} frames")
        scores += found.tolist()
    labels = [label for clip in scene.clips for label in clip.labels]
    names = [clip.name for clip in scene.clips for _ in clip.frames]
    _write(table, scene, scores)
    walls, cpus = zip(*times, strict=True)
    by_score = image_rocauc(scores, labels)
    return Scores(
        by_score,
        by_score,
        None,
        None,
        sum(1 for clip in train for _ in clip),
        len(labels),
        round(
            fit[0]
            + sum(wall * len(clip.frames) for wall, clip in zip(walls, scene.clips, strict=True)),
            3,
        ),
        extra={
            NORMALISED: image_rocauc(normalised(scores, names), labels),
            "fit_seconds": round(fit[0], 3),
            "fit_cpu_seconds": round(fit[1], 3),
            "frame_seconds": round(median(walls), 5),
            "frame_cpu_seconds": round(median(cpus), 5),
            "fit_from_step": method.taken_up,
        },
        **ranking_metrics(scores, scores, scores, labels),
    )


def _write(table: Path, scene: Scene, scores: Sequence[float]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "clip", "label", "score"])
    rows = (
        (path, clip.name, int(label))
        for clip in scene.clips
        for path, label in zip(clip.frames, clip.labels, strict=True)
    )
    for row, score in zip(rows, scores, strict=True):
        writer.writerow([*row, f"{score:.9g}"])
    table.parent.mkdir(parents=True, exist_ok=True)
    replace_file(table, text.getvalue().encode("utf-8", "surrogateescape"))


def compare(
    scenes: Sequence[Scene],
    names: Sequence[str],
    network: Backbone,
    args: argparse.Namespace,
    on_error: OnError,
) -> Results:
    """Evaluate methods one after another, and leave the table of those finished so far."""
    every: dict[str, Mapping[str, Any]] = {}
    for name in names:
        config = config_of(name, VIDEO_METHODS[name], network, args.budget, args.seed)
        for scores in evaluated(scenes, name, network, config, args.out, on_error):
            every[name] = _results(config, scores)
            replace_file(args.out / "results.json", (json.dumps(every, indent=1) + "\n").encode())
            replace_file(args.out / "table.md", table(every).encode())
            if args.json:
                print(_line(name, every[name], list(scores)[-1]), flush=True)
    if not every:
        raise SpadeError("nothing could be evaluated")
    return every


def evaluated(
    scenes: Sequence[Scene],
    name: str,
    network: Backbone,
    config: Mapping[str, Any],
    out: Path,
    on_error: OnError,
) -> Iterator[dict[str, Scores]]:
    """Yield a method's scores of the scenes that are finished, one more each time."""
    make = VIDEO_METHODS[name]
    scores: dict[str, Scores] = {}
    with ResultStore(out / "runs" / name) as store:
        for scene in scenes:
            key = key_of(config, scene.files)
            frames = out / "frames" / name / f"{scene.name}.csv"
            record, why = store.find(scene.name, key, outputs=[frames])
            if why:
                note(f"{scene.name} is evaluated anew: {why}")
            if record is None:
                kept = out / "checkpoints" / name / f"{scene.name}.safetensors"
                method = make(network, make.budgets[config["budget"]], config["seed"], kept)
                messages = Messages(on_error, note)
                try:
                    found = evaluate(method, scene, frames)
                except SpadeError as error:
                    on_error(f"{name}, scene {scene.name}", f"{error}; left out")
                    continue
                record = Record(key, messages.problems, messages.notes, [found], None)
                store.keep(scene.name, record)
            scores[scene.name] = record.scores[0]
            yield dict(scores)


def _results(config: Mapping[str, Any], scores: Mapping[str, Scores]) -> dict[str, Any]:
    results = results_of("stc", config, scores)
    for record in (results["mean"], *results["categories"].values()):
        for name in record.keys() - {*_KEPT}:
            del record[name]
    return results


def _line(name: str, results: Mapping[str, Any], scene: str) -> str:
    config = results["config"]
    told = ("budget", "setting", "backbone", "seed", "device", "threads")
    return json.dumps(
        rounded(
            {
                "benchmark": "compare stc",
                "scene": scene,
                "method": name,
                **results["categories"][scene],
                "published_shanghaitech": _published(name),
                **{key: config[key] for key in told},
                "processor": processor(),
            }
        )
    )


def _published(name: str) -> float | None:
    return published_stc().get(_PUBLISHED.get(name, name))


def table(every: Results) -> str:
    """Return all figures by method, averaged over the scenes that all have, as Markdown."""
    names = list(dict.fromkeys(of for run in every.values() for of in run["categories"]))
    whole = {method: run for method, run in every.items() if run["categories"].keys() >= {*names}}
    rows = [
        [
            method,
            *(percent(run["mean"][column]) for column in _FIGURES),
            percent(_published(method)),
            *(f"{run['mean'][column]:.3g}" for column in _SECONDS),
        ]
        for method, run in whole.items()
    ]
    config = next(iter(every.values()))["config"]
    return (
        "\n\n".join(
            [
                f"ROCAUC over all frames in percent, means over {len(names)} "
                f"{'scene' if len(names) == 1 else 'scenes'}: of scores as they are, and brought "
                "to 0…1 within each clip. Published: Table 4 of Cohen & Hoshen, 2020 (arXiv "
                "2005.02357), on ShanghaiTech Campus. Seconds are with decoding, a frame's by "
                f"their median over clips. Budget {config['budget']}, {config['device']}, "
                f"{config['threads']} threads, seed {config['seed']}.",
                markdown(["method", *_FIGURES.values(), "published", *_SECONDS.values()], rows),
            ]
        )
        + "\n"
    )


def main(arguments: Sequence[str]) -> int:
    """Compare methods; 0: all is done, 1: some was left out, 2: the call is wrong."""
    parser = argparse.ArgumentParser("compare.py stc", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "root", type=Path, metavar="ROOT", help="ShanghaiTech Campus, or laid out like it"
    )
    parser.add_argument("--scene", action="append", metavar="NAME", help="may be given again")
    add_options(parser, VIDEO_METHODS)
    args = parser.parse_args(arguments)
    problems: list[str] = []

    def on_error(name: str, why: str) -> None:
        problems.append(name)
        note(f"{name}: {why}")

    try:
        check_options(args)
        scenes = load_stc(args.root, args.scene, on_error, note)
        network = load_backbone(args.backbone, args.weights, args.device)
        every = compare(scenes, args.method or list(VIDEO_METHODS), network, args, on_error)
    except (SpadeError, OSError) as error:
        note(f"compare.py: {error}")
        return 2
    if not args.json:
        print(table(every), end="")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
