"""Query images and videos, and write what is found into a folder."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from .._support.warning import notes_to
from ..detector import Detector, Result
from ..errors import SpadeError
from ..images import Found, Frame, OnError, OnNote, report_note, report_problem
from ..images.video import is_video, read_frames
from ..verdict.judge import ERROR, verdict
from ..verdict.notes import BatchNotes
from ..verdict.regions import find_regions
from .files import Row, as_csv, as_png, write_image
from .folder import BY_NAME, ResultFolder, is_of_results, renamed, stems_of
from .plots import timeline_picture

if TYPE_CHECKING:
    from .query_page import QueryReport

_WRITERS = 2


def write_query(
    spade: Detector,
    images: Sequence[Found],
    out: Path,
    *,
    overlays: bool = True,
    explain: bool = False,
    report: bool = False,
    worst: int = 10,
    fps: float | None = None,
    on_error: OnError | None = None,
    on_result: Callable[[Result], object] | None = None,
    on_note: OnNote | None = None,
) -> list[Row]:
    """Query images and videos and write what is found into a folder.

    Files: `scores.csv` (one row an image, in input order), `maps/<relative path>.tiff`
    (float32, the image's own size), `overlays/<relative path>.png` and, with `explain`,
    `explain/<relative path>.json` and `.png`. Files of images that finished are whole even if
    the query is stopped; `scores.csv` then lists just those. With `report`, `report.html` shows
    all that on one page, the worst first. Files of an earlier query into the same folder are
    removed before the first is written; the folder keeps a list of them.

    A video has one row a frame, called `<path>#000123`, and `timelines/<relative path>.png`
    shows them all. Of its `worst` frames alone there are maps and the rest, called
    `<relative path>/000123`; they are written when the video ends.

    Parameters
    ----------
    spade : Spade or Ensemble
    images : sequence of Found
    out : Path
    overlays, explain, report : bool
    worst : int
        How many frames of a video to write maps of.
    fps : float, optional
        How many frames of a video to score a second; by default all.
    on_error : callable, optional
        Called with (name, why) for what cannot be used. Without it the first raises SpadeError.
    on_result : callable, optional
        Is given each image's result too, as it comes.
    on_note : callable, optional
        Called with a line on what of the images, or of the folder, is odd and no error. Without
        it a Python warning is issued.

    Raises
    ------
    SpadeError
        If `out` is a file, lies in the index, which is then taken for another folder, or inside a
        folder that is queried, where the maps would be taken for images the next time; or if its
        own results are queried, which go.
    OSError
        If the disk is full or the folder cannot be written.
    """
    _check_place(spade, images, out)
    results = ResultFolder(out)
    stems = stems_of(images, results.longest_name)
    files = zip(images, stems, strict=True)
    cards = sum(worst if is_video(found.path) else 1 for found in images)
    page = None
    if report:  # Jinja2, which takes a while to import, is for pages alone
        from .query_page import QueryReport

        page = QueryReport(spade, out, cards)
    writer = _Writer(spade, results, overlays, explain, page, on_error)
    try:
        with notes_to(page.note, pass_on=True) if page else nullcontext():
            for moving, group in groupby(files, lambda file: is_video(file[0].path)):
                if moving:
                    for found, stem in group:
                        writer.video(found.path, stem, worst, fps)
                else:
                    writer.images(list(group), on_result)
    finally:
        notes = writer.noted.lines()
        results.put("scores.csv", as_csv(writer.rows))
        if page:
            for note in notes:
                page.note(note)
            page.write(results.claim("report.html"), writer.rows)
        left = results.finish()
    for line in (renamed(images, stems), *notes, left):
        if line:
            report_note(on_note, line)
    return writer.rows


def _check_place(spade: Detector, images: Sequence[Found], out: Path) -> None:
    """Raise SpadeError if results of these images cannot go to `out`."""
    if out.exists() and not out.is_dir():
        raise SpadeError(f"{out} is a file; name a folder for the results")
    if out.resolve().is_relative_to(spade.folder.resolve()):
        raise SpadeError(f"{out} lies in the index; name another folder for the results")
    for folder in {found.folder for found in images if found.folder}:
        if out.resolve().is_relative_to(folder.resolve()):
            raise SpadeError(f"{out} lies inside {folder}, which is queried; name one beside it")
    for folder in {found.path.parent for found in images}:
        if is_of_results(folder, out):
            raise SpadeError(
                f"{folder}, which is queried, holds results of an earlier query; name "
                f"another folder than {out} for these"
            )


@dataclass
class _Writer:
    """Queries and writes one thing after another; `rows` holds what was done so far."""

    spade: Detector
    out: ResultFolder
    overlays: bool
    explain: bool
    page: QueryReport | None
    on_error: OnError | None
    rows: list[Row] = field(default_factory=list)
    noted: BatchNotes = field(default_factory=BatchNotes)

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
                for result in self.spade.query([found.path for found, _ in files], fail):
                    self.noted.add(result.name, result.notes)
                    if on_result:
                        on_result(result)
                    room.acquire()
                    future = pool.submit(self._write, result, files[result.position][1])
                    future.add_done_callback(lambda _: room.release())
                    writing[result.position] = future
                    for position in [p for p, f in writing.items() if f.done()]:
                        rows[position] = writing.pop(position).result()
            rows.update({position: future.result() for position, future in writing.items()})
        finally:
            for position, future in writing.items():
                if future.exception() is None:
                    rows[position] = future.result()
            for position, (found, _) in enumerate(files):
                if str(found.path) in failed:
                    rows[position] = self._failed(found.path)
            self.rows += [rows[position] for position in sorted(rows)]

    def video(self, path: Path, stem: Path, worst: int, fps: float | None) -> None:
        """Query the frames of a video; only the worst so far are kept."""
        threshold, review = self.spade.image_threshold, self.spade.review
        first = len(self.rows)
        times: list[float] = []
        shown: list[float] = []
        kept: list[tuple[float, int, Result]] = []

        def frames() -> Iterator[Frame]:
            try:
                for frame in read_frames(path, fps, self._fail):
                    times.append(frame.seconds)
                    yield frame
            except SpadeError as error:
                self._fail(str(path), str(error).removeprefix(f"{path}: "))

        for result in self.spade.query(frames(), self._fail):
            self.noted.add(result.name, result.notes)
            score = self.spade.score_of(result)
            # Negative, so that of equal scores the later frame goes first.
            heapq.heappush(kept, (score, -len(self.rows), result))
            if len(kept) > worst:
                heapq.heappop(kept)
            self.rows.append(Row(result.name, score, threshold, verdict(score, threshold, review)))
            shown.append(times[result.position])
        if len(self.rows) == first:
            self.rows.append(self._failed(path))
            return
        for _, negative, result in kept:
            self.rows[-negative] = self._write(result, stem / result.name.rpartition("#")[2])
        scores = [row.score or 0.0 for row in self.rows[first:]]
        marks = sorted(-negative - first for _, negative, _ in kept)
        if self.page:
            named = [(mark, self.rows[first + mark].path) for mark in marks]
            self.page.add_timeline(path, shown, scores, named)
        picture = timeline_picture(shown, scores, threshold, marks, path.name)
        with self._naming(str(path)):
            self.out.put(f"timelines/{stem}.png", as_png(picture))

    def _write(self, result: Result, stem: Path) -> Row:
        score = self.spade.score_of(result)
        limit, regions = self.spade.places_from(score), []
        if limit is not None and (self.explain or self.page):
            regions = find_regions(result, self.spade.index_, limit)
        row = Row(result.name, score, self.spade.image_threshold, self.spade.verdict_of(score))
        with self._naming(result.name):
            row = write_image(
                self.spade, result, stem, self.out, self.overlays, regions if self.explain else None
            )
        if self.page:
            self.page.add(result, score, regions)
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

    def _failed(self, path: Path) -> Row:
        return Row(str(path), None, self.spade.image_threshold, ERROR)

    def _fail(self, name: str, why: str) -> None:
        if self.page:
            self.page.fail(name, why)
        report_problem(self.on_error, name, why)
