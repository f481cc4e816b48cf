"""The command line: options in, one call, files and lines out."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import platform
import signal
import sys
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from .._support.memory import is_shortage, limit_memory, parse_size
from .._support.text import printable as _printable
from .._support.warning import notes_to
from ..errors import SpadeError

_M_ARENA_MAX = -8  # of glibc's malloc.h

if TYPE_CHECKING:
    from ..detector import Detector
    from ..features import Backbone as Network
    from ..index import EnsembleManifest, Manifest
    from ..index.manifest import ByHand, Calibration

_Said = tuple[dict[str, Any], str]
"""What a command says: as JSON, and in words."""

# What a command needs is imported inside it: --help and mistakes answer at once, without torch.

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Learn from images of good parts; say which new image is wrong, where, and what the "
    "wrong place should have looked like.",
)
evaluate = typer.Typer(no_args_is_help=True, help="Score SPADE on a data set of known defects.")
app.add_typer(evaluate, name="evaluate", rich_help_panel=None)


class Score(StrEnum):
    """What an image's score is."""

    MAP = "map"
    DESCRIPTOR = "descriptor"


Backbone = Annotated[
    str,
    typer.Option(
        help="wide_resnet50_2, resnet18, resnet50, resnet101, efficientnet_lite0 or _lite1."
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(help="Checkpoint (.pth or .safetensors) instead of the published one."),
]
EachWeights = Annotated[
    list[Path] | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Checkpoint (.pth or .safetensors) instead of the published "
        "one. Of several networks, given once for each, in their order.",
    ),
]
Views = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Average with views of each image: flip, scale or flip,scale. "
        "--backbone may name several networks, too: a,b.",
    ),
]
Resize = Annotated[int, typer.Option(help="Shorter side after resizing, in pixels.")]
Crop = Annotated[
    str, typer.Option(help="Side of the centre crop in pixels, or 'none' for the whole frame.")
]
Preset = Annotated[
    str, typer.Option(help="paper, or best: more accurate than the paper's (see the README).")
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:1, …; several, cuda:0,cuda:1 or all, share the patches."
    ),
]
Store = Annotated[
    str, typer.Option(help="Keep patches as float32, or as float16 in half the space.")
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Never take more memory than this: 2GiB, 800MiB. What is mapped from "
        "files does not count. With --ray, this process and each worker may take as much; what Ray "
        "itself takes is not limited.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Work on a Ray cluster: HOST:PORT, auto for the one that runs here, or "
        "local for one of this machine alone.",
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(min=1, help="With --ray: worker processes.  [default: one a GPU or else a core]"),
]
Engine = Annotated[
    str, typer.Option(help="Exact search by: auto, faiss, screened (CPU) or triton (CUDA).")
]
Factory = Annotated[
    str | None,
    typer.Option(
        metavar="STRING",
        help="Search an approximate index of all patches instead, one a level, as "
        "faiss.index_factory names it: 'IVF256,Flat', HNSW32, 'OPQ8,PQ8', …",
    ),
]
Coreset = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Keep this share of the patches (0.1, say), chosen as in PatchCore, and "
        "search these whole.",
    ),
]
SearchParams = Annotated[
    str | None,
    typer.Option(
        metavar="STRING",
        help="How thoroughly the approximate index is searched: nprobe=16, efSearch=64, ….",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ImageScore = Annotated[
    Score,
    typer.Option(
        help="An image's score: its map's maximum, or the distance to the nearest descriptors."
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="An index.")]
Quantile = Annotated[
    float | None,
    typer.Option(
        help="Share of good images that the thresholds are to let pass.  [default: all but one in "
        "n + 1, of n images]",
        show_default=False,
    ),
]
DataSet = Annotated[Path, typer.Argument(metavar="ROOT", help="The data set's folder.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where the results go.")]
Nearest = Annotated[int, typer.Option("-k", min=1, help="Nearest images.")]
Kappa = Annotated[int, typer.Option(min=1, help="Nearest patches.")]
IndexNearest = Annotated[
    int | None, typer.Option("-k", min=1, help="Nearest images.  [default: the index's, 50]")
]
IndexKappa = Annotated[
    int | None, typer.Option(min=1, help="Nearest patches.  [default: the index's, 1]")
]
Threshold = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE", help="Call images over this score wrong, whatever threshold was drawn."
    ),
]
Review = Annotated[
    float | None,
    typer.Option(
        metavar="LOW",
        help="Call images REVIEW from this score to the threshold: a person is to look at them.",
    ),
]
IndexQuantile = Annotated[
    float | None, typer.Option(help="Share of good images to let pass.  [default: the index's]")
]
MaxFpr = Annotated[
    float,
    typer.Option(
        metavar="RATE",
        help="False-positive rate up to which PRO and sPRO are integrated; newer data "
        "sets' authors take 0.05.",
    ),
]
Report = Annotated[
    bool, typer.Option("--report", help="Also write report.html: all results on one page.")
]
SweepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="NAME=VALUES",
        help="Also score other values of k, kappa, sigma, levels or "
        "score: k=5,50 or levels=1+2+3,2+3. Given again, all combinations.",
    ),
]


