"""The manifest: what an index holds, how it was made, and a checksum of each of its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .._files import replace_file
from ..errors import SpadeError
from ..images import Framing

MANIFEST = "manifest.json"
FORMAT = "spade-faiss index"
VERSION = 1


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingImage(_Data):
    """One good image: where it was, and its size in pixels before framing."""

    path: str
    height: int = Field(gt=0)
    width: int = Field(gt=0)


class DataFile(_Data):
    """One file of the index, relative to its folder."""

    name: str = Field(pattern=r"^[0-9a-f]{8}/[a-z0-9]+\.(faiss|u8|f32)$")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


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

    def framing(self) -> Framing:
        """Return the framing itself."""
        return Framing(self.resize, (self.height, self.width), self.crop)


class Calibration(_Data):
    """Leave-one-out results of the training images, and the thresholds drawn from them.

    `descriptor_scores` (mean squared distance to the K nearest descriptors) and `peaks` (the
    largest value of each anomaly map) are in the training images' order. A threshold is None
    where fewer than two images leave nothing to judge by.
    """

    quantile: float = Field(gt=0, lt=1)
    k: int = Field(gt=0)
    kappa: int = Field(gt=0)
    sigma: float = Field(ge=0)
    descriptor_scores: tuple[float, ...]
    peaks: tuple[float, ...]
    descriptor_threshold: float | None
    pixel_threshold: float | None


class Manifest(_Data):
    """Everything that is known about an index but its data."""

    format: Literal["spade-faiss index"] = "spade-faiss index"
    version: Literal[1] = 1
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
    usual: DataFile | None = None
    """float32 [rows, 3], all levels' patches in turn; see `spade_faiss.contrast.usual`."""

    @property
    def files(self) -> tuple[DataFile, ...]:
        """Every data file."""
        usual = (self.usual,) if self.usual else ()
        return (self.descriptors, *(level.file for level in self.levels), self.crops, *usual)

    @property
    def generation(self) -> str:
        """The folder that holds the data files; a new one for every change."""
        return self.descriptors.name.split("/")[0]

    def write(self, folder: Path) -> None:
        """Put the manifest in place at once, synced: this is the moment a change takes effect."""
        text = self.model_dump_json(indent=1)
        record = {"sha256": _digest(json.loads(text)), **json.loads(text)}
        replace_file(folder / MANIFEST, (json.dumps(record, indent=1) + "\n").encode(), sync=True)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check the manifest of the index in `folder`.

        Raises
        ------
        SpadeError
            If there is none, or it is damaged, or of another version.
        """
        path = folder / MANIFEST
        try:
            record = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise SpadeError(
                f"{folder} holds no index (no {MANIFEST}); make one with: "
                f"spade-faiss build TRAIN_DIR --index {folder}"
            ) from None
        except OSError as error:
            raise SpadeError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise SpadeError(f"{path} is damaged; build the index again") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise SpadeError(f"{path} is not the manifest of a spade-faiss index, or is damaged")
        expected = record.pop("sha256", None)
        if record.get("version") == VERSION and expected != _digest(record):
            raise SpadeError(f"{path} is damaged (its checksum differs); build the index again")
        if record.get("version") != VERSION:
            raise SpadeError(
                f"{path} is of version {record.get('version')} and this program reads version "
                f"{VERSION}; build the index again or install a matching spade-faiss"
            )
        try:
            return cls.model_validate_json(json.dumps(record))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise SpadeError(f"{path} is not valid: {where}: {first['msg']}") from None


def _digest(record: object) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
