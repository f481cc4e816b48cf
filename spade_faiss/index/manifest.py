"""The manifest: what an index holds, how it was made, and a checksum of each of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from .._support.files import replace_file
from ..errors import SpadeError
from ..images import Framing
from ..types import SCORES, Score

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
)
"""What the second version has; an index without any is written as the first, for older programs."""

Store = Literal["float16"]

ENSEMBLE = "ensemble.json"

Record = TypeVar("Record", bound=BaseModel)


class _Data(BaseModel):
    # Keys in files, and in what `info --json` prints, stay where names have changed: by aliases.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True
    )


class TrainingImage(_Data):
    """One good image: where it was, and its size in pixels before framing."""

    path: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class DataFile(_Data):
    """One file of the index, relative to its folder."""

    name: str = Field(
        pattern=r"^[0-9a-f]{8}/(descriptors\.faiss|crops\.u8|usual\.f32|"
        r"level[0-9]+(\.gallery)?\.faiss|level[0-9]+\.coreset\.i64)$"
    )
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @classmethod
    def of(cls, path: Path) -> DataFile:
        """Record a file of a generation as it is now."""
        name = f"{path.parent.name}/{path.name}"
        return cls(name=name, bytes=path.stat().st_size, sha256=file_sha256(path))


class Level(_Data):
    """One pyramid level: row `i * height * width + y * width + x` is patch (x, y) of image i."""

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: int = Field(gt=0)
    file: DataFile

    @property
    def patches(self) -> int:
        """Patches an image."""
        return self.height * self.width


class GalleryFiles(_Data):
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


class GalleryRecord(_Data):
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


class BackboneRecord(_Data):
    """The network that made the features; a query must use the same."""

    name: str
    weights_sha256: str


class FramingRecord(_Data):
    """How images were framed; see `spade_faiss.images.Framing`."""

    resize: int = Field(ge=32)
    height: int = Field(ge=32)
    width: int = Field(ge=32)
    crop: bool
    margin: int = Field(default=0, ge=0)

    def framing(self) -> Framing:
        """Return the framing itself."""
        return Framing(self.resize, (self.height, self.width), self.crop, self.margin)


class ContrastRecord(_Data):
    """How normal distances count: see `spade_faiss.maps.contrast`.

    `units` are one a level, in the order of the levels.
    """

    share: float = Field(ge=0, le=1)
    around: int = Field(ge=0)
    units: tuple[float, ...]


CONTRAST_BEFORE = 0.5, 0
"""The share, and the patches around, by which indices were made that have no such record."""


class _Judged(_Data):
    """A record of scores or thresholds; what it lacks is written as older programs know it."""

    @model_serializer(mode="wrap")
    def _without_what_is_new(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        for name in ("means", "mean_threshold", "min_area"):
            if name in written and getattr(self, name) in ((), None):
                del written[name]
        return written


class _Scores(_Judged):
    """A record that has scores of images, or their thresholds, by kind."""

    def scores(self, score: str) -> tuple[float, ...]:
        """Return the images' scores of one kind; none if they were not kept."""
        found: tuple[float, ...] = getattr(self, SCORES[score])
        return found

    def lacks(self, score: str) -> bool:
        """Say whether there are images, but no scores of a kind."""
        return bool(self.scores("map")) and not self.scores(score)


class Calibration(_Scores):
    """Leave-one-out results of the training images, and the thresholds drawn from them.

    `descriptor_scores` (mean squared distance to the K nearest descriptors), `peaks` (the
    largest value of each anomaly map) and `means` (its power mean; kept where images are judged
    by it) are in the training images' order; of a large index, only the images of `sample`
    (places, ascending) were scored. A threshold is None where fewer than two images leave
    nothing to judge by, or there are no such scores.
    """

    quantile: float = Field(gt=0, lt=1)
    k: int = Field(gt=0)
    kappa: int = Field(gt=0)
    sigma: float = Field(ge=0)
    descriptor_scores: tuple[float, ...]
    peaks: tuple[float, ...]
    descriptor_threshold: float | None
    pixel_threshold: float | None
    sample: tuple[int, ...] | None = None
    means: tuple[float, ...] = ()
    mean_threshold: float | None = None
    min_area: int | None = Field(default=None, gt=0)

    @property
    def scored(self) -> Sequence[int]:
        """Places of the images that were scored, in the scores' order."""
        return range(len(self.peaks)) if self.sample is None else self.sample

    def without_means(self) -> Calibration:
        """Return a copy that older programs can read, if it has no `sample` either."""
        return self.model_copy(update={"means": (), "mean_threshold": None})


