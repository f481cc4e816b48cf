"""What a detector says of one image."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._support.files import replace_file
from ..errors import SpadeError
from ..images import Framing
from ..index import Index
from ..pictures.colours import Picture
from ..pictures.drawing import OVERLAY_SIDE, check_side, overlay_picture
from ..pictures.encode import as_jpeg, as_png, as_webp
from ..pictures.notebook import plot_on, result_as_html, said
from ..types import Floats, Ids
from ..verdict import Finding, Limits, Region
from ..verdict.finding import finding_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SCORES = {"map": "peak", "descriptor": "descriptor_score", "mean": "mean_score"}
_UNKNOWN = Limits()
_ENCODED: Mapping[str, Callable[[Picture], bytes]] = {
    ".png": as_png,
    ".jpg": lambda picture: as_jpeg(picture, 90),
    ".jpeg": lambda picture: as_jpeg(picture, 90),
    ".webp": lambda picture: as_webp(picture, 90),
}


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What a query says of one image. A notebook shows it as a picture.

    Attributes
    ----------
    position : int
        Place in the list of images that was passed.
    name : str
        The image's path, or "image N" for an array.
    image : uint8 [H, W, 3]
    input : uint8 [h, w, 3]
        What the network saw of it.
    map : float32 [H, W]
        Anomaly map on the image's own pixel grid; 0 where the crop left pixels unseen.
    input_map : float32 [h, w]
        The same map on the network's input grid.
    descriptor_score : float
        Mean squared distance to the K nearest descriptors (SPADE, section 3.2); by tiles, that of
        the tile that has most.
    mean_score : float
        The power mean of the map over the pixels that are looked at; by tiles, over the square
        of a tile's side where it is largest. See `spade_faiss.maps.score.power_mean`.
    neighbours : int64 [K]
        The K nearest training images; by tiles, all that tiles were compared with, those first
        that are nearest to most. Where a gallery is searched whole, `matches` may be of others.
    distances : tuple of float32 [h, w]
        Per level, each patch's mean Euclidean distance to its kappa nearest good patches; with
        contrast, less a share of what is normal there, in units of what is normal at the level.
    matches : tuple of int64 [h, w]
        Per level, each patch's nearest good patch, as a row of the index's level.
    notes : tuple of str
        What should be known before the verdict is relied on, each in one line: how little of
        the image the network saw, say.
    training_image : str or None
        The path of the training image that shows the network the very same pixels, if one does.
        Such an image finds itself: it scores 0, whatever it shows.
    min_area : int or None
        Pixels that an area must have to count, if that was asked for. The maps are then clipped
        at the largest value that such an area of the image reaches.
    limits : Limits
        What it is judged by: the detector's thresholds as they were when it was queried.
    index : Index or None
        That it was compared with. A copy from another process has none; its regions were found
        before it was sent.

    Examples
    --------
    >>> from spade_faiss import Spade
    >>> from spade_faiss.datasets.demo import render
    >>> good = [render(0, "brick", "train", i).image for i in range(5)]
    >>> spade = Spade("efficientnet_lite0").fit(good)
    >>> result = next(spade.query(render(0, "brick", "hole", 0).image))
    >>> result.verdict, len(result.regions), result.overlay().shape
    ('NG', 1, (492, 996, 3))
    """

    position: int
    name: str
    image: npt.NDArray[np.uint8]
    input: npt.NDArray[np.uint8]
    map: Floats
    input_map: Floats
    descriptor_score: float
    mean_score: float
    neighbours: Ids
    distances: tuple[Floats, ...]
    matches: tuple[Ids, ...]
    notes: tuple[str, ...] = ()
    training_image: str | None = None
    min_area: int | None = None
    limits: Limits = _UNKNOWN
    index: Index | None = None

    @property
    def peak(self) -> float:
        """The map's largest value."""
        return float(self.map.max())

    def score(self, kind: str | None = None) -> float:
        """Return the image's score: that which it is judged by, or of a kind.

        Parameters
        ----------
        kind : "map", "descriptor" or "mean", optional
            The map's largest value, `descriptor_score`, or `mean_score`.
        """
        kind = self.limits.kind if kind is None else kind
        if kind not in _SCORES:
            raise SpadeError(f"unknown score {kind!r}: choose one of {', '.join(_SCORES)}")
        value: float = getattr(self, _SCORES[kind])
        return value

    @property
    def verdict(self) -> str:
        """What the score says: "NG", "REVIEW" or "OK"; "" where no threshold was known."""
        return self.limits.verdict_of(self.score())

    @cached_property
    def finding(self) -> Finding:
        """Its score, its verdict, what these rest on, and the places that are wrong."""
        return finding_of(self, self.limits, self.index)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The places that are wrong, the highest peak first, each with what it should look like.

        Of an image to be reviewed, they are those that a person should look at.
        """
        return self.finding.regions

    def overlay(self, size: int | None = OVERLAY_SIDE) -> npt.NDArray[np.uint8]:
        """Return the image beside itself with the map over it, under its verdict.

        Parameters
        ----------
        size : int or None
            Pixels of the longer side of the image in it, 64 to 16384; None for its own.

        Returns
        -------
        uint8 [h, w, 3], RGB
        """
        check_side(size)
        if self._framing is None:
            raise SpadeError("a result that no detector judged has no overlay: query the image")
        return overlay_picture(self, self.finding, self._framing, side=size)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the image, the map over it, and a box around each region; return the axes.

        Parameters
        ----------
        axes : matplotlib.axes.Axes, optional
            By default those of a new figure.

        Raises
        ------
        SpadeError
            If matplotlib is not installed.
        """
        return plot_on(axes, self, self.finding)

    def save(self, path: str | os.PathLike[str], size: int | None = OVERLAY_SIDE) -> None:
        """Write the overlay to a file, as PNG, JPEG or WebP by the file's suffix.

        Parameters
        ----------
        path : path
        size : int or None
            As `overlay` takes it.

        Raises
        ------
        SpadeError
            If the suffix is another.
        OSError
            If the file cannot be written.
        """
        path = Path(path)
        encoded = _ENCODED.get(path.suffix.lower())
        if encoded is None:
            raise SpadeError(f"{path} is to be a picture: call it .png, .jpg or .webp")
        replace_file(path, encoded(self.overlay(size)))

    @cached_property
    def _framing(self) -> Framing | None:
        return None if self.index is None else self.index.manifest.framing.framing()

    def __repr__(self) -> str:
        height, width = self.map.shape
        finding = finding_of(self, self.limits, None)
        return f"<Result {self.name}, {width}x{height}: {said(finding)}>"

    def _repr_html_(self) -> str:
        if self._framing is None:
            return f"<pre>{escape(repr(self))}</pre>"
        return result_as_html(self.name, self.finding, self.overlay(), self.notes)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process has: all but the index, and what that gives."""
        if self.index is None:
            return dict(vars(self))
        known = {"finding": self.finding, "_framing": self._framing, "index": None}
        return vars(self) | known
