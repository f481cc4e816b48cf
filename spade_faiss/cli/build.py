"""Make an index, change it, and show its contents: `build`, `add`, `remove`, `info`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SpadeError
from . import show
from .console import Answer, Console
from .options import (
    AsJson,
    Engine,
    Folder,
    MaxMemory,
    NetworkOptions,
    OpenOptions,
    PatchOptions,
    Quantile,
    RayOptions,
    SearchOptions,
    Views,
)
from .region import (
    AUTO,
    nothing_is_built,
    proposal_record,
    propose_regions,
    proposed_place,
    regions_of_lines,
)
from .values import detector_for, existing_folder, memory_limit

if TYPE_CHECKING:
    from ..detector import Detector
    from ..distributed.workers import Workers
    from ..images import Source
    from ..images.roi import Roi
    from ..index import EnsembleManifest, Manifest


def build(
    console: Console,
    train_dir: Annotated[
        Path, typer.Argument(metavar="TRAIN_DIR", help="Folder of good images or videos.")
    ],
    *,
    index: Annotated[Path, typer.Option(metavar="DIR", help="Where the index goes.")],
    network: NetworkOptions,
    views: Views = None,
    fps: Annotated[float, typer.Option(help="Frames to take of a second of video.")] = 1.0,
    quantile: Quantile = None,
    calibrated: Annotated[
        int,
        typer.Option(min=2, help="Good images, at most, that are scored to find the thresholds."),
    ] = 1000,
    patches: PatchOptions,
    search: SearchOptions,
    max_memory: MaxMemory = None,
    each: Annotated[
        bool,
        typer.Option(
            "--each",
            help="One index for each folder in TRAIN_DIR, as DIR/<its name>. Each counts as "
            "soon as it is done; given again, all are built again.",
        ),
    ] = False,
    cluster: RayOptions,
    as_json: AsJson = False,
) -> None:
    """Build an index of good images, and find the thresholds by scoring each against the rest."""
    from ..distributed.cluster import ray_executor, start_workers
    from ..images.video.read import check_fps, find_sources, holds_videos
    from .each import production_lines_to_learn

    limit = memory_limit(max_memory, cluster.ray)
    check_fps(fps)
    if network.crop is None and holds_videos(existing_folder(train_dir)):
        network = replace(network, crop="none")  # things pass at the edges of a video, too
    names = production_lines_to_learn(existing_folder(train_dir), index) if each else None
    proposed: dict[str, Any] = {}
    if network.region == AUTO and network.ignore is None:

        def images_of(name: str | None) -> Iterable[Source]:
            folder = existing_folder(train_dir / name if name else train_dir)
            return find_sources(folder, fps, lambda name, why: None)

        proposals, agreed = propose_regions(console, images_of, index, names)
        mask = proposed_place(index) if each else proposals[None].mask
        proposed = proposal_record(proposals)
        if not agreed:
            record = {"index": None, **proposed, **console.record()}
            console.answer(record, nothing_is_built(mask), as_json=as_json)
            return
        network = replace(network, region=mask)
    regions = regions_of_lines(network.region, network.ignore, names) if names else {}
    detector = detector_for(
        replace(network, region=None, ignore=None) if each else network,
        patches,
        search,
        views,
        quantile=quantile,
        calibrated=calibrated,
    )
    motion = detector.settings.motion

    def images_in(folder: Path) -> Iterable[Source]:
        folder = existing_folder(folder)
        return find_sources(folder, fps, console.problem, console.note, motion=motion)

    if names is not None:
        with start_workers(cluster.ray, cluster.ray_workers, search.device, limit) as workers:
            answers = _fit_each(
                console,
                detector,
                workers,
                regions,
                lambda name: images_in(train_dir / name),
                index,
            )
        console.answer_lines(answers, proposed, as_json=as_json)
        console.exit(done=bool(answers))
        return
    images = images_in(train_dir)
    with ray_executor(cluster.ray, cluster.ray_workers, search.device, limit) as executor:
        record, text = _fit(console, detector.on(executor), images, index)
    console.answer(record | proposed | console.record(), text, as_json=as_json)
    console.exit()


def _fit_each(
    console: Console,
    detector: Detector,
    workers: Workers | None,
    regions: Mapping[str, Roi | None],
    images_of: Callable[[str], Iterable[Source]],
    index: Path,
) -> dict[str, Answer]:
    """Make the index of each production line, with the networks of one detector.

    `regions` are what is looked at, by the lines' names.
    """
    from ..distributed.cluster import executor_of
    from ..distributed.production_lines import each_production_line

    _ = detector.network  # once, for all lines

    def work(name: str) -> Answer:
        own = detector.unfitted().on(executor_of(workers, name))
        own = own.with_options(region=regions[name])
        return _fit(console, own, images_of(name), index / name, f"{name}: ")

    return each_production_line([*regions], work, console.failure, workers)


def _fit(
    console: Console, detector: Detector, images: Iterable[Source], index: Path, line: str = ""
) -> Answer:
    """Make an index, and return what there is to say of it."""
    expected = detector.estimate(images) if detector.settings.tile else None
    if expected:
        console.note(f"{line}{show.expected(expected)}")
    detector.fit(images, index, on_error=console.problem)
    console.note_each(detector.notes, line)
    n, threshold, quantile = len(detector.index_), detector.image_threshold, detector.quantile_
    rate = None if quantile is None else round(1 - quantile, 12)
    record = {"index": str(index), "images": n, "threshold": threshold, "false_alarms": rate}
    if expected:
        record["estimate"] = asdict(expected)
    return (
        record,
        show.built(index, n, threshold, rate),
    )


def add(
    console: Console,
    folder: Folder,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Good images, or folders of them.")
    ],
    *,
    opened: OpenOptions,
    max_memory: MaxMemory = None,
    as_json: AsJson = False,
) -> None:
    """Add good images (files or folders) to an index, and find the thresholds anew."""
    from ..detector import open_detector
    from ..images import find_images

    memory_limit(max_memory)
    detector = open_detector(folder, **opened.settings())
    found = find_images(images, console.problem, on_note=console.note)
    if not found:
        raise SpadeError("there are no images to add")
    calibrated = _is_calibrated(detector)
    added = detector.add([image.path for image in found], console.problem)
    _say_change(console, folder, detector, "added", added, calibrated=calibrated, as_json=as_json)


def remove(
    console: Console,
    folder: Folder,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Paths as `info --json` lists them, or ends of them."
        ),
    ],
    *,
    engine: Engine = "auto",
    max_memory: MaxMemory = None,
    as_json: AsJson = False,
) -> None:
    """Remove training images from an index by path, and find the thresholds anew."""
    from ..detector import open_detector

    memory_limit(max_memory)
    detector = open_detector(folder, engine=engine, progress=True)
    calibrated = _is_calibrated(detector)
    removed = detector.remove(images, console.problem)
    _say_change(
        console, folder, detector, "removed", removed, calibrated=calibrated, as_json=as_json
    )


def _is_calibrated(detector: Detector) -> bool:
    return detector.manifest.calibration_set is not None


def _say_change(
    console: Console,
    folder: Path,
    detector: Detector,
    verb: str,
    count: int,
    *,
    calibrated: bool,
    as_json: bool,
) -> None:
    """Say what a change did, and that it dropped the calibration, if there was one and it did."""
    n, dropped = len(detector.index_), calibrated and not _is_calibrated(detector)
    if dropped:
        console.note(
            f"the calibration was of {folder} as it was, and is dropped: thresholds are "
            "drawn from its own images until you calibrate again"
        )
    console.note_each(detector.notes)
    record = {
        "index": str(folder),
        verb: count,
        "images": n,
        "threshold": detector.image_threshold,
        "calibration_dropped": dropped,
        **console.record(),
    }
    console.answer(record, f"{folder}: {count} {verb}, now {show.counted(n)}", as_json=as_json)
    console.exit(done=count > 0)


def info(
    console: Console,
    folder: Folder,
    *,
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
    from ..detector.thresholds import record_notes, redrawn
    from ..index import EnsembleManifest, read_manifest

    manifest = read_manifest(folder)
    record: dict[str, Any]
    if isinstance(manifest, EnsembleManifest):
        if recall:
            raise SpadeError(
                f"{folder} holds an ensemble: name one of its indices, such as "
                f"{folder / manifest.members[0].folder}"
            )
        members = manifest.manifests(folder)
        manifest = redrawn(manifest, members[0])
        record = manifest.model_dump(by_alias=True) | {
            "indices": [one.described() | {"patches": one.patches} for one in members]
        }
        lines = show.ensemble_lines(manifest, members)
    else:
        manifest = redrawn(manifest, manifest)
        members = [manifest]
        record, lines = manifest.described(), show.index_lines(manifest)
        record["patches"] = manifest.patches
    damaged = _damaged_files(folder, manifest) if verify else []
    if verify:
        record["damaged"] = damaged
    if recall and not damaged:
        record["recall"], more = _recall(folder, search_params)
        lines += more
    if verify and not damaged:
        lines.append("files       all whole")
    console.note_each(record_notes(manifest, members[0]))
    record["notes"] = console.notes
    console.answer(record, "\n".join(lines), as_json=as_json)
    for line in damaged:
        console.say(f"{line}; build the index again")
    console.exit(done=not damaged)


def _damaged_files(folder: Path, manifest: Manifest | EnsembleManifest) -> list[str]:
    from ..index import EnsembleManifest, damaged_files

    if isinstance(manifest, EnsembleManifest):
        return manifest.damaged(folder)
    return damaged_files(folder, manifest)


def _recall(folder: Path, search_params: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the recall of an index's galleries as JSON and in words."""
    from ..index import Index
    from ..index.recall import measure_recall

    measured = measure_recall(Index.open(folder), search_params=search_params)
    return [asdict(one) for one in measured], show.recall_lines(measured)
