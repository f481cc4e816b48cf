"""A new detector: one, or an ensemble where there are several networks or views."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..features import Backbone
from .detector import Detector
from .ensemble import Ensemble
from .spade import Spade


def new_detector(
    networks: Sequence[Backbone | str],
    views: Sequence[str] = (),
    weights: Sequence[str | os.PathLike[str]] = (),
    **settings: Any,
) -> Detector:
    """Return a detector that is to be fitted: of one network and the image itself, a `Spade`.

    Of several networks, or with views of the image, it is an `Ensemble`.

    Parameters
    ----------
    networks : sequence of Backbone or str
    views : sequence of str, some of `spade_faiss.detector.views.VIEWS`
    weights : sequence of path
        One for each network, or none.
    **settings
        As `Spade` takes them.

    Raises
    ------
    SpadeError
        If there are other than none or as many weights as networks, a view is unknown, or a
        setting means nothing; of an ensemble also if a network or its weights cannot be had.
    """
    if len(networks) == 1 and not views and len(weights) < 2:
        return Spade(networks[0], weights=weights[0] if weights else None, **settings)
    return Ensemble.of(networks, views, weights, **settings)