def _version(asked: bool) -> None:
    if asked:
        print(f"spade-faiss {metadata.version('spade-faiss')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show where an error arose, and which search engine was chosen."
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that every command has."""


def _note(text: str) -> None:
    tqdm.write(f"spade-faiss: note: {_printable(text)}", file=sys.stderr)


class _Problems:
    """Names on standard error what could not be used, and what else is to be known, a line each."""

    def __init__(self) -> None:
        self.lines: list[dict[str, str]] = []
        self.notes: list[str] = []

    def __call__(self, name: str, why: str) -> None:
        self.lines.append({"path": name, "error": why})
        tqdm.write(f"spade-faiss: {_printable(name)}: {_printable(why)}", file=sys.stderr)

    def note(self, text: str) -> None:
        self.notes.append(text)
        _note(text)

    def warn(self, text: str) -> None:
        tqdm.write(f"spade-faiss: warning: {_printable(text)}", file=sys.stderr)

    def about(self, notes: Iterable[str], line: str = "") -> None:
        """Give the notes on an index."""
        for text in notes:
            self.note(f"{line}{text}")

    def record(self) -> dict[str, object]:
        """Return what `--json` says of all that."""
        return {"notes": self.notes, "errors": self.lines}

    def exit(self, done: bool = True) -> None:
        """End the command if something could not be used, or nothing could."""
        if not done:
            raise typer.Exit(2)
        if self.lines:
            raise typer.Exit(1)


@app.command()
def build(
    train_dir: Annotated[
        Path, typer.Argument(metavar="TRAIN_DIR", help="Folder of good images or videos.")
    ],
    index: Annotated[Path, typer.Option(metavar="DIR", help="Where the index goes.")],
    backbone: Backbone = "wide_resnet50_2",
    weights: EachWeights = None,
    resize: Resize = 256,
    crop: Crop = "224",
    k: Nearest = 50,
    kappa: Kappa = 1,
    views: Views = None,
    fps: Annotated[float, typer.Option(help="Frames to take of a second of video.")] = 1.0,
    quantile: Quantile = None,
    calibrated: Annotated[
        int,
        typer.Option(min=2, help="Good images, at most, that are scored to find the thresholds."),
    ] = 1000,
    preset: Preset = "paper",
    store: Store = "float32",
    engine: Engine = "auto",
    factory: Factory = None,
    coreset: Coreset = None,
    search_params: SearchParams = None,
    device: Device = "auto",
    batch_size: BatchSize = 8,
    max_memory: MaxMemory = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="One index for each folder in TRAIN_DIR, as DIR/<its name>. Each counts as "
            "soon as it is done; given again, all are built again.",
        ),
    ] = False,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    as_json: AsJson = False,
) -> None:
    """Build an index of good images, and find the thresholds by scoring each against the rest."""
    from ..distributed.cluster import executor_of, ray_executor, start_workers
    from ..images import SUFFIXES, find_images
    from ..images.video import VIDEO_SUFFIXES, is_video, open_sources
    from ..verdict.rates import percent
    from .each import each_line, lines_to_learn

    limit = _limit(max_memory, ray)
    problems = _Problems()
    spade = _detector(
        backbone,
        weights,
        views,
        device,
        k=k,
        kappa=kappa,
        resize=resize,
        crop=_crop(crop),
        quantile=quantile,
        calibrated=calibrated,
        preset=preset,
        store=store,
        engine=engine,
        factory=factory,
        coreset=coreset,
        search_params=search_params,
        batch_size=batch_size,
        progress=True,
    )

    def images_in(folder: Path) -> Iterable[Any]:
        found = find_images([_folder(folder)], problems, SUFFIXES | VIDEO_SUFFIXES, problems.note)
        if not found:
            raise SpadeError(f"{folder} holds no images (PNG, JPEG, BMP, TIFF, WebP) or videos")
        moving = any(is_video(one.path) for one in found)
        return open_sources(found, fps, problems) if moving else [one.path for one in found]

    def fit(spade: Detector, images: Iterable[Any], index: Path, line: str = "") -> _Said:
        spade.fit(images, index, on_error=problems)
        problems.about(spade.notes, line)
        n, threshold = len(spade.index_), spade.image_threshold
        rate = None if spade.quantile_ is None else round(1 - spade.quantile_, 12)
        return (
            {"index": str(index), "images": n, "threshold": threshold, "false_alarms": rate},
            f"{index}: {_images(n)}, "
            + (
                "no threshold"
                if threshold is None or rate is None
                else f"threshold {threshold:.4g}, which aims at {percent(rate)} of false alarms"
            ),
        )

    if each:
        names = lines_to_learn(_folder(train_dir), index)
        with start_workers(ray, ray_workers, device, limit) as actors:
            _ = spade.network  # once, for all lines
            said = each_line(
                names,
                lambda name: fit(
                    spade.unfitted().on(executor_of(actors, name)),
                    images_in(train_dir / name),
                    index / name,
                    f"{name}: ",
                ),
                lambda name, error: problems(name, _reason(error)),
                actors,
            )
        _print_lines(as_json, said, problems)
        problems.exit(bool(said))
    else:
        images = images_in(train_dir)
        with ray_executor(ray, ray_workers, device, limit) as executor:
            spade = spade.on(executor)
            record, text = fit(spade, images, index)
        _print(as_json, record | problems.record(), text)
    problems.exit()


@app.command()
def add(
    folder: Folder,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Good images, or folders of them.")
    ],
    weights: EachWeights = None,
    engine: Engine = "auto",
    device: Device = "auto",
    batch_size: BatchSize = 8,
    max_memory: MaxMemory = None,
    as_json: AsJson = False,
) -> None:
    """Add good images (files or folders) to an index, and find the thresholds anew."""
    from ..detector import open_detector
    from ..images import find_images

    _limit(max_memory)
    problems = _Problems()
    spade = open_detector(
        folder,
        weights=weights or (),
        engine=engine,
        device=device,
        batch_size=batch_size,
        progress=True,
    )
    found = find_images(images, problems, on_note=problems.note)
    if not found:
        raise SpadeError("there are no images to add")
    calibrated = spade.manifest.held_out
    added = spade.add([image.path for image in found], problems)
    _changed(folder, spade, "added", added, calibrated, problems, as_json)


@app.command()
def remove(
    folder: Folder,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Paths as `info --json` lists them, or ends of them."
        ),
    ],
    engine: Engine = "auto",
    max_memory: MaxMemory = None,
    as_json: AsJson = False,
) -> None:
    """Remove training images from an index by path, and find the thresholds anew."""
    from ..detector import open_detector

    _limit(max_memory)
    problems = _Problems()
    spade = open_detector(folder, engine=engine, progress=True)
    calibrated = spade.manifest.held_out
    removed = spade.remove(images, problems)
    _changed(folder, spade, "removed", removed, calibrated, problems, as_json)


@app.command()
def calibrate(
    folder: Folder,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGE...]",
            help="Good images (files or folders) that are not in the index. "
            "With --threshold or --review they may be left out.",
            show_default=False,
        ),
    ] = None,
    defects: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="A known defect, or a folder of them; may be given again."
        ),
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Share of good images that may be called wrong, 0.01 say.  "
            "[default: 1 in n + 1, of n images]",
        ),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE",
            help="Keep this threshold, and say what it does on the images; auto "
            "returns to the drawn one.",
        ),
    ] = None,
    review: Annotated[
        str | None,
        typer.Option(
            metavar="LOW",
            help="Keep as what is to be reviewed the scores from LOW to the threshold; "
            "none takes that back.",
        ),
    ] = None,
    score: ImageScore = Score.MAP,
    weights: EachWeights = None,
    engine: Engine = "auto",
    device: Device = "auto",
    batch_size: BatchSize = 8,
    as_json: AsJson = False,
) -> None:
    """Try an index on further good images, and choose the thresholds by them for query to use."""
    from ..detector import open_detector
    from ..images import find_images

    by_hand = threshold is not None or review is not None
    if by_hand and false_alarms is not None:
        raise SpadeError(
            "--false-alarms has the images choose the threshold; leave it out, or "
            "--threshold and --review"
        )
    if images and (threshold == "auto" or (review is not None and threshold is None)):
        raise SpadeError(
            "--threshold auto, and --review without --threshold VALUE, take no "
            "images: have them choose the threshold by calibrate without either"
        )
    set_to, low = _number("--threshold", threshold, "auto"), _number("--review", review, "none")
    problems = _Problems()
    good, bad = (
        find_images(some, problems, on_note=problems.note) for some in (images or (), defects or ())
    )
    if not good and (images or not by_hand):
        raise SpadeError("there are no good images to calibrate with")
    if defects and not bad:
        raise SpadeError(f"{defects[0]} holds no images of defects; leave out --defects")
    spade = open_detector(
        folder,
        weights=weights or (),
        score=score,
        engine=engine,
        device=device,
        batch_size=batch_size,
        progress=True,
    )
    paths, wrong = [image.path for image in good], [image.path for image in bad]
    if by_hand:
        if threshold is not None:
            spade.image_threshold = set_to
        if review is not None:
            spade.review = low
        report = spade.keep_threshold(paths or None, wrong or None, problems)
    else:
        report = spade.calibrate(paths, wrong or None, false_alarms=false_alarms, on_error=problems)
    how = "calibrated" if not by_hand else "set by hand" if spade.by_hand or low else "as drawn"
    tried = f" with {_images(report.good)} and {report.defects} defects" if good or bad else ""
    _print(
        as_json,
        {"index": str(folder), **asdict(report), "errors": problems.lines},
        f"{folder}: {how}{tried}\n{report.text()}",
    )
    problems.exit()


def _number(option: str, text: str | None, word: str) -> float | None:
    """Return the number that an option was given; None for the word that it may be instead."""
    if text is None or text == word:
        return None
    try:
        return float(text)
    except ValueError:
        raise SpadeError(f"{option} {text}: give a number, or '{word}'") from None


@app.command()
def info(
    folder: Folder,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file's checksum.")] = False,
    recall: Annotated[
        bool,
        typer.Option("--recall", help="Measure what the galleries of --factory or --coreset miss."),
    ] = False,
    search_params: Annotated[
        str | None,
        typer.Option(metavar="STRING", help="With --recall: search so.  [default: the index's]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an index holds, and whether it is whole."""
    from ..detector.thresholds import kept_notes
    from ..index import EnsembleManifest, Index, Manifest, damaged_files, is_ensemble
    from ..verdict.calibration import redraw_thresholds
    from ..verdict.notes import DEFAULT_K, index_notes

    damaged: list[str] = []
    if is_ensemble(folder):
        if recall:
            raise SpadeError(
                f"{folder} holds an ensemble: name one of its indices, such as "
                f"{folder / EnsembleManifest.read(folder).members[0].folder}"
            )
        ensemble = EnsembleManifest.read(folder)
        manifests = ensemble.manifests(folder)
        record = ensemble.model_dump()
        record["indices"] = [one.model_dump() for one in manifests]
        lines, first = _about_ensemble(ensemble, manifests), manifests[0]
        changed = kept_notes(ensemble.by_hand, ensemble.generation)
        if verify:
            record["damaged"] = damaged = ensemble.damaged(folder)
    else:
        first = manifest = redraw_thresholds(Manifest.read(folder))
        record, lines = manifest.model_dump(), _about(manifest)
        changed = kept_notes(manifest.by_hand, manifest.generation)
        if verify:
            record["damaged"] = damaged = damaged_files(folder, manifest)
    if recall and not damaged:
        from ..index.recall import measure_recall

        measured = measure_recall(Index.open(folder), search_params=search_params)
        record["recall"] = [asdict(one) for one in measured]
        lines.append("recall      of stored patches, each searched for without its own image's:")
        lines += [
            f"  level {one.level}   recall@1 {one.recall_at_1:.3f}, mean ratio of distances "
            + ("unknown" if one.mean_distance_ratio is None else f"{one.mean_distance_ratio:.4f}")
            + f" ({one.queries} queries); {one.patches} patches, {one.bytes / 2**20:.1f} MiB"
            for one in measured
        ]
    if verify and not damaged:
        lines.append("files       all whole")
    problems = _Problems()
    made = first.held_out or first.calibration
    drawn = not any(one.score == "map" and one.threshold is not None for one in first.by_hand)
    problems.about([*index_notes(first, made.k if made else DEFAULT_K, drawn=drawn), *changed])
    record["notes"] = problems.notes
    _print(as_json, record, "\n".join(lines))
    for line in damaged:
        print(f"spade-faiss: {line}; build the index again", file=sys.stderr)
    if damaged:
        raise typer.Exit(2)


def _about(manifest: Manifest) -> list[str]:
    """Return what `info` says of an index."""
    framing = manifest.framing
    size = sum(file.bytes for file in manifest.files)
    how = f"shorter side {framing.resize}, centre crop" if framing.crop else "whole frame"
    lines = [
        f"images      {len(manifest.images)}",
        f"backbone    {manifest.backbone.name} (weights {manifest.backbone.weights_sha256[:12]}…)",
        f"input       {framing.width} x {framing.height} pixels, {how}"
        + (", mirrored" if manifest.mirrored else ""),
        "levels      " + ", ".join(f"{v.height}x{v.width}x{v.channels}" for v in manifest.levels),
        f"size        {size / 2**20:.1f} MiB" + (f", {manifest.store}" if manifest.store else ""),
        f"created     {manifest.created}",
        f"thresholds  {_thresholds(manifest.calibration)}",
    ]
    if held := manifest.held_out:
        lines.append(
            f"calibrated  {held.created}, {_images(len(held.good.names))} and "
            f"{len(held.defects.names)} defects; thresholds now: map {held.pixel_threshold:.4g}, "
            f"descriptor {held.descriptor_threshold:.4g} ({_aim(held.quantile)})"
        )
    lines += _by_hand(manifest.by_hand)
    if manifest.gallery:
        lines.append(f"gallery     {manifest.gallery.describe()}")
    return lines


def _about_ensemble(ensemble: EnsembleManifest, manifests: list[Manifest]) -> list[str]:
    """Return what `info` says of an ensemble: what members have in common, and then each."""
    own = ("backbone", "input", "levels", "size", "gallery")
    lines = [
        f"ensemble    of {len(manifests)} members, whose standardised maps are averaged",
        f"images      {len(manifests[0].images)}",
        f"created     {ensemble.created}",
        f"thresholds  {_thresholds(ensemble.calibration)}",
        *_by_hand(ensemble.by_hand),
    ]
    for member, manifest in zip(ensemble.members, manifests, strict=True):
        lines.append(f"member      {member.folder}")
        lines += [f"  {line}" for line in _about(manifest) if line.startswith(own)]
    return lines


def _by_hand(kept: Iterable[ByHand]) -> list[str]:
    """Return what `info` says of thresholds that were set by hand."""
    lines = []
    for one in kept:
        parts = [] if one.threshold is None else [f"threshold {one.threshold:.4g} instead"]
        parts += [] if one.review is None else [f"review from {one.review:.4g}"]
        tried = [
            f"{count.over} of {count.n} {what} over it"
            for count, what in ((one.good, "good images"), (one.defects, "defects"))
            if count
        ]
        lines.append(f"by hand     {one.created}, {one.score}: " + ", ".join(parts + tried))
    return lines


def _thresholds(made: Calibration | None) -> str:
    if made is None or made.pixel_threshold is None or made.descriptor_threshold is None:
        return "none"
    return (
        f"map {made.pixel_threshold:.4g}, descriptor {made.descriptor_threshold:.4g} "
        f"({_aim(made.quantile)}; K = {made.k}, kappa = {made.kappa})"
        + (f" from {len(made.sample)} of the images" if made.sample else "")
    )


def _aim(quantile: float) -> str:
    from ..verdict.rates import percent

    return f"aim: {percent(1 - quantile)} of false alarms"


@app.command()
def query(
    folder: Folder,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE_OR_FOLDER...", help="Images, videos, or folders of them."),
    ],
    out: Out,
    k: IndexNearest = None,
    kappa: IndexKappa = None,
    quantile: IndexQuantile = None,
    threshold: Threshold = None,
    review: Review = None,
    score: ImageScore = Score.MAP,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Also write, for each wrong place, the good patch that it should resemble.",
        ),
    ] = False,
    report: Report = False,
    overlays: Annotated[bool, typer.Option(help="Write overlay pictures.")] = True,
    worst: Annotated[int, typer.Option(min=0, help="Frames of a video to write maps of.")] = 10,
    fps: Annotated[
        float | None, typer.Option(help="Frames to score of a second of video.  [default: all]")
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Search exactly among the nearest images, though the index was built with "
            "--factory or --coreset.",
        ),
    ] = False,
    search_params: Annotated[
        str | None,
        typer.Option(
            metavar="STRING",
            help="Search an approximate index so: nprobe=64.  [default: the index's]",
        ),
    ] = None,
    drift: Annotated[
        bool,
        typer.Option("--drift", help="Warn if good images look otherwise than those of calibrate."),
    ] = False,
    weights: EachWeights = None,
    engine: Engine = "auto",
    device: Device = "auto",
    batch_size: BatchSize = 8,
    max_memory: MaxMemory = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="Query each index DIR/<name> with the images in the folder <name> of the "
            "one folder that is given, into a folder <name> of --out.",
        ),
    ] = False,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    as_json: AsJson = False,
) -> None:
    """Say which images are wrong, and where: scores.csv, maps/, overlays/, explain/, timelines/."""
    from ..detector import open_detector
    from ..distributed.cluster import executor_of, ray_executor, start_workers
    from ..images import SUFFIXES, Found, find_images
    from ..images.video import VIDEO_SUFFIXES
    from ..report import discard_results, write_query
    from ..verdict.judge import ERROR, NG, OK, REVIEW, VERDICTS, check_limits
    from .each import each_line, holds_index, indexed_lines, lines_to_query

    limit = _limit(max_memory, ray)
    check_limits(threshold, review, quantile=quantile, least=float("-inf"))
    problems = _Problems()
    networks: list[Network] = []  # of the line before, which are mostly those of the next
    done: list[bool] = []

    def opened(folder: Path, images: list[Path]) -> tuple[list[Found], Detector]:
        found = find_images(images, problems, SUFFIXES | VIDEO_SUFFIXES, problems.note)
        if not found:
            raise SpadeError(
                "there are no images to query (PNG, JPEG, BMP, TIFF, WebP), nor videos"
            )
        spade = open_detector(
            folder,
            networks=networks,
            k=k,
            kappa=kappa,
            weights=weights or (),
            quantile=quantile,
            threshold=threshold,
            review=review,
            score=score,
            engine=engine,
            search_params=search_params,
            exact=exact,
            device=device,
            batch_size=batch_size,
            progress=True,
        )
        if spade.manifest.held_out and not (spade.held_out or spade.by_hand):
            problems.note(
                "the calibration is of other settings, so thresholds are drawn from the "
                "index's own images"
            )
        if drift:
            spade.drift((), ())  # whether it can be told is said before the work
        return found, spade

    def scored(found: list[Found], spade: Detector, out: Path, line: str = "") -> _Said:
        pairs: list[tuple[float, float]] = []  # of images alone: frames are not independent
        rows = write_query(
            spade,
            found,
            out,
            overlays=overlays,
            explain=explain,
            report=report,
            worst=worst,
            fps=fps,
            on_error=problems,
            on_note=problems.note,
            on_result=lambda result: pairs.append(
                (spade.score_of(result), result.descriptor_score)
            ),
        )
        problems.about(spade.notes, line)
        done.append(any(row.score is not None for row in rows))
        count = {word: sum(row.verdict == word for row in rows) for word in VERDICTS}
        wide = 5 if spade.review is None else 6
        lines = [
            f"{row.verdict:{wide}} {_figure(row.score)}  {_printable(row.path)}"
            for row in rows
            if row.map or row.verdict == ERROR
        ]  # of a video, only the worst frames
        to_review = "" if spade.review is None else f", {count[REVIEW]} REVIEW"
        summary = f"{_images(len(rows))}: {count[NG]} NG{to_review}, {count[OK]} OK"
        if count[ERROR]:
            summary += f", {count[ERROR]} could not be used"
        record: dict[str, object] = {"images": [asdict(row) for row in rows]}
        lines.append(f"{summary}; results in {out}")
        if drift:
            moved = spade.drift([pair[0] for pair in pairs], [pair[1] for pair in pairs])
            record["drift"] = asdict(moved)
            if moved.warned:
                problems.warn(f"{line}drift: {moved.text}")
            else:
                lines.append(f"drift: {moved.text}")
        return record, "\n".join(lines)

    if each:
        names = lines_to_query(_folder(folder), images)
        with start_workers(ray, ray_workers, device, limit) as actors:

            def work(name: str) -> _Said:
                found, spade = opened(folder / name, [images[0] / name])
                said = scored(found, spade.on(executor_of(actors, name)), out / name, f"{name}: ")
                if actors is None:  # else none is loaded here
                    networks[:] = [one.network for one in spade.members]
                return said

            said = each_line(
                names, work, lambda name, error: problems(name, _reason(error)), actors
            )
        for name in names if any(done) else ():
            if name not in said:  # what an earlier query said of it is no result of this one
                discard_results(out / name)
        _print_lines(as_json, said, problems)
    else:
        if not holds_index(folder) and (names := indexed_lines(folder)):
            raise SpadeError(
                f"{folder} holds no index, but its folders do ({', '.join(names)}): "
                "name one of them, or add --each to query them all"
            )
        found, spade = opened(folder, images)
        with ray_executor(ray, ray_workers, device, limit) as executor:
            spade = spade.on(executor)
            record, text = scored(found, spade, out)
        _print(as_json, record | problems.record(), text)
    problems.exit(any(done))


