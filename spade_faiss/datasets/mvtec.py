"""Read data sets laid out as MVTec AD is, and its kin, where only names differ.

MVTec AD (Bergmann et al., CVPR 2019):

- `<category>/train/good/000.png`
- `<category>/test/good/000.png`
- `<category>/test/<defect>/000.png`
- `<category>/ground_truth/<defect>/000_mask.png`

MVTec LOCO AD (Bergmann et al., IJCV 2022) has several masks an image:

- `<category>/test/logical_anomalies/000.png`, `test/structural_anomalies/…`
- `<category>/ground_truth/logical_anomalies/000/000.png`, `001.png` …
- `<category>/defects_config.json`

MVTec AD 2 (Heckler-Kram et al., 2025):

- `<category>/test_public/good/000_regular.png`, `test_public/bad/…`
- `<category>/test_public/ground_truth/bad/000_regular_mask.png`

VisA (Zou et al., ECCV 2022), for one class: as its own script arranges it (`1cls/<category>/…`,
masks named like their images), or as downloaded, divided by `split_csv/1cls.csv`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpadeError
from ..images import SUFFIXES, OnError, may_be_image, passed_over
from .category import GOOD, Category, TestImage
from .loco import read_config
from .problems import BrokenError, Problems
from .visa import CATEGORIES, SPLIT, read_split


def load_mvtec(
    root: str | os.PathLike[str],
    names: Collection[str] | None = None,
    on_error: OnError | None = None,
) -> list[Category]:
    """List the images of a data set, sorted by category; none is decoded.

    The layout is found by looking at the folders. Folders that are no category are passed
    over, and so are hidden files and files without an image's suffix.

    Parameters
    ----------
    root : path
        The folder of one category, or of several.
    names : collection of str, optional
        The categories to load; by default, or if empty, all. The others are not checked.
    on_error : callable, optional
        Called with (name, why) for what is broken: a defect without a mask where others have
        one, which counts for no pixel metric; a mask without an image, which is passed over;
        and a category that is not there or lacks good training images, good test images or
        defects, on which no metric is defined. Without it the first of these raises SpadeError.

    Raises
    ------
    SpadeError
        If there is no category, or none that was named.
    """
    root = Path(root)
    if not root.is_dir():
        raise SpadeError(f"{root}: no such folder")
    if (root / "1cls").is_dir():
        root = root / "1cls"
    loaders = _categories(root)
    if not loaders:
        raise SpadeError(
            f"{root} holds no category of the layout of MVTec AD (train/good, test/…), MVTec "
            "LOCO AD, MVTec AD 2 or VisA"
        )
    wanted = list(dict.fromkeys(names or loaders))
    there = [name for name in wanted if name in loaders]
    problems = Problems(on_error if there else None)
    for name in wanted:
        if name not in loaders:
            problems(
                name, f"{root} has no such category; there are: {', '.join(loaders)}", "passed over"
            )
    found: list[Category] = []
    for name in sorted(there):
        try:
            found.append(loaders[name](name, problems))
        except BrokenError as error:
            problems(error.where, error.why, "the category is left out")
        except OSError as error:
            problems(
                error.filename or name,
                f"cannot be read ({error.strerror})",
                "the category is left out",
            )
    return found


_Loader = Callable[[str, Problems], Category]


@dataclass(frozen=True)
class _Layout:
    """What the folders of a category are called, and how the masks of an image are found.

    Attributes
    ----------
    name, test, truth : str
    masks : callable
        Given the folder of a defect's masks, returns the masks by the stem of their image.
    notes : dict of str to str
        What is said where a folder is there.
    """

    name: str
    test: str
    truth: str
    masks: Callable[[Path], dict[str, tuple[Path, ...]]]
    notes: dict[str, str]


def _mask_files(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return one mask an image, `<image>_mask.png` before `<image>.png`."""
    masks: dict[str, tuple[Path, ...]] = {}
    for path in _images(folder):
        stem = path.stem.removesuffix("_mask")
        if stem not in masks or path.stem.endswith("_mask"):
            masks[stem] = (path,)
    return masks


