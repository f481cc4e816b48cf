"""A query's result files: scores, maps, overlays and explanations, image by image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from ..detector import Detector, Result
from ..verdict.regions import Region
from .folder import ResultFolder
from .pictures import explanation_picture, overlay_picture


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


def write_image(
    spade: Detector,
    result: Result,
    stem: Path,
    out: ResultFolder,
    overlays: bool,
    explained: Sequence[Region] | None,
) -> Row:
    """Write the map of one image, its overlay, and its regions if given; return its row."""
    score, threshold = spade.score_of(result), spade.image_threshold
    word = spade.verdict_of(score)
    framing = spade.index_.manifest.framing.framing()
    files: dict[str, str] = {}
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, result.map)
    files["map"] = out.put(f"maps/{stem}.tiff", tiff.getvalue())
    if overlays:
        picture = overlay_picture(
            result, framing, score, threshold, spade.pixel_threshold, result.name, spade.review
        )
        files["overlay"] = out.put(f"overlays/{stem}.png", as_png(picture))
    if explained is not None:
        record = {
            "path": result.name,
            "score": score,
            "threshold": threshold,
            "review": spade.review,
            "verdict": word,
            "pixel_threshold": spade.pixel_threshold,
            "regions": [asdict(region) for region in explained],
        }
        data = (json.dumps(record, indent=1) + "\n").encode()
        files["explanation"] = out.put(f"explain/{stem}.json", data)
        picture = explanation_picture(result, spade.index_, explained)
        out.put(f"explain/{stem}.png", as_png(picture))
    return Row(result.name, score, threshold, word, **files)


def as_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """Return a picture as a PNG file."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "png", compress_level=3)
    return data.getvalue()


def as_csv(rows: Sequence[Row]) -> bytes:
    """Return what `scores.csv` holds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "score", "threshold", "verdict"])
    for row in rows:
        writer.writerow([row.path, _figure(row.score), _figure(row.threshold), row.verdict])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _figure(value: float | None) -> str:
    """Return a figure with all digits that a float32 has."""
    return "" if value is None else f"{value:.9g}"