@app.command()
def serve(
    folder: Folder,
    host: Annotated[
        str, typer.Option(help="Where to listen; any but a loopback address needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="SPADE_FAISS_TOKEN",
            show_envvar=True,
            help="What clients must show as a bearer "
            "token. A list of processes shows options, but not the environment.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name that the service also goes by, such as a reverse proxy's; "
            "may be given again.",
        ),
    ] = None,
    max_mib: Annotated[int, typer.Option(min=1, help="MiB of a request.")] = 32,
    max_images: Annotated[int, typer.Option(min=1, help="Images of a request.")] = 16,
    max_megapixels: Annotated[
        int, typer.Option(min=1, help="Millions of pixels of a request's images together.")
    ] = 32,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Images accepted and not answered yet.")
    ] = 64,
    max_wait: Annotated[
        float,
        typer.Option(
            min=0, help="Milliseconds that an image waits for others to be queried with it."
        ),
    ] = 5,
    k: IndexNearest = None,
    kappa: IndexKappa = None,
    quantile: IndexQuantile = None,
    threshold: Threshold = None,
    review: Review = None,
    score: ImageScore = Score.MAP,
    weights: EachWeights = None,
    engine: Engine = "auto",
    search_params: SearchParams = None,
    device: Device = "auto",
    batch_size: BatchSize = 8,
) -> None:
    """Serve an index over HTTP, with a page to drop images on; needs the extra 'serve'."""
    from ..service import Limits, serve

    limits = Limits(
        bytes=max_mib << 20,
        images=max_images,
        pixels=max_megapixels * 1_000_000,
        queue=max_queue,
        batch=batch_size,
        wait=max_wait / 1000,
    )
    if not serve(
        folder,
        host=host,
        port=port,
        token=token,
        allow_hosts=allow_host or (),
        limits=limits,
        k=k,
        kappa=kappa,
        quantile=quantile,
        threshold=threshold,
        review=review,
        score=score,
        weights=weights or (),
        engine=engine,
        search_params=search_params,
        device=device,
    ):
        print("spade-faiss: ended before all requests were answered", file=sys.stderr)
        raise typer.Exit(1)


