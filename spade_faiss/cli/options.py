"""The options of the command line: each type once, and records of those that commands share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class NotifyOn(StrEnum):
    """Which verdicts another program is told."""

    ALL = "all"
    NG = "ng"
    NOT_OK = "not-ok"


class Score(StrEnum):
    """What an image's score is."""

    MAP = "map"
    DESCRIPTOR = "descriptor"
    MEAN = "mean"


# Folders and results -----------------------------------------------------------------------

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="An index.")]
DataSet = Annotated[Path, typer.Argument(metavar="ROOT", help="The data set's folder.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where the results go.")]
Report = Annotated[
    bool, typer.Option("--report", help="Also write report.html: all results on one page.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

# The network -------------------------------------------------------------------------------

Backbone = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="wide_resnet50_2, resnet18, resnet50, resnet101, efficientnet_lite0 or _lite1; "
        "convnext_tiny, _small, _base or _large; with --weights dinov2_vits14, _vitb14 or _vitl14, "
        "each also with _reg; or timm:NAME or torchvision:NAME, of a library that is installed.",
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
Resize = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Shorter side after resizing, in pixels.  [default: 256; with --tile, as it is]",
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="See large pictures in overlapping squares of this side, at full resolution or that "
        "of --resize.",
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="What neighbouring tiles share, at least.  [default: an eighth of --tile]",
    ),
]
Region = Annotated[
    Path | None,
    typer.Option(
        metavar="MASK",
        help="Look only where this picture is white, of a camera that stands still. With build, "
        "auto proposes one, and --each takes a folder of them, too: LINE.png.",
    ),
]
Ignore = Annotated[
    Path | None,
    typer.Option(metavar="MASK", help="Look only where this picture is black."),
]
Crop = Annotated[
    str, typer.Option(help="Side of the centre crop in pixels, or 'none' for the whole frame.")
]
CropOrNone = Annotated[
    str | None,
    typer.Option(
        help="Side of the centre crop in pixels, or 'none' for the whole frame.  "
        "[default: 224; none for videos]"
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        help="paper; best: more accurate than the paper's; or video: sees motion, too "
        "(docs/presets.md)."
    ),
]
BuildPreset = Annotated[
    str | None,
    typer.Option(
        help="best, or paper: the published protocol (docs/presets.md).  "
        "[default: best, but paper with --factory or --coreset]"
    ),
]
Store = Annotated[
    str, typer.Option(help="Keep patches as float32, or as float16 in half the space.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")]

# The search --------------------------------------------------------------------------------

Nearest = Annotated[int, typer.Option("-k", min=1, help="Nearest images.")]
Kappa = Annotated[int, typer.Option(min=1, help="Nearest patches.")]
IndexNearest = Annotated[
    int | None, typer.Option("-k", min=1, help="Nearest images.  [default: the index's, 50]")
]
IndexKappa = Annotated[
    int | None, typer.Option(min=1, help="Nearest patches.  [default: the index's, 1]")
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
IndexSearchParams = Annotated[
    str | None,
    typer.Option(
        metavar="STRING",
        help="Search an approximate index so: nprobe=64.  [default: the index's]",
    ),
]
Exact = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Search exactly among the nearest images, though the index was built with "
        "--factory or --coreset.",
    ),
]

# The verdict -------------------------------------------------------------------------------

