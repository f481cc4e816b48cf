"""What a notebook shows: plots on matplotlib's axes, and HTML."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from .._support.text import printable
from ..errors import SpadeError
from ..verdict import Finding, shown_map
from .colours import MARK, STRENGTH, Picture, heat
from .drawing import SHOWN_REGIONS, Pictured
from .encode import as_webp

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_on(axes: Axes | None, result: Pictured, finding: Finding) -> Axes:
    """Draw an image, its map over it and a box around each region; return the axes.

    Parameters
    ----------
    axes : matplotlib.axes.Axes or None
        None for those of a new figure.
    result : Pictured
    finding : Finding

    Raises
    ------
    SpadeError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.patches import Rectangle
    except ImportError:
        raise SpadeError(
            "a plot needs matplotlib, which is not installed: install it, or take the overlay"
        ) from None
    if axes is None:
        axes = pyplot.subplots(layout="constrained")[1]
    limit = finding.pixel_threshold
    painted = heat(shown_map(result, limit), limit)
    painted[..., 3] = np.round(painted[..., 3] * STRENGTH)
    axes.imshow(result.image)
    axes.imshow(painted)
    colour = tuple(value / 255 for value in MARK)
    for region in finding.regions:
        left, top, right, bottom = region.box
        corner = left - 0.5, top - 0.5  # as pixels' centres are at whole numbers
        box = Rectangle(corner, right - left, bottom - top, fill=False, color=colour)
        axes.add_patch(box)
    axes.set_title(f"{printable(PurePath(result.name).name)}: {said(finding)}")
    axes.set_axis_off()
    return axes


def said(finding: Finding) -> str:
    """Return a verdict and what it rests on, in a few words."""
    limit = finding.threshold
    against = "no threshold" if limit is None else f"threshold {limit:.4g}"
    verdict = f"{finding.verdict}, " if finding.verdict else ""
    return f"{verdict}score {finding.score:.4g}, {against}"


def result_as_html(name: str, finding: Finding, picture: Picture, notes: Iterable[str] = ()) -> str:
    """Return a picture of an image with its regions, and what should be known of it, as HTML."""
    data = base64.b64encode(as_webp(picture, 90)).decode()
    alt = escape(f"{printable(name)}: {said(finding)}")
    image = f'<img alt="{alt}" style="max-width: 100%" src="data:image/webp;base64,{data}">'
    rows = [
        (
            f"{region.peak:.4g}",
            "{}, {}".format(*region.peak_at),
            region.area,
            region.matches[0].image,
        )
        for region in finding.regions[:SHOWN_REGIONS]
    ]
    hidden = len(finding.regions) - SHOWN_REGIONS
    more = [f"{hidden} more regions"] if hidden > 0 else []
    columns = ("peak", "at x, y", "pixels", "should look like")
    table = table_as_html(columns, rows) if rows else ""
    return f"<div>{image}{table}{lines_as_html((*more, *notes))}</div>"


def table_as_html(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as HTML."""
    head = "".join(f"<th>{escape(one)}</th>" for one in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(printable(str(value)))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def lines_as_html(lines: Iterable[str]) -> str:
    """Return lines as a list in HTML; of none, nothing."""
    items = "".join(f"<li>{escape(printable(line))}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""
