"""Several detectors as one: each member's maps in units of good images' own, then averaged."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._support.files import folder_or_temporary
from .._support.stages import Stages
from ..errors import SpadeError
from ..features import Backbone
from ..images import Images, OnError
from ..images.roi import Roi, roi_of
from ..index import EnsembleManifest, Index, Manifest
from ..index.ensemble import Statistics
from ..types import Mask
from . import fit_ensemble as fitting
from .average import average_only, average_results, learn_statistics, shifts_of, whole_maps
from .detector import Detector
from .extract import sources_of
from .members import (
    check_alike,
    open_members,
    params_of_members,
    sharing,
    with_params,
    with_shared_networks,
)
from .moved import still_there
from .pipeline import Executor, Pipeline
from .query import query_by
from .result import Result
from .spade import Spade
from .views import members_of


class Ensemble(Detector):
    """Detectors with other networks, settings or views, averaged.

    Each member's map is standardised: the mean over the good images' leave-one-out maps is taken
    off, and the rest is divided by their standard deviation. So are the descriptors' scores, by
    their own mean and deviation, and the maps' power means, by those of the maps. Their means over
    the members can be below 0.

    Parameters
    ----------
    members : sequence of Spade
        Maps are on the first one's grid; all should see the same part of an image. They have one
        `k`, `kappa` and `sigma`, and the first one's `score`, `min_area` and `quantile` count.

    Raises
    ------
    SpadeError
        If there are none, or they differ in `k`, `kappa` or `sigma`.

    Attributes
    ----------
    index_ : Index
        The first member's, once fitted. Results tell of its neighbours and matches.
    members : tuple of Spade
    """

    is_ensemble = True
    _least = -math.inf

    def __init__(self, members: Sequence[Spade]) -> None:
        if not members:
            raise SpadeError("an ensemble needs a member or more")
        check_alike(members)
        self._stages = Stages()
        self._members = tuple(sharing(member, self._stages) for member in members)
        self._statistics: tuple[Statistics, ...] = ()
        self._manifest: EnsembleManifest | None = None
        self._folder = Path()

    @classmethod
    def of(
        cls,
        networks: Sequence[Backbone | str],
        views: Sequence[str] = (),
        weights: Sequence[str | os.PathLike[str] | None] = (),
        **settings: Any,
    ) -> Ensemble:
        """Return an ensemble of each network on the image itself and on each view of it.

        Parameters
        ----------
        networks : sequence of Backbone or str
            Those that are named are loaded here, once for all views.
        views : sequence of str, some of `spade_faiss.detector.views.VIEWS`
        weights : sequence of path or None
            One for each network, or none.
        **settings
            As `Spade` takes them.

        Raises
        ------
        SpadeError
            If a view is unknown, there are weights for other than all networks, or a network or
            its weights cannot be had.
        """
        return cls(members_of(networks, views, weights, **settings))

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
        images : folder, paths, arrays, or others; see `spade_faiss.images.Images`
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
        folder, temporary = folder_or_temporary(index)
        members = [sharing(member.unfitted(), self._stages) for member in self.members]
        manifest = fitting.fit(members, images, folder, calibrate=calibrate, on_error=on_error)
        self._become(folder, manifest, members)
        self._temporary = temporary  # only now does the former one go
        return self

    def add(self, images: Images, on_error: OnError | None = None) -> int:
        """Add good images to each member and calibrate anew; return how many were added.

        An image whose path is there already is refused. All members change, or none.
        """
        return self._changed(
            fitting.add(self.members, self.folder, self.manifest, images, on_error)
        )

    def remove(self, names: Iterable[str], on_error: OnError | None = None) -> int:
        """Remove training images by path and calibrate anew; return how many were removed.

        Names are as `Spade.remove` takes them. All members change, or none.
        """
        return self._changed(
            fitting.remove(self.members, self.folder, self.manifest, names, on_error)
        )

    def look_at(self, region: str | os.PathLike[str] | Mask | Roi | None) -> bool:
        """Look at another region of the images, as `Spade.look_at` does, and calibrate anew.

        All members change, or none.
        """
        return bool(
            self._changed(fitting.look_at(self.members, self.folder, self.manifest, roi_of(region)))
        )

    def _changed(self, changed: fitting.Changed) -> int:
        count, manifest, members = changed
        if count:
            self._become(self.folder, manifest, members)
        return count

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
        calibrate: bool = True,
        **options: Any,
    ) -> Ensemble:
        """Open an ensemble; what is not given is as it was when it was made.

        Parameters
        ----------
        folder : path
        k, kappa, quantile, verify, calibrate, **options
            As `Spade.load` takes them.
        weights : sequence of path
            One for each network, in the members' order; or none.

        Raises
        ------
        SpadeError
            If there is no ensemble, or a file of it is missing or damaged.
        """
        folder = Path(folder)
        options |= {"verify": verify, "k": k, "kappa": kappa, "quantile": quantile}
        manifest, members = open_members(folder, weights, options)
        ensemble = cls(members)
        ensemble._become(folder, manifest, ensemble.members)
        if quantile is not None:
            ensemble._use_drawn()
        if calibrate:
            ensemble.draw_missing_thresholds()
        return ensemble

    def _become(self, folder: Path, manifest: EnsembleManifest, members: Sequence[Spade]) -> None:
        """Be the ensemble that a folder's manifest is of."""
        self._folder, self._manifest, self._members = folder, manifest, tuple(members)
        self._statistics = tuple(member.statistics for member in manifest.members)
        self._scored_anew = None

    def _compared(self, images: Images, on_error: OnError | None) -> Iterator[Result]:
        """Yield one Result an image: the first member's, with the members' map and score."""
        manifests = [member.index_.manifest for member in self.members]
        area = self.settings.least_area
        sources = sources_of(images, on_error)
        branches = self.pipeline.executor.branches(sources, len(self.members), on_error)
        streams = [
            query_by(member.pipeline, own, whole_maps, report)
            if member is self.members[0]
            else query_by(member.with_options(progress=False).pipeline, own, average_only, report)
            for member, (own, report) in zip(self.members, branches, strict=True)
        ]
        for results in zip(*streams, strict=True):
            yield average_results(results, self._statistics, manifests, area)

    def draw_thresholds(self) -> None:
        """Score the good images by these settings, and draw the thresholds from that."""
        pipelines = [member.pipeline for member in self.members]
        with self.stages("calibration"):
            self._statistics, self._scored_anew = learn_statistics(pipelines, calibrate=True)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001 - scikit-learn's
        """Return the members; `Ensemble(**ensemble.get_params(deep=False))` is its like.

        Parameters
        ----------
        deep : bool
            Whether to return each member, too, as `member_1` and so on, and its parameters, as
            `member_1__crop`.
        """
        params: dict[str, Any] = {"members": self.members}
        return params | params_of_members(self.members) if deep else params

    def set_params(self, **params: Any) -> Ensemble:
        """Set parameters by their names, as `with_options` does; return this ensemble itself."""
        vars(self).update(vars(self.with_options(**params)))
        return self

    def with_options(self, **settings: Any) -> Ensemble:
        """Return an ensemble with other parameters.

        Indices are shared as by `Spade.with_options`. Where a member needs another one, the
        ensemble that is returned is to be fitted anew.

        Parameters
        ----------
        **settings
            As `get_params` names them; or as `Spade` does: these are set of every member.

        Raises
        ------
        SpadeError
            If a value means nothing, or the members would differ in what they share.
        TypeError
            If there is no such parameter.
        """
        members: Sequence[Spade] = self.members
        if "members" in settings:
            members = [one.unfitted() for one in Ensemble(settings.pop("members")).members]
        return self._with([sharing(one, self._stages) for one in with_params(members, settings)])

    def on(self, executor: Executor) -> Ensemble:
        """Return a copy whose work is done elsewhere; see `spade_faiss.distributed`."""
        own = executor.of_members(len(self.members))
        return self._with([member.on(own) for member in self.members])

    def unfitted(self) -> Ensemble:
        """Return an ensemble of the same settings and networks, to be fitted on its own."""
        other = self._with([member.unfitted() for member in self.members])
        other._stages = Stages()
        other._members = tuple(sharing(member, other._stages) for member in other._members)
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Return what makes the same ensemble in another process, which opens it anew."""
        fitted = self._manifest is not None
        return {
            "members": [member.unfitted() for member in self.members],
            "folder": self._folder.absolute() if fitted else None,
            "generation": self.manifest.generation if fitted else None,
            "temporary": self._temporary is not None,
            "own": dict(self._own),
            "scored_anew": self._scored_anew,
            "statistics": self._statistics,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be the ensemble that was sent, by its indices as they are now."""
        Ensemble.__init__(self, with_shared_networks(state["members"]))
        self._own = state["own"]
        folder = state["folder"]
        if folder is None:
            return
        with still_there(folder, temporary=state["temporary"]):
            manifest = EnsembleManifest.read(folder)
            indices = [Index.open(folder / one.folder) for one in manifest.members]
        members = [
            one.with_pipeline(one.pipeline.on(index))
            for one, index in zip(self.members, indices, strict=True)
        ]
        self._become(folder, manifest, members)
        if manifest.generation == state["generation"]:
            self._statistics, self._scored_anew = state["statistics"], state["scored_anew"]

    def _named(self) -> str:
        return f"of {len(self.members)}: " + "; ".join(one._named() for one in self.members)

    def _with(self, members: Sequence[Spade]) -> Ensemble:
        check_alike(members)
        other = copy.copy(self)
        if any(member.pipeline.opened is None for member in members):
            members = [member.with_pipeline(member.pipeline.on(None)) for member in members]
            other._manifest, other._statistics, other._scored_anew = None, (), None
        other._members = tuple(members)
        return other

    # What a detector is asked for -----------------------------------------------------------

    @property
    def members(self) -> tuple[Spade, ...]:
        """The detectors."""
        return self._members

    @property
    def pipeline(self) -> Pipeline:
        """The first member's."""
        return self.members[0].pipeline

    @property
    def stages(self) -> Stages:
        """Seconds spent by all members."""
        return self._stages

    @property
    def folder(self) -> Path:
        """Where the ensemble is."""
        self._check_fitted()
        return self._folder

    @property
    def manifest(self) -> EnsembleManifest:
        """What its folder says, once fitted."""
        self._check_fitted()
        assert self._manifest is not None
        return self._manifest

    def _check_fitted(self) -> None:
        if self._manifest is None:
            raise SpadeError("this ensemble is not fitted yet: fit it on good images, or load one")

    def _is_fitted(self) -> bool:
        return self._manifest is not None

    def _keep_manifest(self, manifest: Manifest | EnsembleManifest) -> None:
        assert isinstance(manifest, EnsembleManifest)
        self._manifest = manifest

    def _use_quantile(self, quantile: float | None) -> None:
        self._members = tuple(member.with_options(quantile=quantile) for member in self.members)

    @property
    def shifts(self) -> Mapping[str, float]:
        """What was taken off scores, by kind."""
        return shifts_of(self._statistics)
