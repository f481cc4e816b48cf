"""A query's result files: scores, maps, overlays and explanations, image by image."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .._support.text import json_text
from ..detector.result import Result
from ..index import Index
from ..pictures.drawing import explanation_picture, overlay_picture
from ..pictures.encode import as_png, as_tiff
from ..verdict import Finding
from .folder import ResultFolder


@dataclass(frozen=True)
class Row:
    """One image or frame of a query as `scores.csv` and `--json` have it.

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


class PassingFrame(Row):
    """A frame that is none of its video's worst, of which alone there are files."""


def write_image(
    result: Result,
    finding: Finding,
    index: Index,
    stem: Path,
    out: ResultFolder,
    *,
    maps: bool,
    overlay: bool,
    overlay_size: int | None,
    explain: bool,
) -> Row:
    """Write the map of one image, its overlay, and an explanation of its regions; return its row.

    Parameters
    ----------
    result : Result
    finding : Finding
    index : Index
        That the image was compared with.
    stem : Path
        What the files are called in `out`, without suffix.
    out : ResultFolder
    maps, overlay, explain : bool
        Whether to write them.
    overlay_size : int or None
        Pixels of the longer side of the image in its overlay; None for its own.
    """
    files: dict[str, str] = {}
    if maps:
        files["map"] = out.put(f"maps/{stem}.tiff", as_tiff(result.map))
    if overlay:
        framing = index.manifest.framing.framing()
        picture = overlay_picture(result, finding, framing, side=overlay_size)
        files["overlay"] = out.put(f"overlays/{stem}.png", as_png(picture))
    if explain:
        record = json_text(_explanation(result.name, finding), indent=1) + "\n"
        files["explanation"] = out.put(f"explain/{stem}.json", record.encode())
        picture = explanation_picture(result, index, finding.regions)
        out.put(f"explain/{stem}.png", as_png(picture))
    return Row(result.name, finding.score, finding.threshold, finding.verdict, **files)


def _explanation(name: str, finding: Finding) -> dict[str, Any]:
    """Return what the explanation of an image says, as JSON values."""
    return {
        "path": name,
        "score": finding.score,
        "threshold": finding.threshold,
        "review": finding.review,
        "verdict": finding.verdict,
        "pixel_threshold": finding.pixel_threshold,
        "regions": [asdict(region) for region in finding.regions],
    }


def as_csv(rows: Sequence[Row]) -> bytes:
    """Return what `scores.csv` holds."""
    lines: list[str] = []
    # By its own ends of lines it puts a name that has a return or a line feed into quotes.
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")
    writer.writerow(["path", "score", "threshold", "verdict"])
    for row in rows:
        writer.writerow([row.path, _figure(row.score), _figure(row.threshold), row.verdict])
    text = "".join(line.removesuffix("\r\n") + "\n" for line in lines)
    return text.encode("utf-8", "surrogateescape")


def _figure(value: float | None) -> str:
    """Return a figure with all digits that a float32 has."""
    return "" if value is None else f"{value:.9g}"
