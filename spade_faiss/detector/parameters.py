"""A detector's parameters, as they are given, and the settings that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..features import check_name
from ..images.roi import roi_of
from .presets import PRESETS, with_preset
from .settings import Settings


def check_backbone(given: Mapping[str, Any]) -> None:
    """Refuse the name of a network that there is not, if one is given.

    Settings do not: an index of a network of one's own has that network's name.
    """
    if isinstance(name := given.get("backbone"), str):
        check_name(name)


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Return the settings that parameters, as `Spade` takes them, stand for."""
    values = {**given, "region": roi_of(given["region"])}
    return Settings(**with_preset(values.pop("preset"), **values))


def params_of(settings: Settings) -> dict[str, Any]:
    """Return parameters that stand for settings; those are None that their preset has, too."""
    preset = settings.preset or "paper"
    params = {
        name: None if name in PRESETS[preset] and PRESETS[preset][name] == value else value
        for name, value in settings.as_dict().items()
    }
    return params | {"preset": preset}
