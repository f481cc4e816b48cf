"""The settings of a detector: a frozen value that checks itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, TypedDict, Unpack

import numpy as np

from ..errors import SpadeError
from ..features import DEFAULT_BACKBONE, Backbone, check_device
from ..images import Framing
from ..images.roi import Roi
from ..images.tiles import Tiles
from ..index import Manifest
from ..index.scores import ByHand, Calibration, CalibrationSet
from ..search import ENGINES, GallerySpec
from ..types import SCORES
from ..verdict.calibration import requested_quantile
from ..verdict.notes import DEFAULT_K
from .presets import PRESETS, name_of_preset

K, KAPPA, SIGMA = DEFAULT_K, 1, 4.0
RESIZE, CROP = 256, 224
STORES = ("float32", "float16")
CALIBRATED = 1000
"""Good images that thresholds are drawn from, at most: five times what the quantile needs."""


class SearchSettings(TypedDict, total=False):
    """The settings that an index leaves open; None stands for what it was made with."""

    backbone: Backbone | None
    weights: str | os.PathLike[str] | None
    k: int | None
    kappa: int | None
    quantile: float | None
    score: str | None
    min_area: int | None
    engine: str
    search_params: str | None
    exact: bool
    device: str
    batch_size: int
    progress: bool


_OPEN = SearchSettings.__annotations__.keys() | {"sigma", "calibrated"}
"""What may be another than when an index was made."""
_KINDS: tuple[tuple[tuple[str, ...], tuple[type, ...], str], ...] = (
    (
        ("standardise", "contrast", "motion", "margin", "averaged", "mirror", "exact", "progress"),
        (bool, np.bool_),
        "True or False",
    ),
    (("sigma", "quantile", "coreset"), (Real,), "a number"),
    (("device", "factory", "search_params"), (str,), "a text"),
    (("weights",), (str, os.PathLike), "a path"),
    (("backbone",), (str, Backbone), "a network or its name"),
    (("region",), (Roi,), "a mask or its path"),
)
"""Parameters, what they are instances of, and what that is called."""
_MAY_BE_NONE = ("quantile", "coreset", "factory", "search_params", "weights", "region")
_LEAST_TILE = 28
"""Two of the smallest patches that a network has."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are learnt, searched and judged; see `Spade` for each of them.

    A copy by `dataclasses.replace` is checked as the first one was.

    Raises
    ------
    SpadeError
        If a value is out of its range, or two do not go together.
    """

    backbone: str | Backbone = DEFAULT_BACKBONE
    k: int = K
    kappa: int = KAPPA
    weights: str | os.PathLike[str] | None = None
    resize: int | None = None
    crop: int | None = CROP
    tile: int | None = None
    overlap: int | None = None
    region: Roi | None = None
    sigma: float = SIGMA
    quantile: float | None = None
    calibrated: int = CALIBRATED
    score: str = "map"
    min_area: int | None = None
    standardise: bool = False
    contrast: bool = False
    motion: bool = False
    margin: bool = False
    averaged: bool = False
    store: str = "float32"
    mirror: bool = False
    engine: str = "auto"
    factory: str | None = None
    coreset: float | None = None
    search_params: str | None = None
    exact: bool = False
    device: str = "auto"
    batch_size: int = 8
    progress: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        for name in ("k", "kappa", "calibrated", "batch_size", "min_area"):
            value = getattr(self, name)
            if name == "min_area" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise SpadeError(f"{name} = {value} must be a whole number, 1 or more")
        sides = ("resize", "crop", "tile", "overlap")
        for name, side in ((name, getattr(self, name)) for name in sides):
            if side is not None and (isinstance(side, bool) or not isinstance(side, Integral)):
                raise SpadeError(f"{name} = {side} must be a whole number of pixels")
        if not 0 <= self.sigma < 1000:
            raise SpadeError(f"sigma = {self.sigma} must lie between 0 and 1000 pixels")
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise SpadeError(f"quantile = {self.quantile} must lie between 0 and 1")
        for name, choices in (("engine", ENGINES), ("score", SCORES), ("store", STORES)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                raise SpadeError(f"unknown {name} {value!r}: choose one of {', '.join(choices)}")
        check_device(self.device)
        if self.least_area and self.score == "descriptor":
            raise SpadeError(
                "`min_area` does nothing to `score='descriptor'`, which looks at no map: leave out "
                "`min_area`, or choose the score map or mean"
            )
        if self.store == "float16" and self.gallery_spec:
            raise SpadeError(
                "`factory` and `coreset` need float32 patches: leave out `store='float16'` "
                "(a factory of SQfp16 or PQ8 makes the gallery itself small)"
            )
        if self.contrast and self.gallery_spec:
            raise SpadeError(
                "contrast, which the preset 'best' has, needs the exact search: "
                "leave out `factory` and `coreset`, or take the preset 'paper'"
            )
        if self.motion and self.mirror:
            raise SpadeError(
                "views go without motion, which the preset 'video' looks at: leave out `views`, "
                "or take another preset"
            )
        if self.tile is None:
            if self.overlap is not None:
                raise SpadeError("`overlap` is of tiles: give `tile`, too, or leave it out")
            Framing.choose(self.shorter_side, self.crop, (1, 1))
        else:
            self._check_tiles()
        self.gallery_spec  # noqa: B018 - it checks itself

    def _check_types(self) -> None:
        """Refuse what no comparison would: anything is true or false, say."""
        for names, kinds, wanted in _KINDS:
            for name in names:
                value = getattr(self, name)
                if value is None and name in _MAY_BE_NONE:
                    continue
                if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                    raise SpadeError(f"{name} = {value!r} must be {wanted}")

    def _check_tiles(self) -> None:
        assert self.tile is not None
        if self.crop not in (None, CROP):
            raise SpadeError(
                f"tiles cover the whole picture: leave out `crop={self.crop}`, or `tile`"
            )
        if self.tile < _LEAST_TILE:
            raise SpadeError(f"`tile={self.tile}` is too small: choose {_LEAST_TILE} or more")
        Tiles.choose(self.tile, self.overlap, 1, (1 << 31, 1 << 31))
        if self.resize is not None and self.resize < self.tile:
            raise SpadeError(
                f"`tile={self.tile}` is larger than the shorter side, `resize={self.resize}`: take "
                "smaller tiles"
            )

    def needs_another_index(self, other: Settings) -> bool:
        """Say whether an index that was made by other settings is not one of these."""
        return any(
            getattr(self, one.name) != getattr(other, one.name)
            for one in fields(self)
            if one.name not in _OPEN
        )

    @property
    def shorter_side(self) -> int:
        """The length in pixels that the shorter side of an image is brought to, without tiles."""
        return RESIZE if self.resize is None else self.resize

    @property
    def gallery_spec(self) -> GallerySpec:
        """The approximate search that an index is to be built with."""
        return GallerySpec(self.factory, self.coreset, self.search_params)

    @property
    def least_area(self) -> int | None:
        """`min_area`, but None for 1, which every pixel has."""
        return None if self.min_area == 1 else self.min_area

    @property
    def preset(self) -> str | None:
        """The preset that has these settings; None if they are a mixture."""
        return name_of_preset(
            standardise=self.standardise,
            contrast=self.contrast,
            margin=self.margin,
            averaged=self.averaged,
            motion=self.motion,
        )

    @classmethod
    def of_index(cls, manifest: Manifest, **given: Unpack[SearchSettings]) -> Settings:
        """Return the settings that an index was made with, but for those given and not None.

        Raises
        ------
        SpadeError
            As for the settings themselves.
        TypeError
            If a setting is one that the index itself decides.
        """
        for name in given.keys() - SearchSettings.__annotations__.keys():
            raise TypeError(f"{name} is no setting that an index leaves open")
        made = manifest.calibration
        last = manifest.calibration_set or made
        framing, gallery = manifest.framing, manifest.gallery
        tiles = framing.tiles
        values: dict[str, Any] = {
            "backbone": manifest.backbone.name,
            "resize": framing.resize if tiles or framing.resize != RESIZE else None,
            "crop": framing.height if framing.crop else None,
            "tile": tiles.side if tiles else None,
            "overlap": tiles.overlap if tiles else None,
            "region": framing.framing().roi,
            "quantile": requested_quantile(manifest, manifest),
            "standardise": manifest.scales is not None,
            "contrast": manifest.normal_distances is not None,
            "motion": manifest.motion,
            "sigma": PRESETS["video"]["sigma"] if manifest.motion else SIGMA,
            "margin": framing.margin > 0,
            "averaged": manifest.averaged,
            "mirror": manifest.mirrored,
            "store": manifest.store or "float32",
            "score": manifest.score or "map",
            "min_area": manifest.min_area,
        }
        if last:
            values |= {"k": last.k, "kappa": last.kappa, "sigma": last.sigma}
        if made and made.sample:
            values["calibrated"] = len(made.sample)
        if gallery:
            values |= {
                "factory": gallery.factory,
                "coreset": gallery.coreset,
                "search_params": gallery.search_params,
            }
        return cls(**values | {name: value for name, value in given.items() if value is not None})

    def as_dict(self) -> dict[str, Any]:
        """Return every setting by its name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True)
class Scoring:
    """The settings that a score depends on; thresholds of other ones do not fit it.

    Attributes
    ----------
    k, kappa : int
    sigma : float
    search : str or None
        How an index's galleries are searched: "exact", or their search parameters. None where
        there are neither.
    min_area : int or None
    """

    k: int
    kappa: int
    sigma: float
    search: str | None
    min_area: int | None = None

    @classmethod
    def of(cls, settings: Settings, manifest: Manifest) -> Scoring:
        """Return what the scores of an index's queries depend on."""
        search = None
        if gallery := manifest.gallery:
            search = "exact" if settings.exact else settings.search_params or gallery.search_params
        return cls(settings.k, settings.kappa, settings.sigma, search, settings.least_area)

    def is_of(
        self, made: Calibration | CalibrationSet | ByHand, search: str | None, most: int
    ) -> bool:
        """Say whether what is kept is of such scores.

        Parameters
        ----------
        made : Calibration, CalibrationSet or ByHand
        search : str or None
            How galleries were searched for it.
        most : int
            A K over this one means this one.
        """
        return (min(made.k, most), made.kappa, made.sigma, search, made.min_area) == (
            min(self.k, most),
            self.kappa,
            self.sigma,
            self.search,
            self.min_area,
        )