@evaluate.command("mvtec")
def evaluate_mvtec(
    root: DataSet,
    out: Out,
    category: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this category; may be given again."),
    ] = None,
    original_size: Annotated[
        bool,
        typer.Option(
            "--original-size",
            help="Score maps on the images' own grids, against untouched masks.  "
            "[default: masks resized and cropped like the images]",
        ),
    ] = False,
    max_fpr: MaxFpr = 0.3,
    threshold: Threshold = None,
    sweep: SweepOption = None,
    report: Report = False,
    backbone: Backbone = "wide_resnet50_2",
    weights: EachWeights = None,
    resize: Resize = 256,
    crop: Crop = "224",
    k: Nearest = 50,
    kappa: Kappa = 1,
    preset: Preset = "paper",
    store: Store = "float32",
    views: Views = None,
    engine: Engine = "auto",
    factory: Factory = None,
    coreset: Coreset = None,
    search_params: SearchParams = None,
    device: Device = "auto",
    batch_size: BatchSize = 8,
    max_memory: MaxMemory = None,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    as_json: AsJson = False,
) -> None:
    """MVTec AD, LOCO, AD 2 or VisA: results.json and table.md, beside the paper's Table 3."""
    from ..distributed.cluster import ray_executor
    from ..evaluation import evaluate_mvtec

    limit = _limit(max_memory, ray)
    problems = _Problems()
    root = _folder(root)
    spade = _detector(
        backbone,
        weights,
        views,
        device,
        k=k,
        kappa=kappa,
        resize=resize,
        crop=_crop(crop),
        preset=preset,
        store=store,
        engine=engine,
        factory=factory,
        coreset=coreset,
        search_params=search_params,
        batch_size=batch_size,
        progress=True,
    )
    spade.image_threshold = threshold
    with ray_executor(ray, ray_workers, device, limit) as executor:
        spade = spade.on(executor)
        results = evaluate_mvtec(
            spade,
            root,
            out,
            names=category,
            sweep=sweep or (),
            original_size=original_size,
            max_fpr=max_fpr,
            report=report,
            on_error=problems,
            on_note=problems.note,
        )
    _print(as_json, results, (out / "table.md").read_text().rstrip())
    problems.exit()


