"""A query's result files: scores, maps, overlays and explanations."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import BoundedSemaphore

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from .._files import replace_file
from ..detector import Result, Spade
from ..errors import SpadeError
from ..images import Found, OnError
from .pictures import explanation_picture, overlay_picture, verdict
from .regions import find_regions

_WRITERS = 2


@dataclass(frozen=True)
class Row:
    """One image of a query as `scores.csv` and `--json` have it.

    `score` is None and `verdict` "ERROR" where the image could not be used; `threshold` is None
    and `verdict` empty where no threshold is known.
    """

    path: str
    score: float | None
    threshold: float | None
    verdict: str
    map: str | None = None
    overlay: str | None = None
    explanation: str | None = None


def write_query(
    spade: Spade, images: Sequence[Found], out: Path, *, overlays: bool = True,
    explain: bool = False, on_error: OnError | None = None,
    on_result: Callable[[Result], object] | None = None,
) -> list[Row]:
    """Query images and write what is found into a folder.

    Files: `scores.csv` (one row an image, in input order), `maps/<relative path>.tiff`
    (float32, the image's own size), `overlays/<relative path>.png` and, with `explain`,
    `explain/<relative path>.json` and `.png`. Files of images that finished are whole even if
    the query is stopped; `scores.csv` then lists just those. `on_result` is given each result
    too, as it comes.

    Raises
    ------
    SpadeError
        If `out` is a file, or lies inside a folder that is queried, where the maps would be
        taken for images the next time.
    OSError
        If the disk is full or the folder cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise SpadeError(f"{out} is a file; name a folder for the results")
    for folder in {found.folder for found in images if found.folder}:
        if out.resolve().is_relative_to(folder.resolve()):
            raise SpadeError(f"{out} lies inside {folder}, which is queried; name one beside it")
    stems = _stems(images)
    threshold = spade.image_threshold
    rows: dict[int, Row] = {}
    failed: dict[str, None] = {}

    def fail(name: str, why: str) -> None:
        failed[name] = None
        if on_error is None:
            raise SpadeError(f"{name}: {why}")
        on_error(name, why)

    def write(result: Result) -> Row:
        return _write_image(spade, result, stems[result.position], out, overlays, explain)

    out.mkdir(parents=True, exist_ok=True)
    # A result holds its decoded image, so only a few may wait for a writer.
    room = BoundedSemaphore(4 * _WRITERS)
    writing: dict[int, Future[Row]] = {}
    try:
        with ThreadPoolExecutor(_WRITERS) as pool:
            for result in spade.query([found.path for found in images], fail):
                if on_result:
                    on_result(result)
                room.acquire()
                future = pool.submit(write, result)
                future.add_done_callback(lambda _: room.release())
                writing[result.position] = future
                for position in [p for p, f in writing.items() if f.done()]:
                    rows[position] = writing.pop(position).result()
        rows.update({position: future.result() for position, future in writing.items()})
    finally:
        for position, future in writing.items():
            if future.exception() is None:
                rows[position] = future.result()
        for position, found in enumerate(images):
            if str(found.path) in failed:
                rows[position] = Row(str(found.path), None, threshold, "ERROR")
        _write_scores(out / "scores.csv", [rows[position] for position in sorted(rows)])
    return [rows[position] for position in sorted(rows)]


def _stems(images: Sequence[Found]) -> list[Path]:
    """Return for each image the path of its result files without suffix; no two alike."""
    taken: set[Path] = set()
    stems = []
    for found in images:
        stem = found.relative.with_suffix("")
        if stem in taken:
            stem = found.relative
        number = 2
        while stem in taken:
            stem = found.relative.with_name(f"{found.relative.name}-{number}")
            number += 1
        taken.add(stem)
        stems.append(stem)
    return stems


def _write_image(
    spade: Spade, result: Result, stem: Path, out: Path, overlays: bool, explain: bool
) -> Row:
    score, threshold = spade.score_of(result), spade.image_threshold
    framing = spade.index_.manifest.framing.framing()
    files: dict[str, str] = {}
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, result.map)
    files["map"] = _put(out / "maps" / f"{stem}.tiff", tiff.getvalue())
    if overlays:
        picture = overlay_picture(
            result, framing, score, threshold, spade.pixel_threshold, result.name
        )
        files["overlay"] = _put(out / "overlays" / f"{stem}.png", _png(picture))
    if explain:
        limit = spade.pixel_threshold
        regions = [] if limit is None else find_regions(result, spade.index_, limit)
        record = {
            "path": result.name, "score": score, "threshold": threshold,
            "verdict": verdict(score, threshold), "pixel_threshold": limit,
            "regions": [asdict(region) for region in regions],
        }
        data = (json.dumps(record, indent=1) + "\n").encode()
        files["explanation"] = _put(out / "explain" / f"{stem}.json", data)
        picture = explanation_picture(result, spade.index_, regions)
        _put(out / "explain" / f"{stem}.png", _png(picture))
    return Row(result.name, score, threshold, verdict(score, threshold), **files)


def _put(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)
    return str(path)


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "png", compress_level=3)
    return data.getvalue()


def _write_scores(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "score", "threshold", "verdict"])
    for row in rows:
        writer.writerow([row.path, _figure(row.score), _figure(row.threshold), row.verdict])
    replace_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _figure(value: float | None) -> str:
    """Return a figure with all digits that a float32 has."""
    return "" if value is None else f"{value:.9g}"
