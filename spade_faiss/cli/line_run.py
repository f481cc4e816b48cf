"""Judge what comes, from a folder or a live source, until it is asked to end."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import TYPE_CHECKING, Any

from .._support.text import json_text
from ..detector import Detector, open_detector
from ..errors import SpadeError
from ..features import Backbone
from ..images.video.live import LiveSource, check_source, shown_source
from ..line import (
    CurrentIndex,
    Files,
    Ledger,
    Pace,
    Recorder,
    Span,
    Watch,
    check_place,
    judge_live,
    source_of,
)
from ..pictures.drawing import check_side
from ..verdict.judge import check_limits
from . import show
from .console import Console, in_flags
from .notify import notifier_of
from .values import overlay_side

if TYPE_CHECKING:
    from .options import NotifyOptions
    from .query_options import PaceOptions, QueryOptions, SpanOptions, VideoOptions, WatchOptions


@dataclass
class LineRun:
    """Judges what comes with the same options until SIGTERM, Ctrl-C or the end.

    `counts` has how many images there were of each verdict.
    """

    console: Console
    options: WatchOptions | QueryOptions
    notify: NotifyOptions
    as_json: bool
    counts: dict[str, int] = field(default_factory=dict, init=False)

    def watch(self, index: Path, folder: Path, out: Path, pace: PaceOptions) -> None:
        """Watch a folder."""
        checked = Pace(**asdict(pace))
        check_place(folder, index, out)
        with self._ready(index, out, source_of(folder), folder) as (current, ledger, recorder):
            before = f", {show.counted(len(ledger))} judged before" if len(ledger) else ""
            self._say(f"watching {folder}{before}; Ctrl-C ends it")
            with ended_by_signals() as stop:
                Watch(folder, current, ledger, recorder, checked, self._say).run(stop)

    def live(
        self,
        index: Path,
        sources: Sequence[str],
        out: Path,
        span: SpanOptions,
        video: VideoOptions,
        unfit: Mapping[str, object],
    ) -> None:
        """Judge a live source's frames; `unfit` are options that do nothing of these."""
        for name, value in unfit.items():
            if value:
                raise SpadeError(f"`{name}` does nothing of a camera or a stream: leave it out")
        if len(sources) > 1:
            raise SpadeError("a camera or a stream is queried alone: name one, and no files")
        checked = Span(**asdict(span), **asdict(video))
        (source,) = sources
        check_source(source)
        check_place(None, index, out)
        name = shown_source(source)
        with self._ready(index, out, name, None) as (current, _, recorder):
            motion = current.detector.settings.motion
            reader = LiveSource(source, motion=motion, say=self._say)
            self._say(f"watching {name}; Ctrl-C ends it")
            with ended_by_signals() as stop, reader:
                judge_live(reader, current, recorder, checked, stop)
            self._say(f"{reader.came} frames came, {sum(self.counts.values())} were judged")

    @contextmanager
    def _ready(
        self, index: Path, out: Path, source: str, folder: Path | None
    ) -> Iterator[tuple[CurrentIndex, Ledger, Recorder]]:
        """Give what judges and records, and at the end say what was done."""
        asked, files = self.options.verdict, self._files()
        check_limits(asked.threshold, asked.review, quantile=asked.quantile, least=-math.inf)
        current = CurrentIndex(index, lambda networks: self._open(index, networks), self._say)
        with (
            notifier_of(self.console, self.notify, out, again=False) as notifier,
            Ledger(out, source, folder, lasting=notifier is not None) as ledger,
        ):
            if ledger.mended:
                self._say(f"{out} ended in a part of a row, which is removed and written again")
            yield current, ledger, Recorder(ledger, files, notifier, self._tell, self._say)
        if not self.as_json:
            self.console.answer({}, show.counted_verdicts(self.counts, out), as_json=False)

    def _files(self) -> Files:
        asked = self.options.files
        side = overlay_side(asked.overlay_size)
        check_side(side)
        return Files(asked.maps, asked.overlays, side, asked.explain)

    def _open(self, folder: Path, networks: Sequence[Backbone]) -> Detector:
        options = self.options
        detector = open_detector(
            folder,
            networks=networks,
            exact=options.exact,
            search_params=options.search_params,
            **asdict(options.verdict),
            **options.opened.settings() | {"progress": False},
        )
        for note in detector.notes:
            self.console.say(f"note: {in_flags(note)}")
        return detector

    def _tell(self, event: dict[str, Any]) -> None:
        """Print what is said of an image.

        Raises
        ------
        SpadeError
            If nobody reads it any more.
        """
        verdict = event["verdict"]
        self.counts[verdict] = self.counts.get(verdict, 0) + 1
        line = (
            json_text(event)
            if self.as_json
            else show.verdict_line(event["verdict"], event["score"], event["path"])
        )
        try:
            print(line, flush=True)
        except BrokenPipeError:
            # The end of the process writes what is left, and must not fail once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SpadeError(
                f"nobody reads standard output any more, of {event['path']} and what comes after"
            ) from None

    def _say(self, text: str) -> None:
        self.console.say(in_flags(text))


@contextmanager
def ended_by_signals() -> Iterator[Event]:
    """Give an event that Ctrl-C and SIGTERM set, while a `with` block lasts."""
    stop = Event()
    if current_thread() is not main_thread():
        yield stop
        return

    def end(*_: object) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