def _mask_folders(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return all masks in the folder of each image."""
    return {one.name: tuple(_images(one)) for one in _folders(folder) if _images(one)}


_VALIDATION = {"validation": "validation/good is not used: thresholds are drawn from train/good"}
_MVTEC = _Layout("mvtec", "test", "ground_truth", _mask_files, {})
_VISA = _Layout("visa", "test", "ground_truth", _mask_files, {})
_LOCO = _Layout("mvtec-loco", "test", "ground_truth", _mask_folders, _VALIDATION)
_PRIVATE = {
    name: f"{name} has no ground truth and is passed over"
    for name in ("test_private", "test_private_mixed")
}
_AD_2 = _Layout(
    "mvtec-ad-2", "test_public", "test_public/ground_truth", _mask_files, _VALIDATION | _PRIVATE
)


def _layout(folder: Path) -> _Layout | None:
    """Return how a category's folder is laid out, or None if it is no category."""
    if (folder / "test_public").is_dir():
        return _AD_2
    defects = {one.name for one in _folders(folder / "test")} - {GOOD}
    if defects & {"logical_anomalies", "structural_anomalies"}:
        return _LOCO
    if defects == {"bad"} and folder.name in CATEGORIES:
        return _VISA
    return _MVTEC if (folder / "train").is_dir() or (folder / "test").is_dir() else None


def _categories(root: Path) -> dict[str, _Loader]:
    """Return what loads each category, by name."""
    if (root / SPLIT).is_file():
        return {name: _split_loader(root, rows) for name, rows in read_split(root).items()}
    layout = _layout(root)
    if layout:
        name = root.resolve().name if root.name in ("", "..") else root.name
        return {name: _folder_loader(root, layout)}
    loaders: dict[str, _Loader] = {}
    for folder in _folders(root):
        try:
            found = _layout(folder)
        except OSError:  # which is reported when it is loaded
            found = _MVTEC
        if found:
            loaders[folder.name] = _folder_loader(folder, found)
    return loaders


def _folder_loader(folder: Path, layout: _Layout) -> _Loader:
    def load(name: str, problems: Problems) -> Category:
        if not (folder / layout.test).is_dir():
            raise BrokenError(folder, f"there is no folder named {layout.test}")
        test: list[TestImage] = []
        for images in _folders(folder / layout.test):
            if images != folder / layout.truth:
                test += _test_images(images, folder / layout.truth / images.name, layout, problems)
        for truth in _folders(folder / layout.truth):
            if not (folder / layout.test / truth.name).is_dir():
                problems(
                    truth,
                    f"has masks, and there is no folder {layout.test}/{truth.name}",
                    "they are passed over",
                )
        name_unmasked(test, folder / layout.truth, problems)
        notes = tuple(text for one, text in layout.notes.items() if (folder / one).is_dir())
        notes += _passed_over(
            [folder / "train" / GOOD, *_folders(folder / layout.test)], folder / layout.truth
        )
        train = tuple(_images(folder / "train" / GOOD))
        config = read_config(folder, problems)
        category = Category(name, train, tuple(test), layout.name, notes, config)
        return checked(category, folder, f"train/{GOOD}", f"{layout.test}/{GOOD}", layout.test)

    return load


def _test_images(folder: Path, truth: Path, layout: _Layout, problems: Problems) -> list[TestImage]:
    """Return the images of one kind of defect, or the good ones, with their masks."""
    paths = _images(folder)
    if folder.name == GOOD:
        return [TestImage(path, GOOD, ()) for path in paths]
    masks = layout.masks(truth)
    for stem in sorted(masks.keys() - {path.stem for path in paths}):
        problems(masks[stem][0], f"is a mask without an image in {folder}", "passed over")
    return [TestImage(path, folder.name, masks.get(path.stem, ())) for path in paths]


def name_unmasked(test: Sequence[TestImage], where: object, problems: Problems) -> None:
    """Report the defects that have no mask where others have one; of a whole kind in one line.

    `where` the masks should be. Where no defect has one, none is broken.
    """
    if not any(one.masks for one in test):
        return
    done = "for image metrics alone"
    for kind in dict.fromkeys(one.defect for one in test if one.wrong):
        own = [one for one in test if one.defect == kind]
        without = [one for one in own if not one.masks]
        if len(own) == len(without) > 1:
            folder = os.path.commonpath([one.path.parent for one in own])
            problems(
                folder, f"{len(own)} defects ({kind}) have no mask in {where}", f"they count {done}"
            )
        else:
            for one in without:
                problems(one.path, f"has a defect and no mask in {where}", f"it counts {done}")


def _split_loader(root: Path, rows: list[dict[str, str]]) -> _Loader:
    def load(name: str, problems: Problems) -> Category:
        train: list[Path] = []
        test: list[TestImage] = []
        for row in rows:
            good = row["label"] == "normal"
            path = root / row["image"]
            masks = () if good or not row["mask"] else (root / row["mask"],)
            if missing := [file for file in (path, *masks) if not file.is_file()]:
                problems(
                    missing[0], f"is named in {SPLIT} and is not there", "the image is left out"
                )
            elif row["split"] == "train":
                train += [path] if good else []
            else:
                test.append(TestImage(path, GOOD if good else "bad", masks))
        test.sort(key=lambda image: (image.defect, image.path))
        name_unmasked(test, SPLIT, problems)
        category = Category(name, tuple(sorted(train)), tuple(test), "visa")
        return checked(category, root / name, f"train/{GOOD}", f"test/{GOOD}", "test")

    return load


def checked(category: Category, where: object, train: str, good: str, bad: str) -> Category:
    """Return a category that metrics are defined on.

    Parameters
    ----------
    category : Category
    where : object
        What it was read from.
    train, good, bad : str
        Where in that the training images, the good test images and the defects should be.

    Raises
    ------
    BrokenError
        If one of the three is missing.
    """
    kinds = set(category.kinds)
    if not category.train:
        raise BrokenError(where, f"there are no good images to learn from in {train}")
    if GOOD not in kinds:
        raise BrokenError(where, f"there are no images in {good}: no metric is defined")
    if kinds == {GOOD}:
        raise BrokenError(where, f"there are no defects in {bad}: no metric is defined")
    return category


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _images(folder: Path) -> list[Path]:
    # What cannot be read, such as a link that leads nowhere, is reported when it is decoded.
    return [
        path for path in _visible(folder) if path.suffix.lower() in SUFFIXES and not path.is_dir()
    ]


def _passed_over(folders: Sequence[Path], truth: Path) -> tuple[str, ...]:
    """Return lines on what may be images in folders of images, and is not read."""
    inside = [path for folder in folders if folder != truth for path in _visible(folder)]
    below = [path for path in inside if path.is_dir()]
    files = [
        path
        for path in inside
        if path not in below and may_be_image(path) and path.suffix.lower() not in SUFFIXES
    ]
    notes = [passed_over(files)] if files else []
    if below:
        many = (
            "1 folder in a folder of images:"
            if len(below) == 1
            else f"{len(below)} folders in folders of images, such as"
        )
        notes.append(f"passed over {many} {below[0]}")
    return tuple(notes)


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
