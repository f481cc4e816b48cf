"""Named settings: the paper's, the most accurate that were found, and those for videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SpadeError

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "standardise": False,
        "contrast": False,
        "margin": False,
        "averaged": False,
        "motion": False,
        "sigma": 4.0,
        "score": "map",
    },
    "best": {
        "standardise": True,
        "contrast": True,
        "margin": True,
        "averaged": True,
        "motion": False,
        "sigma": 4.0,
        "score": "mean",
    },
    "video": {
        "standardise": True,
        "contrast": False,
        "margin": False,
        "averaged": False,
        "motion": True,
        "sigma": 8.0,
        "score": "map",
    },
}
"""Parameters of `spade_faiss.Spade` by the preset's name."""


def with_preset(name: str, **given: Any) -> dict[str, Any]:
    """Return a detector's parameters: those given, but the preset's where it has one and None is.

    Raises
    ------
    SpadeError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise SpadeError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return given | {key: own for key, own in PRESETS[name].items() if given[key] is None}


def name_of_preset(**parameters: bool) -> str | None:
    """Return the preset that stands for these parameters, whatever the others are, or None."""
    return next(
        (name for name, chosen in PRESETS.items() if chosen.items() >= parameters.items()), None
    )
