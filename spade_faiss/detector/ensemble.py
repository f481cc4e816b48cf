"""Several detectors as one: each member's maps in units of good images' own, then averaged."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import tee
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import numpy.typing as npt

from .._support.files import sync_folder
from .._support.stages import Stages
from ..errors import SpadeError
from ..features import Backbone
from ..images import Frame, OnError, decode_images
from ..index import (
    EnsembleManifest,
    Index,
    Manifest,
    index_lock,
    is_ensemble,
    rewrite_manifest,
)
from ..index.ensemble import Member, Usual
from ..index.manifest import (
    ENSEMBLE,
    MANIFEST,
    BackboneRecord,
    ByHand,
    Calibration,
    file_sha256,
)
from ..index.store import discard_generations
from ..verdict.drawn import drawn_of, image_weights, threshold_notes, unless_aimed
from ..verdict.judge import check_limits
from .judging import Judging
from .spade import Floats, Images, Prediction, Result, Spade, is_stream, record_of, sources_of

VIEWS = ("flip", "scale")
"""What a member may see instead of the image: its mirror image, or more pixels of it."""
_FINER = 1.25


class Ensemble(Judging):
    """Detectors with other networks, settings or views, averaged.

    Each member's map is standardised: the mean over the good images' leave-one-out maps is taken
    off, and the rest is divided by their standard deviation. So are the descriptors' scores.
    Their means over the members can be below 0.

    Parameters
    ----------
    members : sequence of Spade
        Maps are on the first one's grid; all should see the same part of an image.

    Attributes
    ----------
    index_ : Index
        The first member's, once fitted. Results tell of its neighbours and matches.
    calibration : Calibration or None
        Leave-one-out scores of the good images, and the thresholds drawn from them.
    folder : Path
    manifest : EnsembleManifest or None
        What its folder says, once fitted.
    stages : Stages
        Seconds spent by all members.
    """

    _least = -math.inf

    def __init__(self, members: Sequence[Spade]) -> None:
        if not members:
            raise SpadeError("an ensemble needs a member or more")
        self.members = tuple(members)
        self.calibration: Calibration | None = None
        self.stages = Stages()
        self._usual: tuple[Usual, ...] = ()
        self.manifest: EnsembleManifest | None = None
        self.folder = Path()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def of(
        cls,
        networks: Sequence[Backbone | str],
        views: Sequence[str] = (),
        weights: Sequence[str | os.PathLike[str] | None] = (),
        **settings: object,
    ) -> Ensemble:
        """Return an ensemble of each network on the image itself and on each view of it.

        Parameters
        ----------
        networks : sequence of Backbone or str
            Those that are named are loaded here, once for all views.
        views : sequence of str, some of VIEWS
        weights : sequence of path or None
            One for each network, or none.
        **settings
            As `Spade` takes them.

        Raises
        ------
        SpadeError
            If a view is unknown, or a network or its weights cannot be had.
        """
        for view in views:
            if view not in VIEWS:
                raise SpadeError(f"unknown view {view!r}: choose one of {', '.join(VIEWS)}")
        members = []
        for network, file in zip(networks, weights or [None] * len(networks), strict=True):
            plain = Spade(network, weights=file, **settings)  # type: ignore[arg-type]
            plain._loaded_network()  # which the views' copies share
            members.append(plain)
            if "flip" in views:
                members.append(plain.with_options(mirror=True))
            if "scale" in views:
                crop = None if plain.crop is None else round(_FINER * plain.crop)
                members.append(plain.with_options(resize=round(_FINER * plain.resize), crop=crop))
        return cls(members)

    @property
    def network(self) -> Backbone:
        """The first member's network."""
        return self.members[0].network

    @property
    def index_(self) -> Index:
        """The first member's index."""
        return self.members[0].index_

    @property
    def k(self) -> int:
        """Training images that an image is compared with."""
        return self.members[0].k

    @property
    def kappa(self) -> int:
        """Good patches that a patch is compared with."""
        return self.members[0].kappa

    @property
    def score(self) -> str:
        """What an image's score is, "map" or "descriptor"."""
        return self.members[0].score

    @property
    def quantile_(self) -> float | None:
        """The share of good images that the drawn thresholds are to let pass, once drawn."""
        return self.calibration.quantile if self.calibration else None

    # Fitting ------------------------------------------------------------------------------

    def fit(
        self,
        images: Images,
        index: str | os.PathLike[str] | None = None,
        *,
        calibrate: bool = True,
        on_error: OnError | None = None,
    ) -> Ensemble:
        """Index good images in each member, and score each image against the others.

        Parameters
        ----------
        images : folder, paths, or RGB uint8 arrays [H, W, 3]
        index : path, optional
            Folder to keep the ensemble in; it replaces an ensemble that is there. By default a
            temporary one that lasts as long as this object.
        calibrate : bool
            Whether to find the thresholds, for which the maps of all good images are kept in a
            temporary file.
        on_error : callable, optional
            Called with (name, why) for an image that cannot be used, which is then left out.

        Raises
        ------
        SpadeError
            If an image cannot be used (without `on_error`), or fewer than two can, or the
            images are a stream, which can be gone through but once.
        """
        images = _again_and_again(images)
        self._usual = ()
        if index is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="spade-faiss-")
            index = self._temporary.name
        folder = Path(index)
        with index_lock(folder, ENSEMBLE), _new_generation(folder) as place:
            for number, member in enumerate(self.members):
                member.stages = self.stages
                member.fit(
                    images,
                    place / str(number + 1),
                    calibrate=False,
                    on_error=first_alone(on_error, number),
                )
                _check_size(member.index_)
            self._keep(folder, place, self.members, calibrate)
        return self

    def add(self, images: Images, on_error: OnError | None = None) -> int:
        """Add good images to each member and calibrate anew; return how many were added.

        An image whose path is there already is refused. All members change, or none.
        """
        images = _again_and_again(images)
        _share_networks(self.members)
        return self._change(lambda member, report: member.add(images, report), on_error)

    def remove(self, names: Iterable[str], on_error: OnError | None = None) -> int:
        """Remove training images by path and calibrate anew; return how many were removed.

        Names are as `Spade.remove` takes them. All members change, or none.
        """
        names = list(names)
        return self._change(lambda member, report: member.remove(names, report), on_error)

    def _change(
        self, change: Callable[[Spade, OnError | None], int], on_error: OnError | None
    ) -> int:
        """Change copies of the members, and make these count; return what the first returns."""
        folder = self._fitted()
        with index_lock(folder, ENSEMBLE), _new_generation(folder) as place:
            old = EnsembleManifest.read(folder)
            if self.manifest is None or old.generation != self.manifest.generation:
                raise SpadeError(f"{folder} was changed by another process just now; open it again")
            members = []
            for number, (member, record) in enumerate(zip(self.members, old.members, strict=True)):
                own = place / str(number + 1)
                shutil.copytree(folder / record.folder, own, copy_function=_link)
                changed = member.with_options()
                changed.index_ = Index.open(own, verify=False)  # the change itself verifies it
                members.append(changed)
            counts = [
                change(member, first_alone(on_error, number))
                for number, member in enumerate(members)
            ]
            if counts[0]:
                self._keep(folder, place, members, old.calibration is not None, old.by_hand)
        return counts[0]

    def _keep(
        self,
        folder: Path,
        place: Path,
        members: Sequence[Spade],
        calibrate: bool,
        by_hand: tuple[ByHand, ...] = (),
    ) -> None:
        """Find what is usual for members whose indices lie in `place`, and make these count."""
        with self.stages("calibration"):
            usual, calibration = _leave_one_out(members, calibrate)
        sync_folder(place)
        manifest = EnsembleManifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            members=tuple(
                Member(
                    folder=f"{place.name}/{number}",
                    usual=own,
                    manifest_sha256=file_sha256(place / str(number) / MANIFEST),
                )
                for number, own in enumerate(usual, 1)
            ),
            calibration=calibration,
        )
        if by_hand:
            manifest = manifest.extended(by_hand=by_hand)
        manifest.write(folder)
        self.members = tuple(members)
        self._usual, self.calibration = tuple(usual), calibration
        self.folder, self.manifest = folder, manifest

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        k: int | None = None,
        kappa: int | None = None,
        weights: Sequence[str | os.PathLike[str]] = (),
        quantile: float | None = None,
        verify: bool = True,
        **options: Any,
    ) -> Ensemble:
        """Open an ensemble; what is not given is as it was when it was made.

        Parameters
        ----------
        folder : path
        k, kappa, quantile, verify, **options
            As `Spade.load` takes them. With another `k` or `kappa`, good images are scored anew.
        weights : sequence of path
            One for each network, in the members' order; or none.

        Raises
        ------
        SpadeError
            If there is no ensemble, or a file of it is missing or damaged.
        """
        folder = Path(folder)
        manifest = EnsembleManifest.read(folder)
        made = manifest.calibration
        options |= {
            "verify": verify,
            "k": k or (made and made.k),
            "kappa": kappa or (made and made.kappa),
        }
        try:
            members = _open(folder, manifest, weights, options)
        except (SpadeError, OSError):
            # A writer may have replaced the ensemble meanwhile.
            again = EnsembleManifest.read(folder)
            if again.generation == manifest.generation:
                raise
            manifest, made = again, again.calibration
            members = _open(folder, manifest, weights, options)
        if made:
            asked = quantile or unless_aimed(
                made.quantile, image_weights(members[0].index_.manifest).sum()
            )
            members = [one.with_options(sigma=made.sigma, quantile=asked) for one in members]
        ensemble = cls(members)
        for member in members:
            member.stages = ensemble.stages
        ensemble.folder, ensemble.manifest = folder, manifest
        ensemble._usual = tuple(member.usual for member in manifest.members)
        first, n = members[0], len(ensemble.index_)
        if made and (
            (min(made.k, n - 1), made.kappa) != (min(first.k, n - 1), first.kappa)
            or (first.index_.galleries and (options.get("exact") or options.get("search_params")))
        ):
            usual, ensemble.calibration = _leave_one_out(members, True)
            ensemble._usual = tuple(usual)
        elif made:
            ensemble.calibration = _calibration(
                first, np.array(made.descriptor_scores), np.array(made.peaks), ensemble._usual
            )
        if quantile is not None:
            ensemble._use_drawn()
        return ensemble

    def _fitted(self) -> Path:
        if not self._usual:
            raise SpadeError("this Ensemble is not fitted yet: call fit, or use Ensemble.load")
        return self.folder

    # Querying -----------------------------------------------------------------------------

    def query(self, images: Images, on_error: OnError | None = None) -> Iterator[Result]:
        """Yield one Result an image: the first member's, with the members' map and score.

        Each image is decoded once for all members.
        """
        self._fitted()
        _share_networks(self.members)
        places: deque[int] = deque()

        def decoded() -> Iterator[Frame]:
            for place, frame in decode_images(sources_of(images, on_error), on_error):
                places.append(place)
                yield frame

        # In step with each other, so that few images wait for the last member.
        each = tee(decoded(), len(self.members))
        streams = [member.query(own) for member, own in zip(self.members, each, strict=True)]
        for results in zip(*streams, strict=True):
            yield self._joined(results, places.popleft())

    def predict(self, images: Images) -> Prediction:
        """Return scores and maps; see `Spade.predict`."""
        results = list(self.query(images))
        return Prediction(
            np.array([self.score_of(one) for one in results], np.float32),
            [one.map for one in results],
            [one.notes for one in results],
        )

    def score_of(self, result: Result) -> float:
        """Return an image's score, as the first member's `score` chooses it."""
        return self.members[0].score_of(result)

    def _drawn_threshold(self, score: str) -> float | None:
        made = self.calibration
        if made is None:
            return None
        return made.pixel_threshold if score == "map" else made.descriptor_threshold

    def _manifest(self) -> EnsembleManifest:
        self._fitted()
        assert self.manifest is not None
        return self.manifest

    def _settings_of_scores(self) -> tuple[int, int, float, str | None]:
        return self.members[0]._settings_of_scores()

    def _store(self, **changes: object) -> None:
        manifest = rewrite_manifest(self.folder, self._manifest(), **changes)
        assert isinstance(manifest, EnsembleManifest)
        self.manifest = manifest

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known before the verdicts are relied on, each in one line."""
        notes = [*self.members[0].notes, *self._notes_by_hand()]
        if (made := self.calibration) and self._hand("threshold", "map") is None:
            images = self.index_.manifest.images
            notes += threshold_notes(
                [one.path for one in images],
                made.peaks,
                made.quantile,
                image_weights(self.index_.manifest),
                _means(self._usual)[1],
            )
        return tuple(notes)

    @property
    def held_out(self) -> None:
        """None: an ensemble is not calibrated with further images."""

    def drift(self, scores: npt.ArrayLike, descriptor_scores: npt.ArrayLike) -> NoReturn:
        """Refuse: there is nothing to tell drift by; see `held_out`."""
        raise SpadeError(
            "drift is told by what calibrate found, and that takes an index of one "
            "network without views"
        )

    def _joined(self, results: Sequence[Result], position: int) -> Result:
        first = results[0]
        height, width = first.input_map.shape
        joined = _average([one.input_map for one in results], self._usual, (height, width))
        scores = np.array([[one.descriptor_score] for one in results])
        framing = self.index_.manifest.framing.framing()
        original = first.map.shape[0], first.map.shape[1]
        return replace(
            first,
            position=position,
            input_map=joined,
            map=framing.place(joined, original),
            descriptor_score=float(_average_scores(scores, self._usual)[0]),
        )


Detector = Spade | Ensemble


def open_detector(
    folder: str | os.PathLike[str],
    *,
    weights: Sequence[str | os.PathLike[str]] = (),
    networks: Iterable[Backbone] = (),
    threshold: float | None = None,
    review: float | None = None,
    **options: Any,
) -> Detector:
    """Open an index, or an ensemble, whichever a folder holds.

    Parameters
    ----------
    folder : path
    weights : sequence of path
        One for each network, in the members' order; or none.
    networks : iterable of Backbone
        Such as are loaded already; those that made the index need not be loaded again.
    threshold, review : float, optional
        To judge by, instead of what was drawn or is kept.
    **options
        As `Spade.load` takes them.

    Raises
    ------
    SpadeError
        If there is neither, or both, or a file of it is missing or damaged, or a threshold or
        mark of review means nothing.
    """
    check_limits(threshold, review, quantile=options.get("quantile"), least=-math.inf)
    detector: Detector
    if is_ensemble(Path(folder)):
        detector = Ensemble.load(folder, weights=weights, **options)
    elif len(weights) > 1:
        raise SpadeError(f"{folder} is of one network: give --weights once")
    else:
        detector = Spade.load(folder, weights=weights[0] if weights else None, **options)
    loaded = {record_of(network): network for network in networks}
    for member in members_of(detector):
        member._network = loaded.get(member.index_.manifest.backbone, member._network)
    if threshold is not None:
        detector.image_threshold = threshold
    if review is not None:
        detector.review = review
    return detector


def members_of(detector: Detector) -> tuple[Spade, ...]:
    """Return an ensemble's members, or the one detector itself."""
    return detector.members if isinstance(detector, Ensemble) else (detector,)


