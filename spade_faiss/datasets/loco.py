"""Read what MVTec LOCO AD says of its masks: the area at which a defect counts as found.

`defects_config.json` lies in a category's folder (Bergmann et al., IJCV 2022). For each kind of
defect it has `defect_name`, the `pixel_value` of its masks, and the `saturation_threshold`, a
share of the defect's area if `relative_saturation` is true, and else a number of pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SpadeError
from ..types import Mask
from .masks import decode_mask
from .problems import Problems


@dataclass(frozen=True)
class Saturation:
    """From where on a kind of defect counts as found.

    Attributes
    ----------
    defect : str
    value : int
        Of its pixels in a mask.
    threshold : float
    relative : bool
        Whether the threshold is a share of the defect's pixels, instead of a number of pixels.
    """

    defect: str
    value: int
    threshold: float
    relative: bool

    def area(self, pixels: int) -> float:
        """Return the area at which a defect of so many pixels saturates, in pixels, 1 or more.

        A share is rounded down to whole pixels, and no area is larger than the defect, as in the
        data set's own evaluation code.
        """
        area = int(self.threshold * pixels) if self.relative else min(self.threshold, pixels)
        return max(area, 1)


@dataclass(frozen=True)
class DefectsConfig:
    """What `defects_config.json` says.

    Attributes
    ----------
    path : Path
        The file.
    kinds : tuple of Saturation
        Each kind of defect.
    """

    path: Path
    kinds: tuple[Saturation, ...]

    def regions(self, paths: Iterable[Path], size: tuple[int, int]) -> list[tuple[Mask, float]]:
        """Return an image's defects one by one: where each is, and the area at which it saturates.

        Parameters
        ----------
        paths : iterable of Path
            The image's masks. A mask holds one defect; one of several values has a defect for each.
        size : (int, int)
            Height and width of the image.

        Returns
        -------
        list of (bool [H, W], float)
            Areas in pixels.

        Raises
        ------
        SpadeError
            If a mask cannot be decoded, has another size, marks nothing, or holds a value that
            is of no kind of defect.
        """
        known = {one.value: one for one in self.kinds}
        regions: list[tuple[Mask, float]] = []
        for path in paths:
            values = decode_mask(path, size).values
            inside = [value for value in np.unique(values).tolist() if value]
            if not inside:
                raise SpadeError(f"{path}: the mask marks no pixel as a defect; copy it again")
            if strange := [value for value in inside if value not in known]:
                raise SpadeError(
                    f"{path}: the mask holds the value {strange[0]}, which is not in "
                    f"{self.path.name}; copy it again"
                )
            for value in inside:
                mask = np.asarray(values == value)
                regions.append((mask, known[value].area(int(mask.sum()))))
        return regions


def read_config(folder: Path, problems: Problems) -> DefectsConfig | None:
    """Return what `defects_config.json` says, or None if it is not there.

    Without it sPRO is not defined; so it is without one that cannot be understood, which is
    reported.
    """
    path = folder / "defects_config.json"
    if not path.is_file():
        return None
    why = (
        "is no list of pixel_value, saturation_threshold and relative_saturation of each kind "
        "of defect; copy it again"
    )
    try:
        kinds = tuple(_saturation(entry) for entry in json.loads(path.read_bytes()))
        if kinds and len({one.value for one in kinds}) == len(kinds):
            return DefectsConfig(path, kinds)
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    problems(path, why, "sPRO is not given")
    return None


def _saturation(entry: Any) -> Saturation:
    value, threshold = entry["pixel_value"], entry["saturation_threshold"]
    relative = entry["relative_saturation"]
    if type(value) is not int or value < 1 or type(relative) is not bool:
        raise ValueError
    if not 0 < threshold < math.inf or (relative and threshold > 1):
        raise ValueError
    return Saturation(str(entry.get("defect_name", value)), value, float(threshold), relative)
