"""Good images to learn from, and images to be judged, with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .loco import DefectsConfig
from .masks import read_mask

GOOD = "good"


@dataclass(frozen=True)
class TestImage:
    """A test image.

    Attributes
    ----------
    path : Path
    defect : str
        The kind of defect, or `good`.
    masks : tuple of Path
        The masks of the defect; none for a good image, and for a defect that has none.
    """

    __test__ = False  # no test case, whatever pytest makes of the name

    path: Path
    defect: str
    masks: tuple[Path, ...]

    @property
    def wrong(self) -> bool:
        """Whether it has a defect."""
        return self.defect != GOOD

    def mask(
        self, size: tuple[int, int], config: DefectsConfig | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return where the image is wrong, bool `[H, W]`: the union of its masks.

        Parameters
        ----------
        size : (int, int)
            Height and width of the image.
        config : DefectsConfig, optional
            What the masks' values are; by default that is found by looking (`read_mask`).

        Raises
        ------
        SpadeError
            If a mask cannot be used; see `read_mask`.
        """
        wrong = np.zeros(size, bool)
        for mask in (
            (one for one, _ in config.regions(self.masks, size))
            if config
            else (read_mask(path, size) for path in self.masks)
        ):
            wrong |= mask
        return wrong


@dataclass(frozen=True)
class Category:
    """One kind of part or surface: good images to learn from, and images to be judged.

    Attributes
    ----------
    name : str
    train : tuple of Path
        Good images, at least one.
    test : tuple of TestImage
        At least one good and one with a defect, sorted by defect, then by file name.
    layout : str
        `mvtec`, `mvtec-loco`, `mvtec-ad-2`, `visa` or `folder`.
    notes : tuple of str
        What of the data set is not used.
    config : DefectsConfig, optional
        What `defects_config.json` says of the masks, where it lies in the category's folder.
    """

    name: str
    train: tuple[Path, ...]
    test: tuple[TestImage, ...]
    layout: str = "mvtec"
    notes: tuple[str, ...] = ()
    config: DefectsConfig | None = None

    @property
    def files(self) -> list[Path]:
        """All files: images, masks, and what says how those are to be read."""
        masks = [mask for test in self.test for mask in test.masks]
        config = [self.config.path] if self.config else []
        return [*self.train, *(test.path for test in self.test), *masks, *config]

    @property
    def kinds(self) -> list[str]:
        """What each test image is: `good`, or a kind of defect."""
        return [test.defect for test in self.test]

    @property
    def masked(self) -> bool:
        """Whether any defect has a mask; where none has, there are no pixel metrics."""
        return any(test.masks for test in self.test)

    def truth(self, at: int, size: tuple[int, int]) -> tuple[bool, npt.NDArray[np.bool_] | None]:
        """Return whether a test image is wrong, and where, bool `[H, W]`.

        Where is None if it is not known: of a defect without a mask, and, so that pixels are not
        those of good images alone, of any image where no defect has one.

        Parameters
        ----------
        at : int
            Place among the test images.
        size : (int, int)
            Height and width of the image.

        Raises
        ------
        SpadeError
            If a mask cannot be used; see `TestImage.mask`.
        """
        test = self.test[at]
        known = bool(test.masks) if test.wrong else self.masked
        return test.wrong, test.mask(size, self.config) if known else None

    def regions(self, at: int, size: tuple[int, int]) -> list[tuple[npt.NDArray[np.bool_], float]]:
        """Return a test image's defects one by one, and the areas at which they saturate.

        None unless `config` is there. Parameters and errors as in `truth`.
        """
        return self.config.regions(self.test[at].masks, size) if self.config else []
