"""All colours: of anomaly maps against their threshold, of verdicts, and of the pages and plots.

Colours are chosen so that people with any kind of colour blindness tell them apart. `HEAT` darkens
from end to end, whatever lies below it; verdicts differ by a CIEDE2000 of 15 or more to everyone,
and stand beside their word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from ..types import Doubles, Floats
from ..verdict import over

Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

CLEAR, FULL = 0.75, 1.5
"""Times the threshold: nothing is painted up to the first, and colours end at the second."""
HEAT: tuple[Colour, ...] = ((255, 214, 0), (255, 130, 0), (214, 18, 26))
"""Yellow, orange, red: evenly from the threshold to `FULL` times its value."""
STRENGTH = 0.65
"""How much of the image is covered by what is over the threshold."""
_FAINT = 0.4
"""How much of that is covered by what is just below the threshold."""
_COOL: tuple[Colour, ...] = ((190, 226, 255), (90, 160, 255), (20, 84, 225))
"""What has no threshold has no alarm's colours."""
_GROUND: tuple[Colour, ...] = ((12, 16, 28), (86, 98, 122))
OUTLINE: tuple[Colour, Colour] = (255, 255, 255), (0, 0, 0)
"""A light line on a darker edge, which one of any ground shows."""
MARK: Colour = (0, 184, 238)
"""Boxes, and defects as the ground truth has them."""

LIGHT: Mapping[str, str] = {
    "paper": "#f7f7f5",
    "card": "#ffffff",
    "ink": "#1b1b1f",
    "muted": "#5d5d66",
    "line": "#dcdcd8",
    "soft": "#ececea",
    "edge": "#83838b",
    "accent": "#1f5fa8",
    "second": "#b4641a",
    "grey": "#838a94",
    "on": "#ffffff",
    "on-review": "#1b1b1f",
    "ok": "#007a5a",
    "review": "#bf7d00",
    "ng": "#b01c1c",
    "error": "#5b3a9e",
    "review-soft": "#fdf0d9",
    "ng-soft": "#fbe6e3",
}
"""By their names in style sheets; `on` is text on accent and verdicts, `on-review` on that one."""
DARK: Mapping[str, str] = {
    "paper": "#131316",
    "card": "#1d1d21",
    "ink": "#ececf0",
    "muted": "#a5a5ae",
    "line": "#35353b",
    "soft": "#29292e",
    "edge": "#74747d",
    "accent": "#83b7f5",
    "second": "#f0a35c",
    "grey": "#7b828c",
    "on": "#17171a",
    "on-review": "#17171a",
    "ok": "#4fc9a8",
    "review": "#ffd34d",
    "ng": "#ff6f63",
    "error": "#b8a2ff",
    "review-soft": "#33270f",
    "ng-soft": "#3a1f1d",
}
SERIES: tuple[str, ...] = ("#1f5fa8", "#c46a10", "#12806a", "#8a2f63", "#26262e")
"""Bars that stand side by side."""


def rgb(name: str) -> Colour:
    """Return a colour `#rrggbb`, or one of `LIGHT` by its name, as pictures have it."""
    red, green, blue = bytes.fromhex(LIGHT.get(name, name).lstrip("#"))
    return red, green, blue


def verdict_colours(verdict: str) -> tuple[Colour, Colour]:
    """Return the colours of a verdict and of text on it; grey is for what has none."""
    name = verdict.lower() or "grey"
    return rgb(name), rgb(f"on-{name}" if f"on-{name}" in LIGHT else "on")


def heat(values: Floats, threshold: float | None, top: float | None = None) -> Picture:
    """Return the colours that lie over an image where its map is high.

    Over the threshold they go from yellow to red, which is reached at `FULL` times its value.
    Just below, yellow is faint, and at `CLEAR` times the threshold it has faded away. Without a
    threshold nothing is judged: blue rises from half of `top` to it.

    Parameters
    ----------
    values : float32 [h, w]
        An anomaly map.
    threshold : float or None
    top : float, optional
        Where colours end if there is no threshold; by default at the map's maximum.

    Returns
    -------
    uint8 [h, w, 4], RGBA
        The alpha of what is over the threshold is 255, of which a picture takes `STRENGTH`.
    """
    if threshold is None:
        share = _ratio(values, _top(values, top))
        return np.dstack([_ramp(_COOL, (share - 0.5) / 0.5), _bytes(255 * (share - 0.5) / 0.5)])
    share, high = _ratio(values, threshold), over(values, threshold)
    faint = _FAINT * np.clip((share - CLEAR) / (1 - CLEAR), 0, 1)
    return np.dstack(
        [
            _ramp(HEAT, np.where(high, (share - 1) / (FULL - 1), 0)),
            _bytes(255 * np.where(high, 1, faint)),
        ]
    )


