"""The manifest of an ensemble: its members, each an index of its own, and what they have in common.

Layout of an ensemble's folder::

    ensemble.json                 which generation counts, its members, statistics, thresholds
    <8 hex digits>/1, 2, …        one generation: the members' index folders

As with an index, replacing the manifest is the one step that makes a change count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from ..errors import SpadeError
from .generation import index_lock
from .manifest import ENSEMBLE, MANIFEST, Manifest
from .record import Data, file_sha256, read_record, write_record
from .scores import ByHand, Calibration, CalibrationSet
from .verify import damaged_files

ENSEMBLE_FORMAT = "spade-faiss ensemble"


class Statistics(Data):
    """Mean and standard deviation of good images' leave-one-out maps and descriptor scores."""

    map_mean: float
    map_std: float = Field(gt=0)
    score_mean: float
    score_std: float = Field(gt=0)


class Member(Data):
    """One member: its index folder, the checksum of its manifest, and its statistics."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    folder: str = Field(pattern=r"^[0-9a-f]{8}/[0-9]+$")
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    statistics: Statistics = Field(validation_alias="usual", serialization_alias="usual")


class EnsembleManifest(Data):
    """Everything that is known about an ensemble but its members' data.

    `calibration` is that of the averaged maps and descriptor scores, in standard deviations.
    """

    format: Literal["spade-faiss ensemble"] = "spade-faiss ensemble"
    version: Literal[1, 2] = 1
    created: str
    members: tuple[Member, ...] = Field(min_length=1)
    calibration: Calibration | None = None
    by_hand: tuple[ByHand, ...] = ()
    """At most one a kind of score. The second version brought it."""
    calibration_set: CalibrationSet | None = Field(
        default=None, validation_alias="held_out", serialization_alias="held_out"
    )
    """What `calibrate` found. The second version brought it."""

    @model_validator(mode="after")
    def _one_generation(self) -> EnsembleManifest:
        if len({member.folder.split("/")[0] for member in self.members}) > 1:
            raise ValueError("the members are of several generations")
        return self

    @property
    def generation(self) -> str:
        """The folder that holds the members; a new one for every change."""
        return self.members[0].folder.split("/")[0]

    def extended(self, **more: object) -> EnsembleManifest:
        """Return a copy with something that the second version brought."""
        return self.model_copy(update={**more, "version": 2})

    def write(self, folder: Path) -> None:
        """Put the manifest in place at once, synced: this is the moment a change takes effect."""
        absent = {name for name in ("by_hand", "calibration_set") if not getattr(self, name)}
        write_record(folder / ENSEMBLE, self.model_dump(by_alias=True, exclude=absent))

    @classmethod
    def read(cls, folder: Path) -> EnsembleManifest:
        """Read and check the manifest of the ensemble in `folder`.

        Raises
        ------
        SpadeError
            If there is none, or it is damaged, or of another version.
        """
        return read_record(cls, folder / ENSEMBLE, ENSEMBLE_FORMAT, (1, 2))

    def manifests(self, folder: Path) -> list[Manifest]:
        """Read the members' manifests.

        Raises
        ------
        SpadeError
            If one is missing, damaged, or not the one that the ensemble was made with.
        """
        found = []
        for member in self.members:
            path = folder / member.folder / MANIFEST
            found.append(Manifest.read(path.parent))
            if file_sha256(path) != member.manifest_sha256:
                raise SpadeError(
                    f"{path} is not the one that {folder / ENSEMBLE} was made with; "
                    "build the ensemble again"
                )
        return found

    def damaged(self, folder: Path) -> list[str]:
        """Return one line for each data file that is missing or differs from its checksum."""
        return [
            line
            for member, manifest in zip(self.members, self.manifests(folder), strict=True)
            for line in damaged_files(folder / member.folder, manifest)
        ]


def is_ensemble(folder: Path) -> bool:
    """Say whether a folder holds an ensemble and not one index.

    Raises
    ------
    SpadeError
        If it holds both, of which either may be meant.
    """
    if not (folder / ENSEMBLE).exists():
        return False
    if (folder / MANIFEST).exists():
        raise SpadeError(
            f"{folder} holds both an index ({MANIFEST}) and an ensemble ({ENSEMBLE}): "
            "remove the file of the one that is not meant"
        )
    return True


def read_manifest(folder: Path) -> Manifest | EnsembleManifest:
    """Read the manifest of the index, or of the ensemble, whichever a folder holds.

    Raises
    ------
    SpadeError
        If there is neither, or it is damaged, or of another version.
    """
    return (EnsembleManifest if is_ensemble(folder) else Manifest).read(folder)


def rewrite_manifest(
    folder: Path, old: Manifest | EnsembleManifest, **changes: object
) -> Manifest | EnsembleManifest:
    """Change what the manifest in `folder` says, if the data is still what `old` is of.

    `changes` are of the fields that the second version brought. The new manifest is returned.

    Raises
    ------
    SpadeError
        If the index was changed meanwhile, or the folder cannot be written.
    """
    name = ENSEMBLE if isinstance(old, EnsembleManifest) else MANIFEST
    try:
        with index_lock(folder, name):
            now = type(old).read(folder)
            if now.generation != old.generation:
                raise SpadeError(f"{folder} was changed meanwhile; calibrate it again")
            manifest = now.extended(**changes)
            manifest.write(folder)
    except OSError as error:
        raise SpadeError(
            f"{folder} cannot be written: {error.strerror or error}; what was there before is whole"
        ) from None
    return manifest
