"""Read data sets laid out as MVTec AD is (Bergmann et al., CVPR 2019).

- `<category>/train/good/000.png`
- `<category>/test/good/000.png`
- `<category>/test/<defect>/000.png`
- `<category>/ground_truth/<defect>/000_mask.png`
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import SpadeError
from ..images import SUFFIXES

GOOD = "good"


@dataclass(frozen=True)
class TestImage:
    """A test image.

    Attributes
    ----------
    path : Path
    defect : str
        The kind of defect, or `good`.
    mask : Path or None
        The mask of the defect; None for a good image.
    """

    __test__ = False  # no test case, whatever pytest makes of the name

    path: Path
    defect: str
    mask: Path | None


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
    """

    name: str
    train: tuple[Path, ...]
    test: tuple[TestImage, ...]


def load_mvtec(
    root: str | os.PathLike[str], names: Collection[str] | None = None
) -> list[Category]:
    """List the images of a data set, sorted by category; none is decoded.

    Folders that hold neither `train` nor `test` are passed over, and so are hidden files and
    files without an image's suffix.

    Parameters
    ----------
    root : path
        The folder of one category, or of several.
    names : collection of str, optional
        The categories to load; by default, or if empty, all. The others are not checked.

    Raises
    ------
    SpadeError
        If there is no category, or not the one named; for the first category that lacks good
        training images, good test images or defects, on which no metric is defined; and for
        the first defect without a mask.
    """
    root = Path(root)
    if not root.is_dir():
        raise SpadeError(f"{root}: no such folder")
    if _is_category(root):
        folders = {root.resolve().name if root.name in ("", "..") else root.name: root}
    else:
        folders = {folder.name: folder for folder in _folders(root) if _is_category(folder)}
    if not folders:
        raise SpadeError(f"{root} holds no category of MVTec AD's layout (train/good, test/…)")
    for name in names or ():
        if name not in folders:
            raise SpadeError(f"{root} has no category {name}; there are: {', '.join(folders)}")
    return [_load(name, folder) for name, folder in folders.items() if not names or name in names]


def read_mask(path: str | os.PathLike[str], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode a mask to bool `[H, W]`: True where a sample is not zero.

    Any value but zero is a defect, so that masks of 0/255 and of 0/1 mean the same; MVTec's
    own evaluation code reads them so. A palette is resolved first; alpha is dropped.

    Parameters
    ----------
    path : path
    size : (int, int)
        Height and width of the image that the mask belongs to.

    Raises
    ------
    SpadeError
        If the file cannot be decoded, or its size is not the image's.
    """
    try:
        with Image.open(path) as opened:
            mask = ImageOps.exif_transpose(opened)
            if mask.mode == "P" or len(mask.getbands()) > 1:
                mask = mask.convert("RGB")
            samples = np.atleast_3d(np.asarray(mask))
    except UnidentifiedImageError:
        raise SpadeError(f"{path}: the mask is not an image; copy it again") from None
    except Image.DecompressionBombError:
        raise SpadeError(f"{path}: the mask has too many pixels to be decoded safely") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        why = getattr(error, "strerror", None) or "damaged or cut short"
        raise SpadeError(f"{path}: the mask cannot be read ({why}); copy it again") from None
    marked = np.asarray(samples.any(axis=2))
    if marked.shape != tuple(size):
        raise SpadeError(f"{path}: the mask is {marked.shape[1]}x{marked.shape[0]} pixels and "
                         f"its image {size[1]}x{size[0]}; they must be of one size")
    return marked


def _is_category(folder: Path) -> bool:
    return (folder / "train").is_dir() or (folder / "test").is_dir()


def _load(name: str, folder: Path) -> Category:
    train = tuple(_images(folder / "train" / GOOD))
    if not train:
        raise SpadeError(f"{folder} has no good images to learn from in train/{GOOD}")
    if not (folder / "test").is_dir():
        raise SpadeError(f"{folder} has no folder named test")
    test = tuple(_test_images(folder))
    kinds = {image.defect for image in test}
    if GOOD not in kinds:
        raise SpadeError(f"{folder} has no images in test/{GOOD}: no metric is defined without")
    if kinds == {GOOD}:
        raise SpadeError(f"{folder} has no defects in test: no metric is defined without")
    return Category(name, train, test)


def _test_images(category: Path) -> Iterator[TestImage]:
    for folder in _folders(category / "test"):
        for path in _images(folder):
            mask = None if folder.name == GOOD else _mask(category, path)
            yield TestImage(path, folder.name, mask)


def _mask(category: Path, image: Path) -> Path:
    folder = category / "ground_truth" / image.parent.name
    mask = folder / f"{image.stem}_mask.png"
    for candidate in (mask, folder / f"{image.stem}.png"):
        if candidate.is_file():
            return candidate
    raise SpadeError(f"{image} has a defect and no mask: {mask} is missing")


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _images(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.suffix.lower() in SUFFIXES and path.is_file()]


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