def whole_map(values: Floats, threshold: float | None, top: float | None = None) -> Picture:
    """Return a map alone, uint8 [h, w, 3], RGB: `heat`, on a dark blue that rises with values."""
    limit = _top(values, top) if threshold is None else threshold
    return blend(_ramp(_GROUND, _ratio(values, limit)), heat(values, threshold, top), 1)


def blend(picture: Picture, painted: Picture, strength: float = STRENGTH) -> Picture:
    """Return a picture, uint8 [h, w, 3], with colours over it, uint8 [h, w, 4]."""
    alpha = painted[..., 3:] * np.float32(strength / 255)
    return _bytes(picture * (1 - alpha) + painted[..., :3] * alpha)


def scale_of(values: Floats, threshold: float | None, length: int) -> tuple[Floats, Picture]:
    """Return the values that `heat` paints, from low to high, and their colours on grey.

    Returns
    -------
    float32 [length]
    uint8 [length, 3], RGB
    """
    top = _top(values, None)
    ends = (top / 2, top) if threshold is None else (CLEAR * threshold, FULL * threshold)
    shown = np.linspace(*ends, length, dtype=np.float32)
    grey = np.full((1, length, 3), rgb("edge"), np.uint8)
    return shown, blend(grey, heat(shown[None], threshold, top), 1)[0]


def resized(values: Floats, size: tuple[int, int]) -> Floats:
    """Return a map in another size (width, height); made smaller, it keeps its peaks.

    An average would hide a small place that is over the threshold.
    """
    folds = [old / new for old, new in zip(values.shape, size[::-1], strict=True)]
    if max(folds) <= 1:
        return np.asarray(cv2.resize(values, size), np.float32)
    window = np.ones([2 * math.ceil(fold / 2) + 1 if fold > 1 else 1 for fold in folds], np.uint8)
    most = cv2.dilate(values, window)
    return np.asarray(cv2.resize(most, size, interpolation=cv2.INTER_NEAREST_EXACT), np.float32)


def style_sheet() -> str:
    """Return the colours as a style sheet's variables, for light and for dark schemes.

    `--heat` shows what `heat` paints from `CLEAR` to `FULL`.
    """
    light, dark = (
        "".join(f"--{name}: {value}; " for name, value in scheme.items())
        for scheme in (LIGHT, DARK)
    )
    same = {
        "strength": f"{STRENGTH:g}",
        "mark": _hex(MARK),
        "outline": _hex(OUTLINE[0]),
        "outline-edge": _hex(OUTLINE[1]),
        "heat": _gradient(),
    }
    light += "".join(f"--{name}: {value}; " for name, value in same.items())
    return (
        f":root {{ {light}color-scheme: light dark; }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"
    )


def _gradient() -> str:
    """Return `heat` between `CLEAR` and `FULL` as CSS."""
    at = np.array([CLEAR, 1, np.nextafter(np.float32(1), 2), (1 + FULL) / 2, FULL], np.float32)
    stops = [
        f"rgb({red} {green} {blue} / {alpha / 255:.2f}) "
        f"{100 * (place - CLEAR) / (FULL - CLEAR):.1f}%"
        for place, (red, green, blue, alpha) in zip(
            at.tolist(), heat(at[None], 1.0)[0].tolist(), strict=True
        )
    ]
    return f"linear-gradient(90deg, {', '.join(stops)})"


def _top(values: Floats, top: float | None) -> float:
    return max(float(values.max()) if top is None else top, 1e-12)


def _ratio(values: Floats, limit: float) -> Doubles:
    """Return values over a limit; one that is not over 0 has all above it infinitely far away."""
    if limit <= 0:
        return np.where(values > limit, np.inf, 0.0)
    with np.errstate(over="ignore"):
        return np.asarray(values / np.float64(limit), np.float64)


def _ramp(stops: tuple[Colour, ...], share: Doubles) -> Picture:
    """Return the colours at shares 0…1 of the way along evenly spaced ones."""
    places = np.linspace(0, 1, len(stops))
    return np.stack(
        [_bytes(np.interp(share, places, channel)) for channel in zip(*stops, strict=True)], -1
    )


def _bytes(values: npt.NDArray[np.floating]) -> Picture:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _hex(colour: Colour) -> str:
    return "#" + bytes(colour).hex()
