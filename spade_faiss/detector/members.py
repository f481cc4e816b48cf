"""An ensemble's members: opened together, and in folders of one generation."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._support.stages import Stages
from ..errors import SpadeError
from ..index import EnsembleManifest, is_ensemble
from ..index.generation import discard_generations
from ..verdict.calibration import requested_quantile
from .spade import Spade


def open_members(
    folder: Path,
    manifest: EnsembleManifest,
    weights: Sequence[str | os.PathLike[str]],
    options: dict[str, Any],
) -> list[Spade]:
    """Open an ensemble's members, with one network for those that see through the same."""
    manifests = manifest.manifests(folder)
    made = [one.backbone for one in manifests]
    names = list(dict.fromkeys(made))
    if weights and len(weights) != len(names):
        listed = ", ".join(one.name for one in names)
        raise SpadeError(
            f"{folder} has {len(names)} networks ({listed}): give `weights` once "
            "for each, in this order"
        )
    files = dict(zip(names, weights, strict=False))
    members: list[Spade] = []
    for member, network in zip(manifest.members, made, strict=True):
        own = Spade.load(folder / member.folder, weights=files.get(network), **options)
        same = (one for one, other in zip(members, made, strict=False) if other == network)
        lazy = next(same, own).pipeline.lazy_network
        members.append(own.with_pipeline(replace(own.pipeline, lazy_network=lazy)))
    last = manifest.calibration_set or manifest.calibration
    if last is None:
        return members
    settings: dict[str, Any] = {"sigma": last.sigma}
    if options["k"] is None:
        settings["k"] = last.k
    if options["kappa"] is None:
        settings["kappa"] = last.kappa
    if options["quantile"] is None:
        settings["quantile"] = requested_quantile(manifest, manifests[0])
    return [member.with_options(**settings) for member in members]


@contextmanager
def new_generation(folder: Path) -> Iterator[Path]:
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


def link_or_copy(source: str, target: str) -> None:
    """Give a file of an index, which is never changed in place, a second name; or copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def sharing(member: Spade, stages: Stages) -> Spade:
    """Return a copy that counts its seconds with the other members'."""
    return member.with_pipeline(replace(member.pipeline, stages=stages))
