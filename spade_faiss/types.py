"""Names of the arrays that everything passes around."""

from __future__ import annotations

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
