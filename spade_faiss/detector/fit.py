"""Make an index, or the next generation of one: fit, add, remove, look at another region."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .._support.faiss import path_for_faiss
from .._support.text import valid
from ..errors import SpadeError
from ..images import Framing, Images, OnError, Source, report_problem
from ..images.roi import Roi
from ..images.source import named, numbers_after, own_name
from ..index import (
    Index,
    discard_leftovers,
    index_lock,
)
from ..index.manifest import BackboneRecord
from .extract import (
    framing_for,
    sources_of,
)
from .generation import Generation, check_area
from .pipeline import Pipeline, record_of


def fit(
    pipeline: Pipeline, images: Images, folder: Path, *, calibrate: bool, on_error: OnError | None
) -> Index:
    """Index good images in a folder; the index replaces one that is there.

    Parameters
    ----------
    pipeline : Pipeline
        Of no index.
    images : folder, paths, arrays, or others; see `spade_faiss.images.Images`
    folder : Path
    calibrate : bool
        Whether to score each image against the others and so to find the thresholds.
    on_error : callable, optional
        Called with (name, why) for an image that cannot be used, which is then left out.

    Raises
    ------
    SpadeError
        If an image cannot be used (without `on_error`), none can, or the folder cannot be written.
    """
    path_for_faiss(folder)  # or it would be refused once all is done
    sources = sources_of(images, on_error)
    backbone = record_of(pipeline.network)
    with index_lock(folder), _generation(folder, pipeline, backbone) as new:
        framing, sources = framing_for(pipeline, sources)
        new.extend(sources, framing, on_error)
        return new.finish(calibrate=calibrate)


def add(pipeline: Pipeline, images: Images, on_error: OnError | None) -> tuple[Index, int]:
    """Add good images to an index, and score all of its images anew where that changes them.

    Returns
    -------
    index : Index
    added : int
        An image whose path is in the index already is refused. One without a path gets the
        number after those that are there.
    """
    with _changing(pipeline) as old:
        before = {image.path for image in old.manifest.images}
        numbers, names = numbers_after(before), set[str]()
        sources: list[Source] = []
        for source in sources_of(images, on_error):
            name = own_name(source)
            if name is None:
                sources.append(named(source, f"image {next(numbers)}"))
            elif name in before:
                report_problem(on_error, name, "is in the index already; remove it first")
            elif name in names:
                report_problem(on_error, name, "is given twice; it is added once")
            else:
                names.add(name)
                sources.append(source)
        if not sources:
            return old, 0
        backbone = record_of(pipeline.on(old).network)
        with _generation(old.folder, pipeline, backbone, old) as new:
            new.keep(range(len(old)), more=len(sources))
            new.extend(sources, old.manifest.framing.framing(), on_error)
            index = new.finish(calibrate=old.manifest.calibration is not None)
        return index, len(index) - len(old)


def remove(pipeline: Pipeline, names: Iterable[str], on_error: OnError | None) -> tuple[Index, int]:
    """Remove training images from an index; return it, and how many were removed.

    A name is a path as `info` lists it, or the end of one that no other shares.
    """
    with _changing(pipeline) as old:
        paths = [image.path for image in old.manifest.images]
        gone: set[int] = set()
        for name in names:
            try:
                gone.add(_find(name, paths))
            except SpadeError as error:
                report_problem(on_error, name, str(error))
        if len(gone) == len(paths):
            raise SpadeError(f"an index cannot be empty; delete the folder {old.folder} instead")
        if not gone:
            return old, 0
        with _generation(old.folder, pipeline, old.manifest.backbone, old) as new:
            new.keep([i for i in range(len(paths)) if i not in gone])
            return new.finish(calibrate=old.manifest.calibration is not None), len(gone)


def look_at(pipeline: Pipeline, roi: Roi | None) -> tuple[Index, bool]:
    """Give an index another region, its features made anew of what it keeps of its images.

    Returns
    -------
    index : Index
    changed : bool
        Whether it had another before.

    Raises
    ------
    SpadeError
        If it does not keep enough of its images, or the region does not suit them, or the folder
        cannot be written.
    """
    with _changing(pipeline) as old:
        if old.manifest.framing.framing().roi == roi:
            return old, False
        framing = check_region(old, roi)
        backbone = record_of(pipeline.on(old).network)
        with _generation(old.folder, pipeline, backbone, old, framing) as new:
            new.learn_kept()
            return new.finish(calibrate=old.manifest.calibration is not None), True


def check_region(index: Index, roi: Roi | None) -> Framing:
    """Return the framing of an index with another region, if it can be given that; see `look_at`.

    Raises
    ------
    SpadeError
        If it does not keep enough of its images, or the region does not suit them.
    """
    check_keeps_all(index)
    framing = replace(index.manifest.framing.framing(), roi=roi)
    for size in {(one.height, one.width) for one in index.manifest.images}:
        framing.shown(size)
    check_area(index.manifest.min_area, framing, index.manifest.images)
    return framing


def check_keeps_all(index: Index) -> None:
    """Refuse an index that does not keep all that its features were made of.

    Raises
    ------
    SpadeError
        If it can be given no other region.
    """
    if index.manifest.motion:
        raise SpadeError(
            f"{index.folder} looks at motion and keeps no frames before its images, so that it "
            "cannot be given another region: build it again with `region`"
        )
    if index.manifest.framing.margin and not index.manifest.keeps_margins:
        raise SpadeError(
            f"{index.folder} was made by an older version, which did not keep the margins of its "
            "images, so that it cannot be given another region: build it again with `region`"
        )


def copy_index(source: Index, target: Path) -> None:
    """Copy an index into a folder of its own; it replaces an index that is there."""
    if target.exists() and target.samefile(source.folder):
        return
    generation = source.manifest.generation
    with index_lock(target):
        discard_leftovers(target)
        shutil.copytree(source.folder / generation, target / generation, dirs_exist_ok=True)
        source.manifest.write(target)
        discard_leftovers(target)


@contextmanager
def _changing(pipeline: Pipeline) -> Iterator[Index]:
    """Lock an index, and give it as it is now: another process may have changed it."""
    folder = pipeline.index.folder
    with index_lock(folder):
        yield Index.open(folder)


@contextmanager
def _generation(
    folder: Path,
    pipeline: Pipeline,
    backbone: BackboneRecord,
    old: Index | None = None,
    framing: Framing | None = None,
) -> Iterator[Generation]:
    """Give the builder of a folder's next generation, which goes unless it is finished."""
    discard_leftovers(folder)
    new = Generation(folder, pipeline.on(None), backbone, old, framing)
    try:
        yield new
    except BaseException as error:
        new.abandon()
        if isinstance(error, OSError):
            raise SpadeError(
                f"{folder} cannot be written: {error.strerror or error}; "
                "what was there before is whole"
            ) from None
        raise
    finally:
        discard_leftovers(folder)  # by what counts: a signal may come between any two steps


def _find(name: str, paths: Sequence[str]) -> int:
    """Return the place of the one path that is `name`, or leads to the same file, or ends in it.

    A name may also be as JSON has it.
    """
    same: list[Callable[[str], bool]] = [
        lambda path: path == name,
        lambda path: valid(path) == name,
        lambda path: os.path.abspath(path) == os.path.abspath(name),  # noqa: PTH100
        lambda path: Path(path).as_posix().endswith(f"/{Path(name).as_posix()}"),
    ]
    for test in same:
        places = [i for i, path in enumerate(paths) if test(path)]
        if len(places) == 1:
            return places[0]
        if len({paths[i] for i in places}) == 1:
            raise SpadeError(
                f"is the name of {len(places)} images of the index, which cannot be told apart; "
                "build it again without the one"
            )
        if places:
            raise SpadeError(f"is the end of {len(places)} paths of the index; name one whole")
    raise SpadeError("is not in the index; `manifest.images` lists its images")
