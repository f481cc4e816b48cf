"""The manifest: what an index holds, how it was made, and a checksum of each of its files."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ..errors import SpadeError
from ..images import Framing
from ..images.roi import Roi
from ..images.tiles import Tiles
from .layout import Layout, layout_of
from .record import Data, file_sha256, read_record, write_record
from .scores import ByHand, Calibration, CalibrationSet

MANIFEST = "manifest.json"
FORMAT = "spade-faiss index"
VERSIONS = (1, 2)
_SINCE_VERSION_2 = (
    "mirrored",
    "scales",
    "normal_distances",
    "gallery",
    "store",
    "calibration_set",
    "copies",
    "by_hand",
    "motion",
    "averaged",
    "contrast",
    "score",
    "min_area",
    "elsewhere",
)
"""What the second version has; an index without any is written as the first, for older programs."""

Store = Literal["float16"]

ENSEMBLE = "ensemble.json"


class TrainingImage(Data):
    """One good image: where it was, and its size in pixels before framing."""

    path: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class DataFile(Data):
    """One file of the index, relative to its folder."""

    name: str = Field(
        pattern=r"^[0-9a-f]{8}/(descriptors\.faiss|(crops|wide)\.u8|usual\.f32|"
        r"level[0-9]+(\.gallery)?\.faiss|level[0-9]+\.coreset\.i64)$"
    )
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @classmethod
    def of(cls, path: Path) -> DataFile:
        """Record a file of a generation as it is now."""
        name = f"{path.parent.name}/{path.name}"
        return cls(name=name, bytes=path.stat().st_size, sha256=file_sha256(path))


class Level(Data):
    """One pyramid level: height and width in patches of what the network sees at once.

    Row `i * height * width + y * width + x` is patch (x, y) of image i. Of images that are seen in
    parts, or not all over, `spade_faiss.index.layout` says what a row is.
    """

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: int = Field(gt=0)
    file: DataFile


class GalleryFiles(Data):
    """What one level's patches are searched in whole.

    `rows` holds the coreset's rows of the level, int64, little-endian, ascending; None where all
    rows are in the gallery. `index` is a FAISS index over these rows, in their order; None where
    they are searched exactly.
    """

    index: DataFile | None
    rows: DataFile | None

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The files that there are."""
        return tuple(file for file in (self.index, self.rows) if file)


class GalleryRecord(Data):
    """How the galleries were made: see `spade_faiss.search.GallerySpec`."""

    factory: str | None
    coreset: float | None = Field(gt=0, lt=1)
    search_params: str | None
    levels: tuple[GalleryFiles, ...]

    def describe(self) -> str:
        """Return what is searched, in words."""
        index = f"{self.factory} ({self.search_params})" if self.search_params else self.factory
        share = "all patches" if self.coreset is None else f"a coreset of {self.coreset:.4g}"
        return f"{index or 'exact search'} over {share}"


class BackboneRecord(Data):
    """The network that made the features; a query must use the same."""

    name: str
    weights_sha256: str


class TilesRecord(Data):
    """How an input was cut; see `spade_faiss.images.tiles.Tiles`."""

    side: int = Field(gt=0)
    overlap: int = Field(ge=0)
    unit: int = Field(gt=0)
    picture: tuple[int, int]


class FramingRecord(Data):
    """How images were framed; see `spade_faiss.images.Framing`.

    `region` is what `Roi.text` gives.
    """

    resize: int = Field(ge=32)
    height: int = Field(ge=32)
    width: int = Field(ge=32)
    crop: bool
    margin: int = Field(default=0, ge=0)
    tiles: TilesRecord | None = None
    region: str | None = None

    @classmethod
    def of(cls, framing: Framing) -> FramingRecord:
        """Record a framing."""
        tiles, roi = framing.tiles, framing.roi
        return cls(
            resize=framing.resize,
            height=framing.size[0],
            width=framing.size[1],
            crop=framing.crop,
            margin=framing.margin,
            tiles=TilesRecord(**asdict(tiles)) if tiles else None,
            region=roi.text if roi else None,
        )

    def framing(self) -> Framing:
        """Return the framing itself."""
        return _framing(self)

    @property
    def is_new(self) -> bool:
        """Whether it is one that older programs do not know."""
        return bool(self.margin or self.tiles or self.region)


@lru_cache(64)
def _framing(record: FramingRecord) -> Framing:
    return Framing(
        record.resize,
        (record.height, record.width),
        record.crop,
        record.margin,
        Tiles(**dict(record.tiles)) if record.tiles else None,
        Roi.from_text(record.region) if record.region else None,
    )


class ContrastRecord(Data):
    """How normal distances count: see `spade_faiss.maps.contrast`.

    `units` are one a level, in the order of the levels.
    """

    share: float = Field(ge=0, le=1)
    around: int = Field(ge=0)
    units: tuple[float, ...]


