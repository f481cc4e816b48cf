"""Score the method on data sets of known defects: `evaluate mvtec`, `folder` and `stc`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SpadeError
from .console import Console, in_flags
from .options import (
    AsJson,
    Backbone,
    BatchSize,
    ComparedOptions,
    Crop,
    DataSet,
    Device,
    Engine,
    Ignore,
    Kappa,
    MaxFpr,
    MaxMemory,
    MinArea,
    Nearest,
    NetworkOptions,
    Out,
    Overlap,
    Preset,
    RayOptions,
    Region,
    Report,
    Resize,
    SearchOptions,
    Store,
    Sweep,
    Threshold,
    Tile,
    Views,
    Weights,
)
from .region import region_of
from .values import crop_side, detector_for, existing_folder, memory_limit

if TYPE_CHECKING:
    from ..datasets import Category
    from ..detector import Detector


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How a detector is made, and what is scored of it, with images of parts."""

    max_fpr: MaxFpr = 0.3
    threshold: Threshold = None
    sweep: Sweep = None
    report: Report = False
    network: NetworkOptions
    patches: ComparedOptions
    views: Views = None
    search: SearchOptions
    max_memory: MaxMemory = None
    cluster: RayOptions
    as_json: AsJson = False

    def settings(self) -> dict[str, Any]:
        """Return what is scored, as functions of `spade_faiss.evaluation` take it."""
        return {"sweep": self.sweep or (), "max_fpr": self.max_fpr, "report": self.report}


@dataclass(frozen=True, kw_only=True)
class VideoDetectorOptions:
    """How a detector of one network is made, for frames of videos."""

    backbone: Backbone = "wide_resnet50_2"
    weights: Weights = None
    resize: Resize = None
    crop: Crop = "none"
    tile: Tile = None
    overlap: Overlap = None
    region: Region = None
    ignore: Ignore = None
    k: Nearest = 20
    kappa: Kappa = 1
    preset: Preset = "paper"
    store: Store = "float32"
    min_area: MinArea = None
    engine: Engine = "auto"
    device: Device = "auto"
    batch_size: BatchSize = 8

    def settings(self) -> dict[str, Any]:
        """Return them as `Spade` takes them."""
        own = asdict(self)
        region = region_of(own.pop("region"), own.pop("ignore"))
        return own | {"crop": crop_side(self.crop), "region": region, "progress": True}


def evaluate_mvtec(
    console: Console,
    root: DataSet,
    *,
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
    options: EvaluateOptions,
) -> None:
    """MVTec AD, LOCO, AD 2 or VisA: results.json and table.md, beside the paper's Table 3."""
    from ..distributed.cluster import ray_executor
    from ..evaluation import evaluate_mvtec

    cluster = options.cluster
    limit = memory_limit(options.max_memory, cluster.ray)
    root = existing_folder(root)
    detector, device = _detector(options), options.search.device
    with ray_executor(cluster.ray, cluster.ray_workers, device, limit) as executor:
        results = evaluate_mvtec(
            detector.on(executor),
            root,
            out,
            names=category,
            original_size=original_size,
            **options.settings(),
            on_error=console.problem,
            on_note=console.note,
        )
    _answer(console, results, out, as_json=options.as_json)


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Where the images to learn from and to judge are, and their masks."""

    train: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Good images to learn from.")
    ] = None
    good: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Other good images, to be judged.")
    ] = None
    bad: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Defects to be judged; each folder in it is a kind of defect. May be given again.",
        ),
    ] = None
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of --good and --bad, a table of path,label: good, ok, normal "
            "or 0, or else a kind of defect. A column split (train or test) stands for --train.",
        ),
    ] = None
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Masks of defects, for pixel metrics, by their images' paths within "
            "--bad or in the table; a name may end in _mask.",
        ),
    ] = None


def evaluate_folder(
    console: Console,
    *,
    out: Out,
    images: FolderOptions,
    original_size: Annotated[
        bool,
        typer.Option(
            "--original-size", help="Score maps on the images' own grids, against untouched masks."
        ),
    ] = False,
    options: EvaluateOptions,
) -> None:
    """Any folders of good images and defects, or a table of them; masks are not needed."""
    from ..distributed.cluster import ray_executor
    from ..evaluation import evaluate_folder

    cluster = options.cluster
    limit = memory_limit(options.max_memory, cluster.ray)
    category = _category(console, images)
    detector, device = _detector(options), options.search.device
    with ray_executor(cluster.ray, cluster.ray_workers, device, limit) as executor:
        results = evaluate_folder(
            detector.on(executor),
            category,
            out,
            original_size=original_size,
            **options.settings(),
            on_error=console.problem,
            on_note=console.note,
        )
    _answer(console, results, out, as_json=options.as_json)


def evaluate_stc(
    console: Console,
    root: DataSet,
    *,
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
    sweep: Sweep = None,
    report: Report = False,
    options: VideoDetectorOptions,
    max_memory: MaxMemory = None,
    cluster: RayOptions,
    as_json: AsJson = False,
) -> None:
    """ShanghaiTech Campus: results.json and table.md, beside the paper's Table 4."""
    from ..detector import Spade
    from ..distributed.cluster import ray_executor
    from ..evaluation import evaluate_stc

    limit = memory_limit(max_memory, cluster.ray)
    root = existing_folder(root)
    spade = Spade(**options.settings())
    with ray_executor(cluster.ray, cluster.ray_workers, options.device, limit) as executor:
        results = evaluate_stc(
            spade.on(executor),
            root,
            out,
            names=scene,
            fps=fps,
            normalise_clips=normalise_clips,
            max_fpr=max_fpr,
            sweep=sweep or (),
            report=report,
            on_error=console.problem,
            on_note=console.note,
        )
    _answer(console, results, out, as_json=as_json)


def _detector(options: EvaluateOptions) -> Detector:
    """Return the detector, or the ensemble, that is to be scored."""
    detector = detector_for(options.network, options.patches, options.search, options.views)
    detector.image_threshold = options.threshold
    return detector


def _category(console: Console, images: FolderOptions) -> Category:
    """Read the images' places from folders, or from a table."""
    from ..datasets import load_folders, load_table

    train, good, bad, csv = images.train, images.good, images.bad, images.csv
    if csv and not good and not bad:
        return load_table(csv, train, images.masks, console.problem)
    if train and good and bad and not csv:
        return load_folders(train, good, bad, images.masks, console.problem)
    raise SpadeError(
        "name the images either with --train, --good and --bad, or with --csv "
        "(and --train, if the table has no column split)"
    )


def _answer(console: Console, results: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """Print the results, or their table, and end the command."""
    if notes := results.get("notes"):
        results = results | {"notes": [in_flags(note) for note in notes]}
    table = (out / "table.md").read_text("utf-8")
    console.answer(results, in_flags(table.rstrip()), as_json=as_json)
    console.exit()