@evaluate.command("folder")
def evaluate_folder(
    out: Out,
    train: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Good images to learn from.")
    ] = None,
    good: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Other good images, to be judged.")
    ] = None,
    bad: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Defects to be judged; each folder in it is a kind of defect. May be given again.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of --good and --bad, a table of path,label: good, ok, normal "
            "or 0, or else a kind of defect. A column split (train or test) stands for --train.",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Masks of defects, for pixel metrics, by their images' paths within "
            "--bad or in the table; a name may end in _mask.",
        ),
    ] = None,
    original_size: Annotated[
        bool,
        typer.Option(
            "--original-size", help="Score maps on the images' own grids, against untouched masks."
        ),
    ] = False,
    max_fpr: MaxFpr = 0.3,
    threshold: Threshold = None,
    sweep: SweepOption = None,
    report: Report = False,
    backbone: Backbone = "wide_resnet50_2",
    weights: EachWeights = None,
    resize: Resize = 256,
    crop: Crop = "224",
    k: Nearest = 50,
    kappa: Kappa = 1,
    preset: Preset = "paper",
    store: Store = "float32",
    views: Views = None,
    engine: Engine = "auto",
    factory: Factory = None,
    coreset: Coreset = None,
    search_params: SearchParams = None,
    device: Device = "auto",
    batch_size: BatchSize = 8,
    max_memory: MaxMemory = None,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    as_json: AsJson = False,
) -> None:
    """Any folders of good images and defects, or a table of them; masks are not needed."""
    from ..datasets import load_folders, load_table
    from ..distributed.cluster import ray_executor
    from ..evaluation import evaluate_folder

    limit = _limit(max_memory, ray)
    problems = _Problems()
    if csv and not good and not bad:
        category = load_table(csv, train, masks, problems)
    elif train and good and bad and not csv:
        category = load_folders(train, good, bad, masks, problems)
    else:
        raise SpadeError(
            "name the images either with --train, --good and --bad, or with --csv "
            "(and --train, if the table has no column split)"
        )
    spade = _detector(
        backbone,
        weights,
        views,
        device,
        k=k,
        kappa=kappa,
        resize=resize,
        crop=_crop(crop),
        preset=preset,
        store=store,
        engine=engine,
        factory=factory,
        coreset=coreset,
        search_params=search_params,
        batch_size=batch_size,
        progress=True,
    )
    spade.image_threshold = threshold
    with ray_executor(ray, ray_workers, device, limit) as executor:
        spade = spade.on(executor)
        results = evaluate_folder(
            spade,
            category,
            out,
            sweep=sweep or (),
            original_size=original_size,
            max_fpr=max_fpr,
            report=report,
            on_error=problems,
            on_note=problems.note,
        )
    _print(as_json, results, (out / "table.md").read_text().rstrip())
    problems.exit()