def folder_of(detector: Detector) -> Path:
    """Return the folder that a fitted detector is kept in."""
    return detector.folder if isinstance(detector, Ensemble) else detector.index_.folder


def manifest_of(detector: Detector) -> Manifest | EnsembleManifest:
    """Return what the folder of a fitted detector said when it was opened or written."""
    found = detector.manifest if isinstance(detector, Ensemble) else detector.index_.manifest
    assert found is not None
    return found


def _open(
    folder: Path,
    manifest: EnsembleManifest,
    weights: Sequence[str | os.PathLike[str]],
    options: dict[str, Any],
) -> list[Spade]:
    """Open an ensemble's members."""
    made = [one.backbone for one in manifest.manifests(folder)]
    networks = list(dict.fromkeys(made))
    if weights and len(weights) != len(networks):
        names = ", ".join(one.name for one in networks)
        raise SpadeError(
            f"{folder} has {len(networks)} networks ({names}): give --weights once "
            "for each, in this order"
        )
    files = dict(zip(networks, weights, strict=False))
    return [
        Spade.load(folder / member.folder, weights=files.get(network), **options)
        for member, network in zip(manifest.members, made, strict=True)
    ]


def _share_networks(members: Iterable[Spade]) -> None:
    """Load each network once, though several members see through it."""
    loaded: dict[BackboneRecord, Backbone] = {}
    for member in members:
        made = member.index_.manifest.backbone
        if made in loaded:
            member._network = loaded[made]
        else:
            loaded[made] = member.network


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


