"""What an ensemble's members see: each network the image itself, and views of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..errors import SpadeError
from ..features import Backbone
from .spade import Spade

VIEWS = ("flip", "scale")
"""What a member may see instead of the image: its mirror image, or more pixels of it."""
_FINER = 1.25


def members_of(
    networks: Sequence[Backbone | str],
    views: Sequence[str],
    weights: Sequence[str | os.PathLike[str] | None],
    **settings: Any,
) -> list[Spade]:
    """Return a detector of each network on the image itself and on each view of it.

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
        If a view is unknown, there are weights for other than all networks, or a network or its
        weights cannot be had.
    """
    for view in views:
        if view not in VIEWS:
            raise SpadeError(f"unknown view {view!r}: choose one of {', '.join(VIEWS)}")
    if "scale" in views and settings.get("tile") is not None:
        raise SpadeError(
            "the view 'scale' shows more pixels, and tiles show all of them: leave out `tile`, or "
            "take the view 'flip'"
        )
    if weights and len(weights) != len(networks):
        named = "one network" if len(networks) == 1 else f"{len(networks)} networks"
        raise SpadeError(
            f"`weights` is given {len(weights)} times for {named}: give it once for each, "
            "or not at all"
        )
    members = []
    for network, file in zip(networks, weights or [None] * len(networks), strict=True):
        plain = Spade(network, weights=file, **settings)
        plain.pipeline.lazy_network()
        members.append(plain)
        if "flip" in views:
            members.append(plain.with_options(mirror=True))
        if "scale" in views:
            resize, crop = plain.settings.shorter_side, plain.settings.crop
            finer = None if crop is None else round(_FINER * crop)
            members.append(plain.with_options(resize=round(_FINER * resize), crop=finer))
    return members