ImageScore = Annotated[
    Score | None,
    typer.Option(
        help="An image's score: its map's maximum, the distance to the nearest descriptors, or its "
        "map's power mean.  [default: the index's]"
    ),
]
NewScore = Annotated[
    Score | None,
    typer.Option(
        help="What images are judged by: their maps' maxima, the distances to the nearest "
        "descriptors, or their maps' power means.  [default: as --preset has it, or map]"
    ),
]
MinArea = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        min=1,
        help="Count only what a connected area of so many pixels of the image reaches: smaller hot "
        "spots are not wrong.  [default: 1]",
    ),
]
IndexMinArea = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        min=1,
        help="Count only areas of so many pixels of the image.  [default: the index's]",
    ),
]
Quantile = Annotated[
    float | None,
    typer.Option(
        help="Share of good images that the thresholds are to let pass.  [default: all but one in "
        "n + 1, of n images]",
        show_default=False,
    ),
]
IndexQuantile = Annotated[
    float | None, typer.Option(help="Share of good images to let pass.  [default: the index's]")
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
Drift = Annotated[
    bool,
    typer.Option("--drift", help="Warn if good images look otherwise than those of calibrate."),
]
MaxFpr = Annotated[
    float,
    typer.Option(
        metavar="RATE",
        help="False-positive rate up to which PRO and sPRO are integrated; newer data "
        "sets' authors take 0.05.",
    ),
]
Sweep = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="NAME=VALUES",
        help="Also score other values of k, kappa, sigma, levels or "
        "score: k=5,50 or levels=1+2+3,2+3. Given again, all combinations.",
    ),
]

# Where work runs ---------------------------------------------------------------------------

Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:1, …; several, cuda:0,cuda:1 or all, share the patches."
    ),
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
RayAddress = Annotated[
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


# Records: fields are named as the functions below the command line name their parameters.


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The networks of a new index, the part of an image that they see, and K and kappa."""

    backbone: Backbone = "wide_resnet50_2"
    weights: EachWeights = None
    resize: Resize = None
    crop: CropOrNone = None
    tile: Tile = None
    overlap: Overlap = None
    region: Region = None
    ignore: Ignore = None
    k: Nearest = 50
    kappa: Kappa = 1


@dataclass(frozen=True, kw_only=True)
class PatchOptions:
    """How patches of a new index are scaled, compared and stored, and what images are judged by."""

    preset: BuildPreset = None
    store: Store = "float32"
    score: NewScore = None
    min_area: MinArea = None


@dataclass(frozen=True, kw_only=True)
class ComparedOptions(PatchOptions):
    """The same where figures stand beside the paper's."""

    preset: Preset = "paper"


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How a new index is searched, and on which device."""

    engine: Engine = "auto"
    factory: Factory = None
    coreset: Coreset = None
    search_params: SearchParams = None
    device: Device = "auto"
    batch_size: BatchSize = 8


@dataclass(frozen=True, kw_only=True)
class OpenOptions:
    """The weights, engine and device that an index is opened with."""

    weights: EachWeights = None
    engine: Engine = "auto"
    device: Device = "auto"
    batch_size: BatchSize = 8

    def settings(self) -> dict[str, Any]:
        """Return them as `open_detector` takes them."""
        return asdict(self) | {"weights": self.weights or (), "progress": True}


@dataclass(frozen=True, kw_only=True)
class VerdictOptions:
    """What an image is compared with, and which scores are called wrong."""

    k: IndexNearest = None
    kappa: IndexKappa = None
    quantile: IndexQuantile = None
    threshold: Threshold = None
    review: Review = None
    score: ImageScore = None
    min_area: IndexMinArea = None


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """The Ray cluster that does the work, if one does."""

    ray: RayAddress = None
    ray_workers: RayWorkers = None


@dataclass(frozen=True, kw_only=True)
class NotifyOptions:
    """Where each verdict is sent, and how that is signed."""

    notify: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="SPADE_FAISS_NOTIFY",
            show_envvar=True,
            help="Send each verdict as JSON to http(s)://HOST/PATH, or, with the extra 'mqtt', to "
            "mqtt(s)://HOST/TOPIC; what cannot be sent now waits in --out.",
        ),
    ] = None
    notify_on: Annotated[
        NotifyOn, typer.Option(help="Send all verdicts, those that are NG, or all but OK.")
    ] = NotifyOn.ALL
    notify_secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Sign what is sent with the key in this file: 16 bytes or more."
        ),
    ] = None