def _link(source: str, target: str) -> None:
    """Give a file of an index, which is never changed in place, a second name; or copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _leave_one_out(
    members: Sequence[Spade], calibrate: bool
) -> tuple[list[Usual], Calibration | None]:
    """Return what is usual for each member, and the calibration of all together if asked for."""
    first = members[0].index_
    _check_size(first)
    height, width = first.manifest.framing.framing().size
    usual = []
    scores = np.zeros((len(members), len(first)))
    with tempfile.TemporaryFile(prefix="spade-faiss-") as file:
        maps = (
            np.memmap(file, np.float32, shape=(len(members), len(first), height, width))
            if calibrate
            else None
        )
        for number, member in enumerate(members):
            means, squares = [], []
            for i, (score, values) in enumerate(member.leave_one_out()):
                scores[number, i] = score
                means.append(values.mean(dtype=np.float64))
                squares.append(np.square(values, dtype=np.float64).mean())
                if maps is not None:
                    maps[number, i] = _resized(values, (height, width))
            mean = float(np.mean(means))
            std = float(np.sqrt(max(np.mean(squares) - mean**2, 0)))
            usual.append(
                Usual(
                    map_mean=mean,
                    map_std=std or 1.0,
                    score_mean=float(scores[number].mean()),
                    score_std=float(scores[number].std()) or 1.0,
                )
            )
        if maps is None:
            return usual, None
        framing = first.manifest.framing.framing()
        peaks = np.zeros(len(first))
        for i, record in enumerate(first.manifest.images):
            joined = _average(maps[:, i], usual, (height, width))
            peaks[i] = framing.place(joined, (record.height, record.width)).max()
    return usual, _calibration(members[0], _average_scores(scores, usual), peaks, usual)


def _calibration(
    first: Spade,
    scores: npt.NDArray[np.float64],
    peaks: npt.NDArray[np.float64],
    usual: Sequence[Usual],
) -> Calibration:
    """Draw thresholds from the good images' averaged scores and the peaks of their maps."""
    weights = image_weights(first.index_.manifest)
    return Calibration(
        k=first.k,
        kappa=first.kappa,
        sigma=first.sigma,
        descriptor_scores=tuple(scores.tolist()),
        peaks=tuple(peaks.tolist()),
        **drawn_of(scores.tolist(), peaks.tolist(), first.quantile, weights, _means(usual)),
    )