class Scored(_Scores):
    """Images that are not in the index: names, digests of what the network saw, and scores."""

    names: tuple[str, ...]
    digests: tuple[str, ...]
    descriptor_scores: tuple[float, ...]
    peaks: tuple[float, ...]
    means: tuple[float, ...] = ()
    """None if an older version scored them."""


class CalibrationSet(_Scores):
    """What `Spade.calibrate` found: scores of further images, and thresholds by the good ones'.

    The thresholds of a change's index are not those of the index before it, so a change drops
    them. `search` is how a gallery was searched: its search parameters, or "exact".
    """

    created: str
    quantile: float = Field(gt=0, lt=1)
    k: int = Field(gt=0)
    kappa: int = Field(gt=0)
    sigma: float = Field(ge=0)
    search: str | None
    good: Scored
    defects: Scored
    descriptor_threshold: float
    pixel_threshold: float
    mean_threshold: float | None = None
    min_area: int | None = Field(default=None, gt=0)

    def scores(self, score: str) -> tuple[float, ...]:
        """Return the good images' scores of one kind; none if they were not kept."""
        return self.good.scores(score)


class Counted(_Data):
    """How many of some images were over a threshold."""

    over: int = Field(ge=0)
    n: int = Field(gt=0)


class ByHand(_Judged):
    """A threshold that a person set, and from which score on images are to be reviewed.

    Both are of one kind of score, and of the settings by which images were scored then; see
    `CalibrationSet`. None is what was not set. `generation` is the state of the index that they
    were set for. `good` and `defects` are images that were tried at the threshold, if there were
    any.
    """

    score: Score
    threshold: float | None
    review: float | None
    created: str
    generation: str
    k: int = Field(gt=0)
    kappa: int = Field(gt=0)
    sigma: float = Field(ge=0)
    search: str | None
    good: Counted | None = None
    defects: Counted | None = None
    min_area: int | None = Field(default=None, gt=0)


class Manifest(_Data):
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

    @model_validator(mode="after")
    def _one_gallery_a_level(self) -> Manifest:
        if self.gallery and len(self.gallery.levels) != len(self.levels):
            raise ValueError(f"{len(self.gallery.levels)} galleries, {len(self.levels)} levels")
        return self

    def extended(self, **more: object) -> Manifest:
        """Return a copy with something that the second version brought: see `_SINCE_VERSION_2`."""
        return self.model_copy(update={**more, "version": 2})

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
        if not self.framing.margin:
            absent["framing"] = {"margin"}
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


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Put a JSON object in place at once, synced, with its own checksum.

    Of a path that is no Unicode, JSON keeps the bytes as Python does, as lone surrogates; pydantic
    would not.
    """
    data = json.loads(json.dumps(record))
    data = {"sha256": _digest(data), **data}
    replace_file(path, (json.dumps(data, indent=1) + "\n").encode(), sync=True)


def read_record(model: type[Record], path: Path, form: str, versions: tuple[int, ...]) -> Record:
    """Read what `write_record` wrote, and check its checksum, its format, and its contents.

    Raises
    ------
    SpadeError
        If the file is missing, or damaged, or of another version.
    """
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise SpadeError(
            f"{path.parent} holds no index (no {path.name}); make one with: "
            f"`fit(images, index='{path.parent}')`"
        ) from None
    except OSError as error:
        raise SpadeError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise SpadeError(f"{path} is damaged; build the index again") from None
    if not isinstance(record, dict) or record.get("format") != form:
        raise SpadeError(f"{path} is not the manifest of a {form}, or is damaged")
    expected = record.pop("sha256", None)
    known = record.get("version") in versions
    if known and expected != _digest(record):
        raise SpadeError(f"{path} is damaged (its checksum differs); build the index again")
    if not known:
        raise SpadeError(
            f"{path} is of version {record.get('version')} and this program reads versions "
            f"{' and '.join(map(str, versions))}; build the index again or install a matching "
            "spade-faiss"
        )
    try:
        return model.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpadeError(f"{path} is not valid: {where}: {first['msg']}") from None


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(record: object) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
