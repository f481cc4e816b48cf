"""Judge images as they come, and record each: its files, its message, its row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from ..detector import Detector
from ..detector.result import Result
from ..images import Frame
from ..notify import Notifier
from ..report.files import Row, write_image
from ..report.folder import BY_NAME
from ..verdict import judge_result
from ..verdict.judge import ERROR, NG, REVIEW
from .ledger import Judged, Ledger
from .scan import State
from .tell import Event, event_of

_WRITERS = 2
_SHOWN_REGIONS = 20
"""Of an image, in an event: the highest peaks."""

OnEvent = Callable[[Event], object]
"""Is given what is said of each image once its row is written."""


@dataclass(frozen=True)
class Files:
    """Which files are written of an image; see `spade_faiss.report.write_query`."""

    maps: bool = True
    overlays: bool = True
    overlay_size: int | None = None
    explain: bool = False


@dataclass(frozen=True)
class Arrived:
    """An image that is to be judged.

    Attributes
    ----------
    path : str
        Within its source.
    frame : Frame
        The image, and what it is called in rows.
    stem : Path
        What its files are called, without suffix.
    state, digest
        Of its file, as `Judged` has them.
    files : bool or None
        Whether its files are written; None if those of one that is not OK are.
    id : str
        What its verdict is known by: no other, also of the same file, has the same.
    """

    path: str
    frame: Frame
    stem: Path
    state: State
    digest: bytes
    files: bool | None = True
    id: str = field(default_factory=lambda: uuid4().hex)


class Recorder:
    """Judges images and records them, in their order.

    Of each image its files are written first, then what is said of it is noted, then its message
    is put on the queue, then its row into `scores.csv`, and then `on_event` is called. A process
    that is killed before the note judges the image again, and said nothing of it. One that is
    killed later has said it: the next one does the rest of the same, by `go_on`.

    Parameters
    ----------
    ledger : Ledger
    files : Files
    notifier : Notifier or None
    on_event : callable
    say : callable
        Is given a line on what is odd.
    """

    def __init__(
        self,
        ledger: Ledger,
        files: Files,
        notifier: Notifier | None,
        on_event: OnEvent,
        say: Callable[[str], object],
    ) -> None:
        self._ledger, self._files, self._notifier = ledger, files, notifier
        self._on_event, self._say = on_event, say
        self._said: set[str] = set()

    def go_on(self) -> None:
        """Finish what an earlier process has begun to record."""
        for event in self._ledger.go_on(self._tell):
            self._on_event(event)

    def judge(
        self, detector: Detector, images: Iterator[Arrived]
    ) -> Iterator[tuple[Arrived, Event]]:
        """Judge images by a detector, record them, and yield each whose row is written."""
        coming: list[Arrived] = []
        done: deque[tuple[Arrived, Future[_Outcome] | _Outcome]] = deque()
        failed: dict[str, str] = {}

        def frames() -> Iterator[Frame]:
            for one in images:
                coming.append(one)
                yield replace(one.frame, position=None)

        with ThreadPoolExecutor(_WRITERS) as pool:
            at = 0
            for result in detector.query(frames(), failed.__setitem__):
                while at < result.position:
                    done.append((coming[at], _failed(detector, coming[at], failed)))
                    at += 1
                done.append((coming[at], pool.submit(self._write, detector, result, coming[at])))
                coming[at] = _taken(coming[at])
                at += 1
                yield from self._record(done, all_of_them=len(done) > 4 * _WRITERS)
            for one in coming[at:]:
                done.append((one, _failed(detector, one, failed)))
            yield from self._record(done, all_of_them=True)

    def fail(self, detector: Detector, one: Arrived, why: str) -> None:
        """Record an image that cannot be used."""
        outcome = _failed(detector, one, {one.frame.name: why})
        for _ in self._record(deque([(one, outcome)]), all_of_them=True):
            pass

    def say_once(self, kind: str, text: str) -> None:
        """Say a line, the first of its kind."""
        if kind not in self._said:
            self._said.add(kind)
            self._say(text)

    def _record(
        self, done: deque[tuple[Arrived, Future[_Outcome] | _Outcome]], *, all_of_them: bool
    ) -> Iterator[tuple[Arrived, Event]]:
        """Record what is done, in order; wait for all of it if asked to."""
        outcomes: list[tuple[Arrived, _Outcome]] = []
        while done:
            one, outcome = done[0]
            if isinstance(outcome, Future):
                if not all_of_them and not outcome.done():
                    break
                outcome = outcome.result()
            outcomes.append((one, outcome))
            done.popleft()
        if not outcomes:
            return
        events = [outcome.event for _, outcome in outcomes]
        judged = [
            Judged(one.path, outcome.row, one.stem, one.state, one.digest)
            for one, outcome in outcomes
        ]
        self._ledger.add(judged, events, self._tell)
        for one, outcome in outcomes:
            for line in outcome.lines:
                self._say(line)
            self._on_event(outcome.event)
            yield one, outcome.event

    def _tell(self, events: Sequence[Event]) -> None:
        if self._notifier:
            self._notifier.put(events)

    def _write(self, detector: Detector, result: Result, one: Arrived) -> _Outcome:
        """Write an image's files, and return what is said of it."""
        finding = judge_result(detector, result, regions=False)
        wrong = finding.verdict in (NG, REVIEW)
        if wrong or self._files.explain:
            finding = judge_result(detector, result)
        row = Row(result.name, finding.score, finding.threshold, finding.verdict)
        lines: list[str] = []
        asked = self._files
        if one.files or (one.files is None and (wrong or not finding.verdict)):
            try:
                row = write_image(
                    result,
                    finding,
                    detector.index_,
                    one.stem,
                    self._ledger.folder,
                    maps=asked.maps,
                    overlay=asked.overlays,
                    overlay_size=asked.overlay_size,
                    explain=asked.explain,
                )
            except OSError as error:
                if error.errno not in BY_NAME:
                    raise
                lines.append(
                    f"{result.name}: is scored, but its files cannot be written: {error.strerror}"
                )
        regions = [
            {"box": region.box, "area": region.area, "peak": region.peak}
            for region in finding.regions[:_SHOWN_REGIONS]
        ]
        for note in result.notes:
            self.say_once(note.partition(":")[0], f"note: {result.name}: {note}")
        event = event_of(one.id, row, detector) | {"regions": regions, "notes": list(result.notes)}
        return _Outcome(row, event, lines)


@dataclass(frozen=True)
class _Outcome:
    """What is recorded of an image, and said of it."""

    row: Row
    event: Event
    lines: list[str]


def _failed(detector: Detector, one: Arrived, reasons: dict[str, str]) -> _Outcome:
    row = Row(one.frame.name, None, detector.image_threshold, ERROR)
    why = reasons.get(one.frame.name, "cannot be used")
    event = event_of(one.id, row, detector) | {"regions": [], "notes": [], "error": why}
    return _Outcome(row, event, [f"{row.path}: {why}"])


def _taken(one: Arrived) -> Arrived:
    """Return an image without its pixels, which its result has."""
    return replace(one, frame=Frame(one.frame.name, one.frame.image[:0]))
