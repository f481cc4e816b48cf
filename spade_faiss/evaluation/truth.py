"""The ground truth of test images, on the grid that is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..datasets import Category
from ..datasets.category import GOOD
from ..errors import SpadeError
from ..images import Framing
from ..images.roi import Roi
from ..metrics.collect import Region
from ..types import Mask


@dataclass(frozen=True)
class GroundTruth:
    """What is known of one test image.

    Attributes
    ----------
    kind : str
        `good`, or the kind of its defect.
    mask : bool [H, W] or None
        Where the defect is, on the grid that is scored. None if that is not known.
    regions : sequence of (bool [H, W], float)
        The defects one by one, and the areas in pixels at which they saturate, for sPRO. None
        where these are not known.
    problem : str
        Why the mask cannot be used. Empty if it can, and if there is none.
    looked_at : bool [H, W] or None
        Which pixels count, on the grid that is scored; None if all do.
    place : (str, int) or None
        The clip that a frame is of, and its number there. None of an image that is no frame.
    """

    kind: str
    mask: Mask | None = None
    regions: Sequence[Region] = ()
    problem: str = ""
    looked_at: Mask | None = None
    place: tuple[str, int] | None = None

    @property
    def is_left_out(self) -> bool:
        """Whether there is a defect, and no pixel of it counts."""
        mask = self.mask
        if mask is None or self.looked_at is None or not mask.any():
            return False
        return not (mask & self.looked_at).any()

    @property
    def anomalous(self) -> bool:
        """Whether the image has a defect."""
        return self.kind != GOOD


class Truth(Protocol):
    """The ground truth of all test images of a split."""

    def of(self, position: int, size: tuple[int, int]) -> GroundTruth:
        """Return what is known of an image.

        Parameters
        ----------
        position : int
            Place among the test images.
        size : (int, int)
            Height and width of the image.
        """


class CategoryTruth:
    """The ground truth of a category's test images.

    Parameters
    ----------
    category : Category
    framing : Framing or None
        Frames the masks like their images, by nearest pixel, as the paper does; None leaves
        them untouched.
    region : Roi, optional
        What counts of images whose masks are left untouched; a framing has its own.
    """

    def __init__(
        self, category: Category, framing: Framing | None, region: Roi | None = None
    ) -> None:
        self._category = category
        self._framing = framing
        self._region = region

    def of(self, position: int, size: tuple[int, int]) -> GroundTruth:
        """Return what is known of an image; see `Truth`."""
        kind = self._category.test[position].defect
        try:
            return GroundTruth(
                kind,
                self._mask(position, size),
                self._regions(position, size),
                looked_at=self._looked_at(size),
            )
        except SpadeError as error:
            return GroundTruth(kind, problem=str(error))

    def _looked_at(self, size: tuple[int, int]) -> Mask | None:
        if self._framing:
            return self._framing.looked_at
        return self._region.on(size) if self._region else None

    def _mask(self, position: int, size: tuple[int, int]) -> Mask | None:
        _, mask = self._category.truth(position, size)
        if mask is None or self._framing is None:
            return mask
        return self._framing.apply_mask(mask)

    def _regions(self, position: int, size: tuple[int, int]) -> list[Region]:
        """Return the defects one by one; an area is scaled as the image is."""
        found = self._category.regions(position, size)
        if self._framing is None:
            return [*found]
        left, top, right, bottom = self._framing.to_original((0, 0, 1, 1), size)
        pixels = (right - left) * (bottom - top)  # of the original under one of the input
        framed = [(self._framing.apply_mask(mask), area / pixels) for mask, area in found]
        return [(mask, area) for mask, area in framed if mask.any()]
