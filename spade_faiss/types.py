"""Names of the arrays and of the kinds of score that everything passes around."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
"""Distances, scores, maps, descriptors and patches."""
Doubles = npt.NDArray[np.float64]
"""Numbers that are summed or compared in double precision."""
Ids = npt.NDArray[np.int64]
"""Places of images, or rows of a level."""
Mask = npt.NDArray[np.bool_]
"""Pixels, or images, that something holds for."""

Score = Literal["map", "descriptor", "mean"]
"""What an image is scored by: its map's maximum, its descriptor, or its map's power mean (see
`spade_faiss.maps.score`)."""
SCORES: Mapping[str, str] = {"map": "peaks", "descriptor": "descriptor_scores", "mean": "means"}
"""What records name the scores of each kind."""
THRESHOLDS: Mapping[str, str] = {
    "map": "pixel_threshold",
    "descriptor": "descriptor_threshold",
    "mean": "mean_threshold",
}
"""What records name the threshold of each kind; that of maps' maxima is their pixels', too."""
