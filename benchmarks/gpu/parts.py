"""All parts, in the order of their worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from .build import build_part
from .device import device_part
from .files import files_part
from .levels import level_part
from .others import ENTRANTS, others_part
from .pipeline import pipeline_part, spade_part
from .setting import Result, Setting
from .single import single_part


class Part(NamedTuple):
    """A part: what its results are titled, what yields them, and the seconds that it may take."""

    title: str
    measure: Callable[[Setting], Iterator[Result]]
    seconds: float


_OTHERS = {
    f"others {name}": Part("others", partial(others_part, name=name), 75) for name in ENTRANTS
}
_LEVELS = {
    f"level {number}": Part(f"level {number}", partial(level_part, number=number - 1), seconds)
    for number, seconds in ((1, 90), (2, 60), (3, 60))
}
PARTS = {
    "device": Part("device", device_part, 45),
    "files": Part("files", files_part, 120),
    "single": Part("single", single_part, 110),
    "build": Part("build", build_part, 120),
    **_OTHERS,
    "pipeline": Part("pipeline", pipeline_part, 60),
    **_LEVELS,
    "spade": Part("spade", spade_part, 60),
}
"""By name."""
GROUPS = {"others": tuple(_OTHERS)}
"""Names of several parts."""
CHOICES = tuple(dict.fromkeys(part.title for part in PARTS.values()))
"""What may be asked for."""
