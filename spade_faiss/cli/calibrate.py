"""Choose the thresholds of an index by further images, or by hand: `calibrate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SpadeError
from . import show
from .console import Console, in_flags
from .options import AsJson, Folder, ImageScore, IndexMinArea, OpenOptions
from .values import number_or

if TYPE_CHECKING:
    from ..detector.calibrate import Report


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """What chooses the thresholds: images, or a person."""

    defects: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="A known defect, or a folder of them; may be given again."
        ),
    ] = None
    false_alarms: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Share of good images that may be called wrong, 0.01 say.  "
            "[default: 1 in n + 1, of n images]",
        ),
    ] = None
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE",
            help="Keep this threshold, and say what it does on the images; auto "
            "returns to the drawn one.",
        ),
    ] = None
    review: Annotated[
        str | None,
        typer.Option(
            metavar="LOW",
            help="Keep as what is to be reviewed the scores from LOW to the threshold; "
            "none takes that back.",
        ),
    ] = None
    score: ImageScore = None
    min_area: IndexMinArea = None
    opened: OpenOptions

    @property
    def by_hand(self) -> bool:
        """Whether a person chooses, and no image."""
        return self.threshold is not None or self.review is not None


def calibrate(
    console: Console,
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
    *,
    options: CalibrateOptions,
    as_json: AsJson = False,
) -> None:
    """Try an index on further good images, and choose the thresholds by them for query to use."""
    from ..images import find_images

    _check(options, images or ())
    limits = (
        number_or("auto", "--threshold", options.threshold),
        number_or("none", "--review", options.review),
    )
    good, bad = (
        [one.path for one in find_images(some, console.problem, on_note=console.note)]
        for some in (images or (), options.defects or ())
    )
    if not good and (images or not options.by_hand):
        raise SpadeError("there are no good images to calibrate with")
    if options.defects and not bad:
        raise SpadeError(f"{options.defects[0]} holds no images of defects; leave out --defects")
    how, report = _calibrated(console, folder, good, bad, options, limits)
    tried = f" with {show.counted(report.good)} and {report.defects} defects" if good or bad else ""
    console.answer(
        {
            "index": str(folder),
            **asdict(report),
            "notes": [*console.notes, *map(in_flags, report.notes)],
            "errors": console.problems,
        },
        f"{folder}: {how}{tried}\n{in_flags(report.text())}",
        as_json=as_json,
    )
    console.exit()


def _check(options: CalibrateOptions, images: Sequence[Path]) -> None:
    """Refuse options that have both images and a person choose, or neither."""
    if options.by_hand and options.false_alarms is not None:
        raise SpadeError(
            "--false-alarms has the images choose the threshold; leave it out, or "
            "--threshold and --review"
        )
    if images and options.by_hand and options.threshold in (None, "auto"):
        raise SpadeError(
            "--threshold auto, and --review without --threshold VALUE, take no "
            "images: have them choose the threshold by calibrate without either"
        )


def _calibrated(
    console: Console,
    folder: Path,
    good: Sequence[Path],
    bad: Sequence[Path],
    options: CalibrateOptions,
    limits: tuple[float | None, float | None],
) -> tuple[str, Report]:
    """Keep the limits that a person set, or have the good images choose; return which, and how."""
    from ..detector import open_detector

    detector = open_detector(
        folder, score=options.score, min_area=options.min_area, **options.opened.settings()
    )
    if not options.by_hand:
        return "calibrated", detector.calibrate(
            good, bad or None, false_alarms=options.false_alarms, on_error=console.problem
        )
    threshold, review = limits
    if options.threshold is not None:
        detector.image_threshold = threshold
    if options.review is not None:
        detector.review = review
    report = detector.keep_threshold(good or None, bad or None, console.problem)
    return "set by hand" if detector.by_hand or review is not None else "as drawn", report
