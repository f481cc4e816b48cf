"""What a detector says of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Floats, Ids

_SCORES = {"map": "peak", "descriptor": "descriptor_score", "mean": "mean_score"}


@dataclass(frozen=True)
class Result:
    """What a query says of one image.

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

    @property
    def peak(self) -> float:
        """The map's largest value."""
        return float(self.map.max())

    def score(self, kind: str) -> float:
        """Return the image's score of a kind: "map", the map's largest value, or another."""
        value: float = getattr(self, _SCORES[kind])
        return value


@dataclass(frozen=True)
class Prediction:
    """Scores and maps of some images, in their order.

    Attributes
    ----------
    scores : float32 [n]
        How anomalous each image is, 0 or more.
    maps : list of float32 [H, W]
        How anomalous each pixel is, on the images' own grids.
    notes : list of tuple of str
        What should be known of each image; see `Result`.
    """

    scores: Floats
    maps: list[Floats]
    notes: list[tuple[str, ...]]