@evaluate.command("stc")
def evaluate_stc(
    root: DataSet,
    out: Out,
    scene: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this scene; may be given again.")
    ] = None,
    fps: Annotated[
        float, typer.Option(help="Frames to learn from of a second of the training videos.")
    ] = 1.0,
    normalise_clips: Annotated[
        bool,
        typer.Option(
            "--normalise-clips",
            help="Also give the ROCAUC of scores brought to 0..1 within each "
            "clip, under a name of its own.",
        ),
    ] = False,
    max_fpr: MaxFpr = 0.3,
    sweep: SweepOption = None,
    report: Report = False,
    backbone: Backbone = "wide_resnet50_2",
    weights: Weights = None,
    resize: Resize = 256,
    crop: Crop = "224",
    k: Nearest = 1,
    kappa: Kappa = 1,
    preset: Preset = "paper",
    store: Store = "float32",
    engine: Engine = "auto",
    device: Device = "auto",
    batch_size: BatchSize = 8,
    max_memory: MaxMemory = None,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    as_json: AsJson = False,
) -> None:
    """ShanghaiTech Campus: results.json and table.md, beside the paper's Table 4."""
    from ..detector.spade import Spade
    from ..distributed.cluster import ray_executor
    from ..evaluation import evaluate_stc

    limit = _limit(max_memory, ray)
    problems = _Problems()
    root = _folder(root)
    spade = Spade(
        backbone,
        k,
        kappa,
        weights=weights,
        resize=resize,
        crop=_crop(crop),
        preset=preset,
        store=store,
        engine=engine,
        device=device,
        batch_size=batch_size,
        progress=True,
    )
    with ray_executor(ray, ray_workers, device, limit) as executor:
        spade = spade.on(executor)
        results = evaluate_stc(
            spade,
            root,
            out,
            names=scene,
            fps=fps,
            normalise_clips=normalise_clips,
            max_fpr=max_fpr,
            sweep=sweep or (),
            report=report,
            on_error=problems,
            on_note=problems.note,
        )
    _print(as_json, results, (out / "table.md").read_text().rstrip())
    problems.exit()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where all of it goes.")] = Path(
        "spade-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the images.")] = 0,
) -> None:
    """Make a small data set out of textures, then build, query and evaluate on it."""
    from .demo import run_demo

    for name, scores in run_demo(out, seed).items():
        print(
            f"{name}: PRO {scores.pro:.3f}, pixel ROCAUC {scores.pixel_rocauc:.3f}, image "
            f"ROCAUC {scores.image_rocauc:.3f} by descriptor, {scores.image_rocauc_map_max:.3f} "
            f"by map; report in {out / name / 'report.html'}"
        )
    print(f"what each wrong place should have looked like: {out}/*/explain/*/*.png")
    print(f"the whole table: {out / 'table.md'}")


