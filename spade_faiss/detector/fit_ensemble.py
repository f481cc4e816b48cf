"""Make an ensemble, or the next generation of one: fit, add, remove, look at another region."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from .._support.faiss import path_for_faiss
from .._support.files import link_or_copy, sync_folder
from ..errors import SpadeError
from ..images import Images, OnError
from ..images.roi import Roi
from ..index import EnsembleManifest, Index, index_lock, is_ensemble
from ..index.ensemble import Member
from ..index.generation import discard_generations
from ..index.manifest import ENSEMBLE, MANIFEST
from ..index.record import file_sha256
from ..index.scores import ByHand
from .average import learn_statistics
from .extract import is_stream
from .spade import Spade

Changed = tuple[int, EnsembleManifest, Sequence[Spade]]
"""How many images were added or removed; what counts now, and its members."""


def fit(
    members: Sequence[Spade],
    images: Images,
    folder: Path,
    *,
    calibrate: bool,
    on_error: OnError | None,
) -> EnsembleManifest:
    """Fit members in a folder, score each image against the others, and make that count.

    Parameters
    ----------
    members : sequence of Spade
        They share one `Stages`.
    images : folder, paths, arrays, or others; see `spade_faiss.images.Images`
    folder : Path
        An ensemble that is there is replaced.
    calibrate : bool
        Whether to find thresholds.
    on_error : callable, optional
        Called with (name, why) for an image that cannot be used, which is then left out.

    Raises
    ------
    SpadeError
        If an image cannot be used (without `on_error`), fewer than two can, the images are a
        stream, or the folder cannot be written.
    """
    path_for_faiss(folder)
    images = _again_and_again(images)
    with index_lock(folder, ENSEMBLE), _new_generation(folder) as place:
        for number, member in enumerate(members):
            own = place / str(number + 1)
            member.fit(images, own, calibrate=False, on_error=_first_alone(on_error, number))
            _check_size(member)
        return _keep(folder, place, members, calibrate=calibrate)


def add(
    members: Sequence[Spade],
    folder: Path,
    was: EnsembleManifest,
    images: Images,
    on_error: OnError | None,
) -> Changed:
    """Add good images to each member and calibrate anew; all members change, or none.

    `was` is the state of the folder that the members are of.
    """
    images = _again_and_again(images)
    return _change(
        members, folder, was, lambda member, report: member.add(images, report), on_error
    )


def remove(
    members: Sequence[Spade],
    folder: Path,
    was: EnsembleManifest,
    names: Iterable[str],
    on_error: OnError | None,
) -> Changed:
    """Remove images from each member by path and calibrate anew; all members change, or none.

    `was` is the state of the folder that the members are of.
    """
    names = list(names)

    def change(member: Spade, report: OnError | None) -> int:
        return member.remove(names, report)

    return _change(members, folder, was, change, on_error)


def look_at(
    members: Sequence[Spade], folder: Path, was: EnsembleManifest, roi: Roi | None
) -> Changed:
    """Give each member another region and calibrate anew; all members change, or none.

    `was` is the state of the folder that the members are of. If it has the region, 0 changed.
    """
    return _change(members, folder, was, lambda member, _: member.look_at(roi), None)


def _change(
    members: Sequence[Spade],
    folder: Path,
    was: EnsembleManifest,
    change: Callable[[Spade, OnError | None], int],
    on_error: OnError | None,
) -> Changed:
    """Change copies of the members, and make these count if the first one's images changed."""
    with index_lock(folder, ENSEMBLE), _new_generation(folder) as place:
        old = EnsembleManifest.read(folder)
        if old.generation != was.generation:
            raise SpadeError(f"{folder} was changed by another process just now; open it again")
        copies = []
        for number, (member, record) in enumerate(zip(members, old.members, strict=True)):
            own = place / str(number + 1)
            shutil.copytree(folder / record.folder, own, copy_function=link_or_copy)
            # The change itself verifies it.
            copies.append(member.with_pipeline(member.pipeline.on(Index.open(own, verify=False))))
        counts = [
            change(member, _first_alone(on_error, number)) for number, member in enumerate(copies)
        ]
        if not counts[0]:
            return 0, was, members
        calibrate = old.calibration is not None
        manifest = _keep(folder, place, copies, old.by_hand, calibrate=calibrate)
        return counts[0], manifest, copies


def _keep(
    folder: Path,
    place: Path,
    members: Sequence[Spade],
    by_hand: tuple[ByHand, ...] = (),
    *,
    calibrate: bool,
) -> EnsembleManifest:
    """Find the statistics of members whose indices lie in `place`, and make these count."""
    _check_size(members[0])
    with members[0].stages("calibration"):
        statistics, calibration = learn_statistics(
            [member.pipeline for member in members], calibrate=calibrate
        )
    by_mean = members[0].index_.manifest.score == "mean"
    if calibration and not by_mean:  # older programs can read it, and nobody asks for them
        calibration = calibration.without_means()
    sync_folder(place)
    manifest = EnsembleManifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        members=tuple(
            Member(
                folder=f"{place.name}/{number}",
                statistics=own,
                manifest_sha256=file_sha256(place / str(number) / MANIFEST),
            )
            for number, own in enumerate(statistics, 1)
        ),
        calibration=calibration,
    )
    if by_hand or (calibration and calibration.means):
        manifest = manifest.extended(by_hand=by_hand)
    manifest.write(folder)
    return manifest


@contextmanager
def _new_generation(folder: Path) -> Iterator[Path]:
    """Make a folder for members, which goes if by the end another generation counts."""

    def discard_others() -> None:
        counts = EnsembleManifest.read(folder).generation if is_ensemble(folder) else None
        discard_generations(folder, counts)

    discard_others()
    place = folder / secrets.token_hex(4)
    try:
        place.mkdir()
        yield place
    except OSError as error:
        raise SpadeError(
            f"{folder} cannot be written: {error.strerror or error}; what was there before is whole"
        ) from None
    finally:
        discard_others()


def _check_size(member: Spade) -> None:
    if len(member.index_) < 2:
        raise SpadeError("an ensemble needs two good images or more, to know how good ones differ")


def _again_and_again(images: Images) -> Images:
    if is_stream(images):
        raise SpadeError("an ensemble goes through its images several times; pass a list")
    return images


def _first_alone(on_error: OnError | None, number: int) -> OnError | None:
    """Return what reports an image for the first member alone: the others cannot use it either."""
    return on_error if number == 0 or on_error is None else lambda name, why: None
