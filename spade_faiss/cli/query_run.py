"""Query one index after another with the same options, and say what comes of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..detector import Detector, Result, open_detector
from ..distributed.cluster import executor_of
from ..distributed.production_lines import each_production_line
from ..errors import SpadeError
from ..features import Backbone
from ..images import SUFFIXES, Found, find_images
from ..images.video.read import VIDEO_SUFFIXES, check_fps
from ..line import tell_rows
from ..notify import Notifier
from ..pictures.drawing import check_side
from ..report import discard_results, write_query
from ..verdict.judge import check_limits
from . import show
from .console import Answer, Console
from .values import overlay_side

if TYPE_CHECKING:
    from ..distributed.workers import Workers
    from .query_options import QueryOptions, SpanOptions


@dataclass
class QueryRun:
    """Queries one index after another with the same options.

    `networks` are those of the index before, which are mostly those of the next; `scored` says
    whether there was an image that could be scored. `notifier` is told of each row.

    Raises
    ------
    SpadeError
        If an option means nothing, whichever index is opened.
    """

    console: Console
    options: QueryOptions
    span: SpanOptions
    networks: Sequence[Backbone] = ()
    notifier: Notifier | None = field(default=None, init=False)
    scored: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        asked = self.options.verdict
        check_limits(asked.threshold, asked.review, quantile=asked.quantile, least=-math.inf)
        check_fps(self.options.video.fps)
        check_side(overlay_side(self.options.files.overlay_size))
        if self.span.frames is not None or self.span.seconds is not None:
            raise SpadeError("`frames` and `seconds` end a camera or a stream, and none is given")

    def each(
        self, names: Sequence[str], folder: Path, images: Path, out: Path, workers: Workers | None
    ) -> dict[str, Answer]:
        """Query the index of each production line with the line's images."""

        def work(name: str) -> Answer:
            found, detector = self.open(folder / name, [images / name])
            detector = detector.on(executor_of(workers, name))
            answer = self.write(found, detector, out / name, f"{name}: ")
            if workers is None:  # else none is loaded here
                self.networks = [one.network for one in detector.members]
            return answer

        answers = each_production_line(names, work, self.console.failure, workers)
        if self.scored:
            for name in names:
                if name not in answers:  # results of an earlier query are no results of this one
                    discard_results(out / name)
        return answers

    def open(self, folder: Path, images: Sequence[Path]) -> tuple[list[Found], Detector]:
        """Find the images, and open the index."""
        console, options = self.console, self.options
        found = find_images(images, console.problem, SUFFIXES | VIDEO_SUFFIXES, console.note)
        if not found:
            raise SpadeError(
                "there are no images to query (PNG, JPEG, BMP, TIFF, WebP), nor videos"
            )
        detector = open_detector(
            folder,
            networks=self.networks,
            # Without a mark of review, where the work runs; such a mark is checked by them here.
            calibrate=options.verdict.review is not None,
            exact=options.exact,
            search_params=options.search_params,
            **asdict(options.verdict),
            **options.opened.settings(),
        )
        if options.drift:
            detector.drift((), ())  # whether it can be told is said before the work
        return found, detector

    def write(
        self, found: Sequence[Found], detector: Detector, out: Path, line: str = ""
    ) -> Answer:
        """Write the results of images, and return what there is to say of them."""
        console = self.console
        detector.draw_missing_thresholds()
        scores: list[float] = []  # of images alone: the frames of a video are not independent
        descriptor_scores: list[float] = []

        def keep(result: Result) -> None:
            scores.append(detector.score_of(result))
            descriptor_scores.append(result.descriptor_score)

        rows = write_query(
            detector,
            found,
            out,
            **asdict(self.options.files)
            | {"overlay_size": overlay_side(self.options.files.overlay_size)},
            **asdict(self.options.video),
            report=self.options.report,
            on_error=console.problem,
            on_note=console.note,
            on_result=keep,
            on_rows=tell_rows(self.notifier, detector) if self.notifier else None,
        )
        console.note_each(detector.notes, line)
        self.scored = self.scored or any(row.score is not None for row in rows)
        record: dict[str, object] = {"images": [asdict(row) for row in rows]}
        lines = show.query_lines(rows, out, detector.review)
        if self.options.drift:
            moved = detector.drift(scores, descriptor_scores)
            record["drift"] = asdict(moved)
            if moved.warned:
                console.warn(f"{line}drift: {moved.text}")
            else:
                lines.append(f"drift: {moved.text}")
        return record, "\n".join(lines)