def _changed(
    folder: Path,
    spade: Detector,
    verb: str,
    count: int,
    calibrated: object,
    problems: _Problems,
    as_json: bool,
) -> None:
    """Say what a change did, and that it dropped the calibration, if there was one and it did."""
    dropped = bool(calibrated and not spade.manifest.held_out)
    if dropped:
        problems.note(
            f"the calibration was of {folder} as it was, and is dropped: thresholds are "
            "drawn from its own images until you calibrate again"
        )
    problems.about(spade.notes)
    _print(
        as_json,
        {
            "index": str(folder),
            verb: count,
            "images": len(spade.index_),
            "threshold": spade.image_threshold,
            "calibration_dropped": dropped,
            **problems.record(),
        },
        f"{folder}: {count} {verb}, now {_images(len(spade.index_))}",
    )
    problems.exit(count > 0)


def _detector(
    backbone: str, weights: list[Path] | None, views: str | None, device: str, **settings: Any
) -> Detector:
    """Return what the options describe: one detector, or an ensemble."""
    from ..detector import Ensemble, Spade

    names = backbone.split(",")
    files: list[Path | None] = [*weights] if weights else [None] * len(names)
    if len(files) != len(names):
        raise SpadeError(
            f"--weights is given {len(files)} times and --backbone names {len(names)} "
            "networks: give it once for each, or not at all"
        )
    if len(names) == 1 and not views:
        return Spade(backbone, weights=files[0], device=device, **settings)
    return Ensemble.of(names, views.split(",") if views else (), files, device=device, **settings)


