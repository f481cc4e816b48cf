"""How an image is brought to the network's input size, and a map back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import SpadeError
from ..types import Floats, Mask
from .resample import Axis, placed_at, resample
from .roi import Roi, paint_over
from .tiles import Tiles

Sample = TypeVar("Sample", bound=np.generic)

_CELL = 32
"""Input pixels a side of a patch of the coarsest level, and the least that a side may have."""


@dataclass(frozen=True)
class Framing:
    """How an image is brought to the network's input size, and how a map is brought back.

    With `crop`, the shorter side becomes `resize` pixels, the aspect stays, and the centre
    is cut out (the paper's protocol, section 4.1: 256 and 224). Without, the whole frame is
    stretched to `size`, so that nothing at the edge is cut off. With `tiles`, it is brought to the
    size that they are for, and the network sees it tile by tile.

    Attributes
    ----------
    resize : int
        Length of the shorter side after resizing, in pixels.
    size : (int, int)
        Height and width of the input, in pixels: what the network sees at once, or in tiles.
    crop : bool
        Whether the input is a centre crop of the resized image or the whole of it.
    margin : int
        Pixels all around the input that the network sees too, so that no patch that counts lies
        at the border: what the crop cut off, and beyond that the image's mirror image. Of a tile,
        what lies around it.
    tiles : Tiles, optional
        What the input is cut into.
    roi : Roi, optional
        What is looked at. The network is shown paint in place of every pixel that the rest has
        a part in: see `shown`.
    """

    resize: int
    size: tuple[int, int]
    crop: bool
    margin: int = 0
    tiles: Tiles | None = None
    roi: Roi | None = None

    @property
    def seen_at_once(self) -> tuple[int, int]:
        """Height and width of what the network sees at once, without the margin, in pixels."""
        return (self.tiles.side, self.tiles.side) if self.tiles else self.size

    @cached_property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """The top and left in the input of each part that the network sees at once.

        Tiles of which nothing is looked at are left out.
        """
        if self.tiles is None:
            return ((0, 0),)
        corners, side = self.tiles.corners(), self.tiles.side
        looked = self.looked_at
        if looked is None:
            return corners
        return tuple(
            (top, left)
            for top, left in corners
            if looked[top : top + side, left : left + side].any()
        )

    @cached_property
    def looked_at(self) -> Mask | None:
        """Which pixels of the input are looked at, bool [h, w]; None if all are.

        Of images of the size that the index was made for, or else of the region's own.

        Raises
        ------
        SpadeError
            If nothing of the region is seen, or as `Roi.on` does.
        """
        if self.roi is None:
            return None
        size = self.tiles.picture if self.tiles else self.roi.mask.shape
        looked_at = self.apply_mask(self.roi.on((size[0], size[1])))
        if looked_at.any():
            return looked_at
        height, width = self.size
        raise SpadeError(
            "the region lies in what the crop leaves out: give `crop=None`, or another region"
            if self.crop
            else f"the region is so narrow that nothing of it is left on {width}x{height} pixels: "
            "make it wider, or `resize` larger"
        )

    def shown(self, original: tuple[int, int]) -> Mask | None:
        """Return which pixels of the input the network is shown, of an image of a height and width.

        They are those that come from pixels that are looked at alone: what lies outside the region
        has no part in them. None if all are.

        Returns
        -------
        bool [h + 2 m, w + 2 m] or None
            Of the margin, too.

        Raises
        ------
        SpadeError
            If the image has another aspect than the region, or none is shown.
        """
        return None if self.roi is None else _shown(self, original)

    def painted(
        self, wide: npt.NDArray[np.uint8], original: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """Return the input and its margin, painted over where the network is not to be shown it.

        Parameters
        ----------
        wide : uint8 [h + 2 m, w + 2 m, C]
            As `apply_with_margin` gives it.
        original : (int, int)
            Height and width of the image.
        """
        shown = self.shown(original)
        return wide if shown is None else paint_over(wide, shown)

    def cut(
        self, wide: npt.NDArray[np.uint8], part: int, original: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """Return a part with its margin, of the input with its own, painted over as `painted`."""
        (top, left), (height, width) = self.corners[part], self.seen_at_once
        more = 2 * self.margin
        here = np.s_[top : top + height + more, left : left + width + more]
        shown = self.shown(original)
        return wide[here] if shown is None else paint_over(wide[here], shown[here])

    def inner(self, wide: npt.NDArray[Sample]) -> npt.NDArray[Sample]:
        """Return the input without its margin."""
        height, width = self.size
        return wide[self.margin : self.margin + height, self.margin : self.margin + width]

    @classmethod
    def choose(cls, resize: int, crop: int | None, size: tuple[int, int]) -> Framing:
        """Return the framing for images of height and width `size`.

        Raises
        ------
        SpadeError
            If `crop` does not fit into `resize`, or either is too small for the network.
        """
        if crop is not None:
            if not 32 <= crop <= resize:
                raise SpadeError(f"crop {crop} must lie between 32 and the resize of {resize}")
            return cls(resize, (crop, crop), True)
        if resize < 32:
            raise SpadeError(f"resize {resize} is too small: choose 32 or more")
        height, width = size
        longer = resize * max(size) / min(size)
        # Whole cells of the coarsest level: the stretch is at most 16 pixels of the longer side.
        longer = max(resize, _CELL * round(longer / _CELL))
        return cls(resize, (resize, longer) if width >= height else (longer, resize), False)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.tiles:
            return self._brought_to(self.tiles.picture, height, width)
        if not self.crop:
            return self.size
        scale = self.resize / min(height, width)
        return max(self.resize, round(height * scale)), max(self.resize, round(width * scale))

    def _brought_to(self, picture: tuple[int, int], height: int, width: int) -> tuple[int, int]:
        """Return the size that an image is brought to, and refuse one that is too small."""
        if height < picture[0] or width < picture[1]:
            raise SpadeError(
                f"is {width}x{height} pixels, and the index looks at {picture[1]}x{picture[0]}, "
                "in tiles: an image enlarged to that would lack what is learnt; take it as the "
                "index's were taken"
            )
        return picture

    def _affine(self, height: int, width: int) -> tuple[tuple[float, float], tuple[int, int]]:
        """Return original pixels per input pixel, and the crop's corner in the resized image."""
        rows, cols = self._resized(height, width)
        corner = (rows - self.size[0]) // 2, (cols - self.size[1]) // 2
        return (height / rows, width / cols), corner

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return what the network is shown of an image `[H, W, C]`, `[h, w, C]`."""
        wide = self.apply_with_margin(image)
        return self.inner(self.painted(wide, image.shape[:2]))

    def apply_with_margin(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the input and the margin around it, `[h + 2 m, w + 2 m, C]`: nothing is painted.

        Raises
        ------
        SpadeError
            If the image is too small for tiles, or as `shown` does.
        """
        self.shown(image.shape[:2])
        return _inside_margin(
            _resize(image, self._resized(*image.shape[:2])), self.size, self.margin
        )

    def unframed(
        self, wide: npt.NDArray[np.uint8], original: tuple[int, int], missing: int = 0
    ) -> npt.NDArray[np.uint8]:
        """Return an image of a height and width, resized, as far as its input has it.

        Parameters
        ----------
        wide : uint8 [.., .., C]
            The input, with its margin or without.
        original : (int, int)
        missing : int
            What is shown of the rest.

        Returns
        -------
        uint8 [.., .., C]
            The resized image, before the crop.
        """
        resized = self._resized(*original)
        whole = np.full((*resized, wide.shape[2]), missing, np.uint8)
        # The input is in the middle of the resized image, and the margin all around it.
        margin = (wide.shape[0] - self.size[0]) // 2
        starts = [(side - own) // 2 - margin for side, own in zip(resized, self.size, strict=True)]
        (top, left), (y, x) = ([max(0, sign * at) for at in starts] for sign in (1, -1))
        seen = wide[y : y + resized[0] - top, x : x + resized[1] - left]
        whole[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
        return whole

    def apply_mask(self, mask: Mask) -> Mask:
        """Return a mask `[H, W]` framed like its image, by nearest pixel, `[h, w]`."""
        rows, cols = self._resized(*mask.shape)
        y = _nearest_index(rows, mask.shape[0])
        x = _nearest_index(cols, mask.shape[1])
        top, left = ((side - own) // 2 for side, own in zip((rows, cols), self.size, strict=True))
        framed = np.zeros(self.size, bool)
        inside = mask[y[max(top, 0) :, None], x[max(left, 0) :]]
        inside = inside[: self.size[0] - max(-top, 0), : self.size[1] - max(-left, 0)]
        framed[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
        return framed

    def seen(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the box (left, top, right, bottom) of an image that the network sees."""
        left, top, right, bottom = self.to_original(
            (0, 0, self.size[1], self.size[0]), (height, width)
        )
        return (
            max(0, round(left)),
            max(0, round(top)),
            min(width, round(right)),
            min(height, round(bottom)),
        )

    def stretch(self, height: int, width: int) -> float:
        """Return how many times as far an image is stretched one way as the other, 1 or more.

        As far as it is more than whole cells of the coarsest level make it anyway; 1 with a crop.
        """
        rows, cols = self._resized(height, width)
        if self.crop:
            return 1.0
        ratio = rows / height * width / cols
        longer = max(rows, cols)
        return max(1.0, max(ratio, 1 / ratio) * longer / (longer + _CELL / 2))

    def to_original(
        self, box: tuple[float, float, float, float], original: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """Return a box (left, top, right, bottom) of the input in pixels of the original."""
        (sy, sx), (top, left) = self._affine(*original)
        x0, y0, x1, y1 = box
        return (x0 + left) * sx, (y0 + top) * sy, (x1 + left) * sx, (y1 + top) * sy

    def to_input(self, point: tuple[int, int], original: tuple[int, int]) -> tuple[int, int]:
        """Return the input pixel (x, y) that lies under pixel (x, y) of the original."""
        (sy, sx), (top, left) = self._affine(*original)
        x = int((point[0] + 0.5) / sx - left)
        y = int((point[1] + 0.5) / sy - top)
        return min(max(x, 0), self.size[1] - 1), min(max(y, 0), self.size[0] - 1)

    def place(self, values: Floats, original: tuple[int, int]) -> Floats:
        """Return a map of the input `[h, w]` on the original's pixel grid `[H, W]`.

        Bilinear between the centres of input pixels. What the crop left out, or the region, was
        never looked at and is 0, which no distance is below.
        """
        given = torch.from_numpy(values)
        placed: Floats = _placing_here(self, original)(given).numpy()
        return placed


@dataclass(frozen=True)
class Placing:
    """How maps of an input are placed on an image's grid; made by `of`.

    Attributes
    ----------
    axes : (Axis, Axis) or None
        Of lines and columns; None where both grids are the same.
    around : tuple of int
        Pixels of the image at the left, right, top and bottom that the input leaves out.
    region : tuple of tensors or None
        What is looked at of the input, and of the image, and its share of each pixel there.
    """

    axes: tuple[Axis, Axis] | None
    around: tuple[int, int, int, int]
    region: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def of(cls, framing: Framing, original: tuple[int, int], device: torch.device) -> Placing:
        """Return what places maps of an input on an image of a height and width."""
        (sy, sx), (top, left) = framing._affine(*original)
        axes, around = None, (0, 0, 0, 0)
        if framing.size != original or (sy, sx, top, left) != (1, 1, 0, 0):
            x0, y0, x1, y1 = framing.seen(*original)
            axes = (
                placed_at(y0, y1, sy, top, framing.size[0], device),
                placed_at(x0, x1, sx, left, framing.size[1], device),
            )
            around = (x0, original[1] - x1, y0, original[0] - y1)
        whole = cls(axes, around)
        if framing.roi is None or framing.looked_at is None:
            return whole
        seen = torch.from_numpy(framing.looked_at).to(device)
        looked = torch.from_numpy(framing.roi.on(original)).to(device)
        return cls(axes, around, (seen, looked, whole(seen.float())))

    def __call__(self, values: Tensor) -> Tensor:
        """Return maps float32 [..., h, w] as `Framing.place` does, [..., H, W], on their device.

        Also where the grids are the same the result has memory of its own.
        """
        if self.region is None:
            return self._placed(values)
        seen, looked, shares = self.region
        placed = self._placed(torch.where(seen, values, 0))
        return torch.where(looked, torch.where(shares > 0, placed / shares, placed), 0)

    def _placed(self, values: Tensor) -> Tensor:
        return pad(resample(values, *self.axes), self.around) if self.axes else values.clone()


@lru_cache(16)
def _placing_here(framing: Framing, original: tuple[int, int]) -> Placing:
    return Placing.of(framing, original, torch.device("cpu"))


@lru_cache(8)
def _shown(framing: Framing, original: tuple[int, int]) -> Mask:
    assert framing.roi is not None
    # As images are resized: what is not looked at has a part in whatever is more than 0.
    left_out = _resize((~framing.roi.on(original)).astype(np.float32), framing._resized(*original))
    shown: Mask = _inside_margin(left_out, framing.size, framing.margin) == 0
    if not framing.inner(shown).any():
        height, width = framing.size
        raise SpadeError(
            f"the region is too small: nothing of it is left of {original[1]}x{original[0]} pixels "
            f"when the network sees {width}x{height} of them; look at more"
        )
    return shown


def _resize(image: npt.NDArray[Sample], size: tuple[int, int]) -> npt.NDArray[Sample]:
    """Return an image in a height and width: by areas if it shrinks, else bilinear."""
    if size == image.shape[:2]:
        return image
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    resized: npt.NDArray[Sample] = cv2.resize(  # type: ignore[assignment]
        image,  # type: ignore[arg-type]
        size[::-1],
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    return resized


def _inside_margin(
    resized: npt.NDArray[Sample], size: tuple[int, int], margin: int
) -> npt.NDArray[Sample]:
    """Return the middle of a resized image, and a margin, mirrored beyond the image's border."""
    starts = [(side - own) // 2 - margin for side, own in zip(resized.shape, size, strict=False)]
    ends = [start + own + 2 * margin for start, own in zip(starts, size, strict=True)]
    if min(starts) >= 0 and ends[0] <= resized.shape[0] and ends[1] <= resized.shape[1]:
        return np.ascontiguousarray(resized[starts[0] : ends[0], starts[1] : ends[1]])
    rows, cols = (
        _mirror(np.arange(start, end), side)
        for start, end, side in zip(starts, ends, resized.shape, strict=False)
    )
    return resized[rows[:, None], cols]


def _mirror(at: npt.NDArray[np.intp], side: int) -> npt.NDArray[np.intp]:
    """Return places within a side, of those and of their mirror images beyond it."""
    at = at % (2 * side)
    return np.minimum(at, 2 * side - 1 - at)


def _nearest_index(size: int, original: int) -> npt.NDArray[np.intp]:
    return np.minimum(((np.arange(size) + 0.5) * (original / size)).astype(np.intp), original - 1)
