"""An ensemble's members, opened together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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


def check_alike(members: Sequence[Spade]) -> None:
    """Refuse members that differ in what an ensemble keeps once for all of them.

    Raises
    ------
    SpadeError
        If they do.
    """
    for name in ("k", "kappa", "sigma"):
        values = list(dict.fromkeys(getattr(member.settings, name) for member in members))
        if len(values) > 1:
            raise SpadeError(
                f"an ensemble's members must have the same {name}, and have "
                f"{' and '.join(map(str, values))}: give all of them one of these"
            )


def params_of_members(members: Sequence[Spade]) -> dict[str, Any]:
    """Return each member by a name, and its parameters behind that, as scikit-learn has it.

    The first is `member_1`, and its `crop` is `member_1__crop`.
    """
    params: dict[str, Any] = {}
    for name, member in zip(names_of(members), members, strict=True):
        params[name] = member
        params |= {f"{name}__{own}": value for own, value in member.get_params().items()}
    return params


def with_params(members: Sequence[Spade], params: Mapping[str, Any]) -> list[Spade]:
    """Return members with other parameters, by the names of `params_of_members` or for all.

    Members that take another's place are to be fitted.

    Raises
    ------
    SpadeError
        If a value means nothing, or a member is none.
    TypeError
        If there is no such parameter.
    """
    own: dict[str, dict[str, Any]] = {name: {} for name in names_of(members)}
    changed, of_all = dict(zip(own, members, strict=True)), dict[str, Any]()
    for name, value in params.items():
        member, _, parameter = name.partition("__")
        if member not in own:
            of_all[name] = value
        elif parameter:
            own[member][parameter] = value
        elif isinstance(value, Spade):
            changed[member] = value if value is changed[member] else value.unfitted()
        else:
            raise SpadeError(f"{name} = {value!r} must be a Spade")
    return [member.with_options(**(of_all | own[name])) for name, member in changed.items()]


def names_of(members: Sequence[Spade]) -> list[str]:
    """Return what members are called among parameters."""
    return [f"member_{number}" for number in range(1, len(members) + 1)]


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