def _crop(text: str) -> int | None:
    if text.lower() == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise SpadeError(f"--crop {text}: give a number of pixels, or 'none'") from None


def _limit(text: str | None, ray: str | None = None) -> int | None:
    """Keep to a limit of memory, and return it; called once the libraries are there.

    With a cluster it is kept from when that runs: what is started before would inherit it.
    """
    size = None if text is None else parse_size(text)
    if size is not None and ray is None:
        limit_memory(size)
    return size


def _folder(path: Path) -> Path:
    if not path.exists():
        raise SpadeError(f"{path}: no such folder")
    if not path.is_dir():
        raise SpadeError(f"{path} is a file; name a folder")
    return path


def _print(as_json: bool, record: object, text: str) -> None:
    shown = text.encode("utf-8", "backslashreplace").decode()  # a path need not be Unicode
    print(json.dumps(record, indent=1) if as_json else shown)


def _print_lines(as_json: bool, said: dict[str, _Said], problems: _Problems) -> None:
    """Print what was said of each line."""
    _print(
        as_json,
        {"lines": {name: record for name, (record, _) in said.items()}, **problems.record()},
        "\n".join(text for _, text in said.values()),
    )


def _images(n: int) -> str:
    return f"{n} image" if n == 1 else f"{n} images"


def _figure(value: float | None) -> str:
    return f"{'' if value is None else f'{value:.4g}':>10}"


def main() -> None:
    """Run the command line: exit status 0 done, 1 some inputs failed, 2 not done."""
    # By itself Python has no handler for it: temporary files stay, and as the first process of a
    # container it is not ended at all.
    signal.signal(signal.SIGTERM, _terminate)
    # Importing torch makes a million objects that stay: to look through them for garbage again and
    # again, and once more at the end, takes 0.6 s, as long as to score seven images.
    gc.set_threshold(100_000)
    if platform.libc_ver()[0] == "glibc":  # would give each thread a heap, and keep 90 MB in them
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    status = run(sys.argv[1:])
    gc.freeze()
    sys.exit(status)


def _terminate(number: int, frame: object) -> None:
    os.write(2, b"spade-faiss: terminated\n")  # print() may have been interrupted itself
    sys.exit(128 + number)


def run(arguments: list[str]) -> int:
    """Run the command line, and return its exit status."""
    debug = "--debug" in arguments
    if debug:
        logging.basicConfig(format="spade-faiss: %(message)s")
        logging.getLogger("spade_faiss").setLevel(logging.DEBUG)
    try:
        rest = [argument for argument in arguments if argument != "--debug"]
        command = typer.main.get_command(app)
        with notes_to(_note):
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata, image by image
            return int(command.main(rest, "spade-faiss", standalone_mode=False) or 0)
    except KeyboardInterrupt:
        print("spade-faiss: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
            return 2
        if hasattr(error, "format_message"):  # what typer raises for a wrong call
            line = error.format_message()
            if line.startswith("Usage: "):  # no command was given, and this is all the help
                print(line, file=sys.stderr)
                return 2
            line = " ".join(line.split()) + " (see --help)"
        else:
            line = _reason(error)
        print(f"spade-faiss: {_printable(line)}", file=sys.stderr)
        return 2


def _reason(error: Exception) -> str:
    """Return in one line what went wrong."""
    if isinstance(error, SpadeError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if is_shortage(error):
        return "out of memory: lower --batch-size, --resize or -k, or raise --max-memory"
    first = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first} (run again with --debug to see where)"