def _means(usual: Sequence[Usual]) -> tuple[float, float]:
    """Return what standardising took off the members' mean, of descriptors' scores and of maps."""
    return (
        float(np.mean([one.score_mean / one.score_std for one in usual])),
        float(np.mean([one.map_mean / one.map_std for one in usual])),
    )


def _average(maps: Iterable[Floats], usual: Sequence[Usual], size: tuple[int, int]) -> Floats:
    """Return the mean of the members' maps, each standardised and brought to one size."""
    joined: Floats = np.zeros(size, np.float32)
    for values, own in zip(maps, usual, strict=True):
        joined += np.float32(1 / own.map_std) * (_resized(values, size) - np.float32(own.map_mean))
    joined /= len(usual)
    return joined


def _average_scores(
    scores: npt.NDArray[np.float64], usual: Sequence[Usual]
) -> npt.NDArray[np.float64]:
    """Return the mean of the members' descriptor scores [m, n], each standardised, [n]."""
    means = np.array([[one.score_mean] for one in usual])
    stds = np.array([[one.score_std] for one in usual])
    joined: npt.NDArray[np.float64] = ((scores - means) / stds).mean(0)
    return joined


def _resized(values: Floats, size: tuple[int, int]) -> Floats:
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _check_size(index: Index) -> None:
    if len(index) < 2:
        raise SpadeError("an ensemble needs two good images or more, to know what is usual")


def _again_and_again(images: Images) -> Images:
    if is_stream(images):
        raise SpadeError("an ensemble goes through its images several times; pass a list")
    return images


def first_alone(on_error: OnError | None, number: int) -> OnError | None:
    """Return what reports an image for the first member alone: the others cannot use it either."""
    return on_error if number == 0 or on_error is None else lambda name, why: None
