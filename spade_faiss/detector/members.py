"""An ensemble's members, opened together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._support.stages import Stages
from ..errors import SpadeError
from ..index import EnsembleManifest
from ..verdict.calibration import requested_quantile
from .pipeline import LazyNetwork
from .spade import Spade


def open_members(
    folder: Path, weights: Sequence[str | os.PathLike[str]], options: dict[str, Any]
) -> tuple[EnsembleManifest, list[Spade]]:
    """Open an ensemble's members, with one network for those that see through the same.

    Parameters
    ----------
    folder : Path
    weights : sequence of path
        One for each network, in the members' order; or none.
    options : dict
        As `Spade.load` takes them, "k", "kappa" and "quantile" among them.

    Returns
    -------
    manifest : EnsembleManifest
        What the members are of.
    members : list of Spade

    Raises
    ------
    SpadeError
        If there is no ensemble, or a file of it is missing or damaged.
    """
    manifest = EnsembleManifest.read(folder)
    try:
        return manifest, _open(folder, manifest, weights, options)
    except (SpadeError, OSError):
        # A writer may have replaced the ensemble meanwhile.
        again = EnsembleManifest.read(folder)
        if again.generation == manifest.generation:
            raise
        return again, _open(folder, again, weights, options)


def _open(
    folder: Path,
    manifest: EnsembleManifest,
    weights: Sequence[str | os.PathLike[str]],
    options: dict[str, Any],
) -> list[Spade]:
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


def with_shared_networks(members: Sequence[Spade]) -> list[Spade]:
    """Return members of which those that name the same network load it once."""
    networks: dict[object, LazyNetwork] = {}
    shared = []
    for member in members:
        settings, lazy = member.settings, member.pipeline.lazy_network
        named = settings.backbone, settings.weights, settings.device
        lazy = networks.setdefault(named, lazy)
        shared.append(member.with_pipeline(replace(member.pipeline, lazy_network=lazy)))
    return shared


def sharing(member: Spade, stages: Stages) -> Spade:
    """Return a copy that counts its seconds with the other members'."""
    return member.with_pipeline(replace(member.pipeline, stages=stages))
