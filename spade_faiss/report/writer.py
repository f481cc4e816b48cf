"""Queries images and videos, and writes the files of each as its result comes."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from ..detector import Detector
from ..detector.result import Result
from ..errors import SpadeError
from ..images import Found, Frame, OnError, report_problem
from ..images.video import is_video, read_frames
from ..pictures.encode import as_png
from ..verdict import judge_result
from ..verdict.judge import ERROR
from ..verdict.notes import BatchNotes
from .files import PassingFrame, Row, as_csv, write_image
from .folder import BY_NAME, ResultFolder
from .plots import timeline_picture

if TYPE_CHECKING:
    from .query_page import QueryReport

_WRITERS = min(8, max(2, os.cpu_count() or 1))


@dataclass
class QueryWriter:
    """Queries and writes one thing after another.

    Attributes
    ----------
    detector : Detector
    out : ResultFolder
    maps, overlays, explain : bool
        Whether to write an image's map, its overlay, and the explanation of its regions.
    overlay_size : int or None
        Pixels of the longer side of the image in its overlay; None for its own.
    page : QueryReport or None
        Is given what is found, too.
    on_error : callable or None
        Called with (name, why) for what cannot be used.
    rows : list of Row
        What was done so far.
    noted : BatchNotes
        The notes of images.
    on_rows : callable or None
        Is given rows as they come.
    """

    detector: Detector
    out: ResultFolder
    maps: bool
    overlays: bool
    overlay_size: int | None
    explain: bool
    page: QueryReport | None
    on_error: OnError | None
    rows: list[Row] = field(default_factory=list)
    noted: BatchNotes = field(default_factory=BatchNotes)
    on_rows: Callable[[Sequence[Row]], object] | None = None

    def write(
        self,
        files: Sequence[tuple[Found, Path]],
        worst: int,
        fps: float | None,
        on_result: Callable[[Result], object] | None,
    ) -> None:
        """Query images and videos in order; see `write_query`. Each has a path without suffix."""
        for moving, group in groupby(files, lambda file: is_video(file[0].path)):
            if moving:
                for found, stem in group:
                    self.video(found.path, stem, worst, fps)
            else:
                self.images(list(group), on_result)

    def finish(self) -> list[str]:
        """Write what is of all images, also where some are missing; return notes, a line each."""
        notes = self.noted.lines()
        self.out.put("scores.csv", as_csv(self.rows))
        if self.page:
            for note in notes:
                self.page.note(note)
            self.page.write(self.out.claim("report.html"), self.rows)
        left = self.out.finish()
        return [*notes, left] if left else notes

    def images(
        self, files: Sequence[tuple[Found, Path]], on_result: Callable[[Result], object] | None
    ) -> None:
        """Query images, and write their files in threads of their own."""
        rows: dict[int, Row] = {}
        failed: dict[str, None] = {}

        def fail(name: str, why: str) -> None:
            failed[name] = None
            self._fail(name, why)

        # A result holds its decoded image, so only a few may wait for a writer.
        room = BoundedSemaphore(4 * _WRITERS)
        writing: dict[int, Future[Row]] = {}
        try:
            with ThreadPoolExecutor(_WRITERS) as pool:
                for result in self.detector.query([found.path for found, _ in files], fail):
                    self.noted.add(result.name, result.notes)
                    if on_result:
                        on_result(result)
                    room.acquire()
                    future = pool.submit(self._write, result, files[result.position][1])
                    future.add_done_callback(lambda _: room.release())
                    writing[result.position] = future
                    for position in [p for p, f in writing.items() if f.done()]:
                        rows[position] = writing.pop(position).result()
                        self._tell([rows[position]])
            for position in sorted(writing):
                rows[position] = writing[position].result()
                self._tell([rows[position]])
                del writing[position]
        finally:
            for position, future in writing.items():
                if future.exception() is None:
                    rows[position] = future.result()
                    self._tell([rows[position]])
            for position, (found, _) in enumerate(files):
                if str(found.path) in failed:
                    rows[position] = self._failed(found.path)
                    self._tell([rows[position]])
            self.rows += [rows[position] for position in sorted(rows)]

    def video(self, path: Path, stem: Path, worst: int, fps: float | None) -> None:
        """Query the frames of a video; of the worst alone there are files."""
        first = len(self.rows)
        seconds, kept = self._score_frames(path, worst, fps)
        if not seconds:
            self.rows.append(self._failed(path))
            self._tell(self.rows[first:])
            return
        for row, result in kept.items():
            self.rows[row] = self._write(result, stem / result.name.rpartition("#")[2])
        self._tell(self.rows[first:])
        scores = [row.score or 0.0 for row in self.rows[first:]]
        marks = [row - first for row in sorted(kept)]
        if self.page:
            named = [(mark, self.rows[first + mark].path) for mark in marks]
            self.page.add_timeline(path, seconds, scores, named)
        picture = timeline_picture(seconds, scores, self.detector.image_threshold, marks, path.name)
        with self._naming(str(path)):
            self.out.put(f"timelines/{stem}.png", as_png(picture))

    def _score_frames(
        self, path: Path, worst: int, fps: float | None
    ) -> tuple[list[float], dict[int, Result]]:
        """Query the frames of a video; return their times, and the worst ones' results by row."""
        times: list[float] = []
        scored: list[float] = []
        # The row's number is negative, so that of equal scores the later frame goes first.
        kept: list[tuple[float, int, Result]] = []

        def frames() -> Iterator[Frame]:
            try:
                for frame in read_frames(
                    path, fps, self._fail, motion=self.detector.settings.motion
                ):
                    times.append(frame.seconds)
                    yield frame
            except SpadeError as error:
                self._fail(str(path), str(error).removeprefix(f"{path}: "))

        for result in self.detector.query(frames(), self._fail):
            self.noted.add(result.name, result.notes)
            finding = judge_result(self.detector, result, regions=False)
            heapq.heappush(kept, (finding.score, -len(self.rows), result))
            if len(kept) > worst:
                heapq.heappop(kept)
            self.rows.append(
                PassingFrame(result.name, finding.score, finding.threshold, finding.verdict)
            )
            scored.append(times[result.position])
        return scored, {-negative: result for _, negative, result in kept}

    def _write(self, result: Result, stem: Path) -> Row:
        finding = judge_result(self.detector, result, regions=self.explain or self.page is not None)
        row = Row(result.name, finding.score, finding.threshold, finding.verdict)
        with self._naming(result.name):
            row = write_image(
                result,
                finding,
                self.detector.index_,
                stem,
                self.out,
                maps=self.maps,
                overlay=self.overlays,
                overlay_size=self.overlay_size,
                explain=self.explain,
            )
        if self.page:
            self.page.add(result, finding, stem)
        return row

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Report an image or video whose files cannot be called as they should; go on with others.

        Else, of a full disk say, raise OSError.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in BY_NAME:
                raise
            self._fail(name, f"is scored, but its files cannot be written: {error.strerror}")

    def _tell(self, rows: Sequence[Row]) -> None:
        if self.on_rows:
            self.on_rows(rows)

    def _failed(self, path: Path) -> Row:
        return Row(str(path), None, self.detector.image_threshold, ERROR)

    def _fail(self, name: str, why: str) -> None:
        if self.page:
            self.page.fail(name, why)
        report_problem(self.on_error, name, why)
