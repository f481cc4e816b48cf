"""Named settings: the paper's, and those that were found to be the most accurate."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import SpadeError

PRESETS: Mapping[str, Mapping[str, bool]] = {
    "paper": {"standardise": False, "contrast": False, "margin": False, "averaged": False},
    "best": {"standardise": True, "contrast": True, "margin": True, "averaged": True},
}
"""Parameters of `spade_faiss.Spade` by the preset's name."""


def preset_of(name: str) -> Mapping[str, bool]:
    """Return the parameters that a preset stands for.

    Raises
    ------
    SpadeError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise SpadeError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def name_of_preset(**parameters: bool) -> str | None:
    """Return the preset that stands for these parameters, or None."""
    return next((name for name, chosen in PRESETS.items() if chosen == parameters), None)