CONTRAST_BEFORE = 0.5, 0
"""The share, and the patches around, by which indices were made that have no such record."""


class Manifest(Data):
    """Everything that is known about an index but its data."""

    format: Literal["spade-faiss index"] = "spade-faiss index"
    version: Literal[1, 2] = 1
    created: str
    made_with: dict[str, str]
    backbone: BackboneRecord
    framing: FramingRecord
    images: tuple[TrainingImage, ...] = Field(min_length=1)
    descriptor_size: int = Field(gt=0)
    descriptors: DataFile
    levels: tuple[Level, ...] = Field(min_length=1)
    crops: DataFile
    calibration: Calibration | None = None
    mirrored: bool = False
    """Whether the network saw each image's mirror image."""
    scales: tuple[tuple[float, ...], ...] | None = None
    """What channels were multiplied by: the descriptors', then each level's. None: by nothing."""
    normal_distances: DataFile | None = Field(default=None, alias="usual")
    """float32 [rows, 3], all levels' patches in turn; `spade_faiss.maps.contrast` has more."""
    gallery: GalleryRecord | None = None
    store: Store | None = None
    """What patches are stored as, if not as float32."""
    calibration_set: CalibrationSet | None = Field(default=None, alias="held_out")
    copies: tuple[tuple[int, int], ...] = ()
    """Pairs of images (places, the lower first) that show the same part."""
    by_hand: tuple[ByHand, ...] = ()
    """At most one a kind of score."""
    motion: bool = False
    """Whether the last level is not the network's but motion; `spade_faiss.images.motion`."""
    averaged: bool = False
    """Whether the second half of the levels are averages of the first."""
    contrast: ContrastRecord | None = None
    """None beside `normal_distances` is what was done before: `CONTRAST_BEFORE`, without units."""
    score: Literal["descriptor", "mean"] | None = None
    """What its images are judged by, if not by their maps' maxima."""
    min_area: int | None = Field(default=None, gt=0)
    """Pixels that an area of an image must have to count, if not every one counts."""
    elsewhere: bool = False
    """Whether a tile is compared with tiles of any place, and not with those of its own."""

    @model_validator(mode="after")
    def _one_gallery_a_level(self) -> Manifest:
        if self.gallery and len(self.gallery.levels) != len(self.levels):
            raise ValueError(f"{len(self.gallery.levels)} galleries, {len(self.levels)} levels")
        return self

    def extended(self, **more: object) -> Manifest:
        """Return a copy with something that the second version brought: see `_SINCE_VERSION_2`."""
        return self.model_copy(update={**more, "version": 2})

    def described(self) -> dict[str, Any]:
        """Return it as JSON values, with what `Roi.described` says instead of a mask's file."""
        values, roi = self.model_dump(), self.framing.framing().roi
        values["framing"]["region"] = roi.described() if roi else None
        return values

    @property
    def keeps_margins(self) -> bool:
        """Whether crops have their margin; an older version cut it off."""
        return self.crops.name.endswith("wide.u8")

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Where the patches of each level lie."""
        framing = self.framing.framing()
        return tuple(layout_of(framing, (level.height, level.width)) for level in self.levels)

    @property
    def patches(self) -> int:
        """Stored patches of all images and levels."""
        return len(self.images) * sum(one.parts * one.patches for one in self.layouts)

    @property
    def files(self) -> tuple[DataFile, ...]:
        """Every data file."""
        galleries = self.gallery.levels if self.gallery else ()
        normal_distances = (self.normal_distances,) if self.normal_distances else ()
        return (
            self.descriptors,
            *(level.file for level in self.levels),
            self.crops,
            *normal_distances,
            *(file for gallery in galleries for file in gallery.files),
        )

    @property
    def generation(self) -> str:
        """The folder that holds the data files; a new one for every change."""
        return self.descriptors.name.split("/")[0]

    def write(self, folder: Path) -> None:
        """Put the manifest in place at once, synced: this is the moment a change takes effect."""
        absent: dict[str, Any] = {
            name: True for name in _SINCE_VERSION_2 if not getattr(self, name)
        }
        if self.calibration and self.calibration.sample is None:
            absent["calibration"] = {"sample"}
        absent["framing"] = {
            name for name in ("margin", "tiles", "region") if not getattr(self.framing, name)
        }
        write_record(folder / MANIFEST, self.model_dump(exclude=absent))

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check the manifest of the index in `folder`.

        Raises
        ------
        SpadeError
            If there is none, or it is damaged, or of another version.
        """
        if not (folder / MANIFEST).exists() and (folder / ENSEMBLE).exists():
            raise SpadeError(
                f"{folder} holds an ensemble of several indices, which this cannot "
                "use; name an index of one network without views"
            )
        return read_record(cls, folder / MANIFEST, FORMAT, VERSIONS)
