"""What is known of test images, on the grid that is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ..datasets import Category
from ..detector import Result
from ..images import Framing
from ..metrics.collect import Region
from ..types import Mask


class Truth(Protocol):
    """What is known of the test images."""

    def of(self, result: Result) -> tuple[bool, Mask | None]:
        """Return whether an image is wrong, and where, on the grid that is scored.

        Raises
        ------
        SpadeError
            If its mask cannot be used.
        """


@runtime_checkable
class RegionTruth(Truth, Protocol):
    """What is known of the test images, defect by defect."""

    def regions(self, result: Result) -> Sequence[Region]:
        """Return an image's defects one by one, on the grid that is scored, for sPRO.

        None if that is not known. Raises what `of` raises.
        """


class CategoryTruth:
    """The defects of a category's test images.

    Parameters
    ----------
    category : Category
    framing : Framing or None
        Frames the masks like their images, by nearest pixel, as the paper does; None leaves
        them untouched.
    """

    def __init__(self, category: Category, framing: Framing | None) -> None:
        self._category = category
        self._framing = framing

    def of(self, result: Result) -> tuple[bool, Mask | None]:
        """Return whether an image has a defect, and where, unless that is not known."""
        size = result.map.shape[0], result.map.shape[1]
        wrong, mask = self._category.truth(result.position, size)
        if mask is not None and self._framing:
            mask = self._framing.apply_mask(mask)
        return wrong, mask

    def regions(self, result: Result) -> list[Region]:
        """Return an image's defects one by one, if the areas at which they saturate are known.

        An area is scaled as the image is.
        """
        size = result.map.shape[0], result.map.shape[1]
        found = self._category.regions(result.position, size)
        if not self._framing:
            return [*found]
        left, top, right, bottom = self._framing.to_original((0, 0, 1, 1), size)
        pixels = (right - left) * (bottom - top)  # of the original under one of the input
        framed = [(self._framing.apply_mask(mask), area / pixels) for mask, area in found]
        return [(mask, area) for mask, area in framed if mask.any()]
