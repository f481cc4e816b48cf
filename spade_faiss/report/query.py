"""Query images and videos, and write what is found into a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .._support.warning import notes_to
from ..detector import Detector
from ..detector.result import Result
from ..errors import SpadeError
from ..images import Found, OnError, OnNote, report_note
from ..images.video import is_video
from ..images.video.read import check_fps
from ..pictures.drawing import OVERLAY_SIDE, check_side
from .files import Row
from .folder import LEDGER, ResultFolder, is_of_results, renamed, stems_of
from .writer import QueryWriter

if TYPE_CHECKING:
    from .query_page import QueryReport


def write_query(
    detector: Detector,
    images: Sequence[Found],
    out: Path,
    *,
    maps: bool = True,
    overlays: bool = True,
    overlay_size: int | None = OVERLAY_SIDE,
    explain: bool = False,
    report: bool = False,
    worst: int = 10,
    fps: float | None = None,
    on_error: OnError | None = None,
    on_result: Callable[[Result], object] | None = None,
    on_note: OnNote | None = None,
    on_rows: Callable[[Sequence[Row]], object] | None = None,
) -> list[Row]:
    """Query images and videos and write what is found into a folder.

    Files: `scores.csv` (one row an image, in input order), `maps/<relative path>.tiff`
    (float32, the image's own size), `overlays/<relative path>.png` and, with `explain`,
    `explain/<relative path>.json` and `.png`. Files of images that finished are whole even if
    the query is stopped; `scores.csv` then lists just those. With `report`, `report.html` shows
    all that on one page, the worst first, and opens the images in `closeups/` at their own
    resolution. Files of an earlier query into the same folder are
    removed before the first is written; the folder keeps a list of them.

    A video has one row a frame, called `<path>#000123`, and `timelines/<relative path>.png`
    shows them all. Of its `worst` frames alone there are maps and the rest, called
    `<relative path>/000123`; they are written when the video ends.

    Parameters
    ----------
    detector : Detector
    images : sequence of Found
    out : Path
    maps, overlays, explain, report : bool
        Whether to write them; images and verdicts are in `scores.csv` in any case.
    overlay_size : int or None
        Pixels of the longer side of an image in its overlay, 64 to 16384; None for its own.
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
    on_rows : callable, optional
        Is given rows as they come, each once its files are written: an image's alone, those of a
        video together.

    Raises
    ------
    SpadeError
        If `out` is a file, lies in the index, which is then taken for another folder, or inside a
        folder that is queried, where the maps would be taken for images the next time; or if its
        own results are queried, which go; or if `fps` or `overlay_size` is out of its range.
    OSError
        If the disk is full or the folder cannot be written.
    """
    check_fps(fps)
    check_side(overlay_size)
    _check_place(detector, images, out)
    results = ResultFolder(out)
    stems = stems_of(images, results.longest_name)
    page = _page(detector, images, results, worst) if report else None
    writer = QueryWriter(detector, results, maps, overlays, overlay_size, explain, page, on_error)
    writer.on_rows = on_rows
    try:
        with notes_to(page.note, pass_on=True) if page else nullcontext():
            writer.write(list(zip(images, stems, strict=True)), worst, fps, on_result)
    finally:
        notes = writer.finish()
    for line in (renamed(images, stems), *notes):
        if line:
            report_note(on_note, line)
    return writer.rows


def _page(
    detector: Detector, images: Sequence[Found], out: ResultFolder, worst: int
) -> QueryReport:
    """Return what gathers a page of images, and of the worst frames of videos."""
    from .query_page import QueryReport  # Jinja2, which takes a while to import, is for pages alone

    expected = sum(worst if is_video(found.path) else 1 for found in images)
    return QueryReport(detector, out, expected)


def _check_place(detector: Detector, images: Sequence[Found], out: Path) -> None:
    """Raise SpadeError if results of these images cannot go to `out`."""
    if out.exists() and not out.is_dir():
        raise SpadeError(f"{out} is a file; name a folder for the results")
    if (out / LEDGER).exists():
        raise SpadeError(
            f"{out} holds the results of a watched folder or a live source, which go on; name "
            "another folder"
        )
    if out.resolve().is_relative_to(detector.folder.resolve()):
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
