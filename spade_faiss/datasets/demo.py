"""A small data set in MVTec AD's layout, made of scikit-image's photographs of textures.

Good images are views of brick, grass and gravel; defects are painted onto such views, so that
each mask is known exactly.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import numpy.typing as npt

from .._support.files import replace_file
from ..errors import SpadeError
from ..types import Floats, Mask

SIDE = 256
"""Height and width of every image, in pixels."""

Pixels = npt.NDArray[np.uint8]
Line = npt.NDArray[np.float64]  # points (x, y), in pixels
Painter = Callable[[Floats, np.random.Generator], tuple[Floats, Floats]]
"""Takes a view [H, W, 3]; returns it with a defect, and how much of each pixel that covers."""

_MARGIN = 24  # no defect is nearer to the edge: a centre crop of 224 sees it whole
_VISIBLE = 0.2  # the cover from which a pixel belongs to a defect
_FINE = 4  # lines are drawn this much larger and averaged down
_Y, _X = np.indices((SIDE, SIDE), np.float32)


@dataclass(frozen=True)
class _Texture:
    """The colour that a grey photograph is given, and whether it may stand on its head."""

    colour: tuple[float, float, float]
    turns: bool


_TEXTURES = {
    "brick": _Texture((1.15, 0.9, 0.8), turns=False),
    "grass": _Texture((0.9, 1.05, 0.7), turns=True),
    "gravel": _Texture((1.0, 0.98, 0.95), turns=False),
}


def make_demo(
    root: str | os.PathLike[str],
    seed: int = 0,
    n_train: int = 16,
    n_good: int = 4,
    n_defects: int = 2,
) -> list[str]:
    """Write the data set, and return the names of its categories.

    PNG files of 256 x 256 pixels, masks of 0 and 255. The same seed gives the same files, and
    no image depends on how many others there are. Training and test images come from
    all of each photograph alike: by training images of a part of it, which overlap more, thresholds
    would be too low for the rest. The folder appears whole or not at all.

    Parameters
    ----------
    root : path
        A folder that is empty or not there yet.
    seed : int
        0 or more.
    n_train, n_good, n_defects : int
        Images per category: for training, good ones for the test, and ones for the test of
        each of the six kinds of defect.

    Raises
    ------
    SpadeError
        If `root` exists and is not an empty folder, or the seed is negative.
    ValueError
        If a number of images is less than one.

    Examples
    --------
    >>> make_demo("demo", n_train=1, n_good=1, n_defects=1)
    ['brick', 'grass', 'gravel']
    >>> sorted(path.name for path in Path("demo/grass/test").iterdir())
    ['crack', 'foreign', 'good', 'hole', 'scratch', 'smear', 'stain']
    """
    if seed < 0:
        raise SpadeError(f"seed {seed} is negative; give 0 or more")
    if min(n_train, n_good, n_defects) < 1:
        raise ValueError("n_train, n_good and n_defects must be 1 or more")
    root = Path(root).resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SpadeError(f"{root} exists and is not empty; name another place")
    root.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as beside:
        whole = Path(beside, "whole")
        for category in _TEXTURES:
            _write_category(whole / category, seed, category, (n_train, n_good, n_defects))
        whole.rename(root)
    return list(_TEXTURES)


def _write_category(folder: Path, seed: int, category: str, counts: tuple[int, int, int]) -> None:
    """Write the images of a category: to learn from, good, and of each kind of defect."""
    n_train, n_good, n_defects = counts
    for i in range(n_train):
        image = render(seed, category, "train", i).image
        _write(folder / "train" / "good" / f"{i:03}.png", image)
    for i in range(n_good):
        _write(folder / "test" / "good" / f"{i:03}.png", render(seed, category, "good", i).image)
    for kind in DEFECTS:
        for i in range(n_defects):
            made = render(seed, category, kind, i)
            _write(folder / "test" / kind / f"{i:03}.png", made.image)
            mask = made.mask * np.uint8(255)
            _write(folder / "ground_truth" / kind / f"{i:03}_mask.png", mask)


def _write(path: Path, image: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = image if image.ndim == 2 else image[:, :, ::-1]
    replace_file(path, cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())


@dataclass(frozen=True)
class Rendered:
    """One image of the data set.

    Attributes
    ----------
    clean : uint8 [H, W, 3]
        The view before a defect was painted onto it.
    image : uint8 [H, W, 3]
        Equal to `clean` wherever the mask is False.
    mask : bool [H, W]
    """

    clean: Pixels
    image: Pixels
    mask: Mask


def render(seed: int, category: str, kind: str, index: int) -> Rendered:
    """Return an image of a category; `kind` is `train`, `good` or one of `DEFECTS`."""
    stream = seed, list(_TEXTURES).index(category), ["train", "good", *DEFECTS].index(kind), index
    rng = np.random.default_rng(stream)
    view = _view(category, rng)
    clean = _to_uint8(view)
    if kind not in DEFECTS:
        return Rendered(clean, clean, np.zeros((SIDE, SIDE), bool))
    painted, cover = DEFECTS[kind](view, rng)
    mask = cover >= _VISIBLE
    return Rendered(clean, np.where(mask[:, :, None], _to_uint8(painted), clean), mask)


def photograph(name: str) -> Pixels:
    """Return one of scikit-image's textures, uint8 `[512, 512]`; they ship with it."""
    from skimage import data

    photo: Pixels = getattr(data, name)()
    return photo


def _floats(values: npt.ArrayLike) -> Floats:
    return np.asarray(values, np.float32)


def _to_uint8(image: Floats) -> Pixels:
    return np.round(np.clip(image, 0, 255)).astype(np.uint8)


def _view(category: str, rng: np.random.Generator) -> Floats:
    """Return a good image [H, W, 3], framed, lit and coloured a little differently each time."""
    photo, texture = photograph(category), _TEXTURES[category]
    side = rng.integers(200, 257)
    top, left = (rng.integers(0, length - side + 1) for length in photo.shape)
    crop = photo[top : top + side, left : left + side].astype(np.float32)
    view = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        view = view[:, ::-1]
    if texture.turns and rng.random() < 0.5:
        view = view[::-1]
    contrast, gain = rng.uniform(0.92, 1.08), rng.uniform(0.9, 1.1)
    slope_y, slope_x = rng.uniform(-0.08, 0.08, 2)  # lit a little from one side
    light = gain * (1 + slope_y * (_Y / SIDE - 0.5) + slope_x * (_X / SIDE - 0.5))
    grey = (128 + contrast * (view - 128)) * light
    tint = np.asarray(texture.colour) * rng.uniform(0.97, 1.03, 3)
    return _floats(grey[:, :, None] * tint)


def _scratch(view: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Paint a thin curved line, bright or dark, with its shadow."""
    along = np.linspace(0, 1, 40)
    length, bend = rng.uniform(100, 170), rng.uniform(-30, 30)
    arc = np.stack([length * along, 4 * bend * along * (1 - along)], axis=1)
    path = _placed(_turned(arc, rng.uniform(0, np.pi)), rng)
    widths = rng.uniform(2.5, 3.5) * (0.6 + 0.4 * np.sin(np.pi * along))
    tone, edge = (230, 60) if rng.random() < 0.5 else (25, 150)
    line, shadow = _stroke(path, widths), _stroke(path + 1.2, widths)
    return _layers(view, (_flat(edge), 0.5 * shadow), (_flat(tone), rng.uniform(0.75, 0.95) * line))


def _hole(view: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Paint a dark pit, its far wall lit, its rim in shade."""
    blob = _Blob(rng, rng.uniform(10, 18), wobble=0.12)
    wall = np.clip((blob.x + blob.y) * blob.rho**3, 0, None)
    pit = _flat(14) + 60 * wall[:, :, None]
    return _layers(view, (0.5 * view, blob.cover()), (pit, blob.cover(0.88, soft=1.5)))


def _stain(view: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Paint a translucent coloured blot, darker at its rim as a dried drop is."""
    blob = _Blob(rng, rng.uniform(16, 26), wobble=0.2)
    colours = np.asarray([(0.62, 0.33, 0.15), (0.2, 0.3, 0.62), (0.75, 0.6, 0.12)], np.float32)
    colour = colours[rng.integers(len(colours))]
    rim = np.exp(-(((blob.rho - 0.9) / 0.12) ** 2))[:, :, None]
    blot = view * colour * (1 - 0.35 * rim)
    return _layers(view, (blot, rng.uniform(0.6, 0.9) * blob.cover(soft=1.5)))


def _foreign(view: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Paint a thing that lies on the surface: a metal disc or a fibre."""
    return _disc(view, rng) if rng.random() < 0.5 else _fibre(view, rng)


def _disc(view: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    disc = _Blob(rng, rng.uniform(9, 15), wobble=0)
    brushed = np.cos(2 * (np.arctan2(disc.y, disc.x) - rng.uniform(0, np.pi)))
    bevel = np.where(disc.rho > 0.78, -0.7 * (disc.x + disc.y), 0)
    metals = np.asarray([(1, 1.02, 1.05), (1.15, 0.98, 0.6)], np.float32)  # steel, brass
    shine = (150 + 45 * brushed + 70 * bevel)[:, :, None] * metals[rng.integers(2)]
    shadow = disc.cover(shift=2.5, soft=3)
    return _layers(view, (0.35 * view, 0.7 * shadow), (shine, disc.cover()))


def _fibre(view: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    along = np.linspace(0, 1, 60)
    length, sway = rng.uniform(70, 120), rng.uniform(10, 20)
    wave = np.stack([length * along, sway * np.sin(2 * np.pi * rng.uniform(0.7, 1.3) * along)], 1)
    path = _placed(_turned(wave, rng.uniform(0, np.pi)), rng)
    dyes = np.asarray([(190, 40, 45), (35, 75, 190), (225, 220, 205)], np.float32)
    dye = _flat(1) * dyes[rng.integers(len(dyes))]
    thread, glint = _stroke(path, np.full(60, 4.0)), _stroke(path - 0.7, np.full(60, 1.2))
    shadow = _stroke(path + 2, np.full(60, 4.0))
    return _layers(view, (0.4 * view, 0.7 * shadow), (dye, thread), (_flat(250), 0.45 * glint))


def _smear(view: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Wipe the texture along one direction."""
    # Across the joints of brick, which run upright: along them a wipe would not show.
    angle = rng.uniform(-0.5, 0.5)
    reach = int(rng.integers(12, 19))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    end = round(reach * np.cos(angle)), round(reach * np.sin(angle))
    cv2.line(kernel, (reach - end[0], reach - end[1]), (reach + end[0], reach + end[1]), 1)
    wiped = cv2.filter2D(view, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    ends = np.asarray([(0, 0), (rng.uniform(25, 45), 0)])
    path = _placed(_turned(ends, angle), rng, margin=_MARGIN + 18)
    swath = cv2.GaussianBlur(_stroke(path, np.full(2, rng.uniform(24, 32))), (0, 0), 1.5)
    return _layers(view, (_floats(wiped), _floats(swath)))


def _crack(view: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Paint a dark jagged line with branches, one of its edges lit."""
    trunk = _jagged(rng, int(rng.integers(14, 20)), rng.uniform(0, 2 * np.pi))
    paths = [trunk]
    for side in (-1, 1):
        joint = rng.integers(3, len(trunk) - 3)
        heading = np.arctan2(*(trunk[joint + 1] - trunk[joint])[::-1]) + side * rng.uniform(0.6, 1)
        paths.append(trunk[joint] + _jagged(rng, int(rng.integers(5, 8)), heading))
    every = _placed(np.concatenate(paths), rng)
    dark = np.zeros((SIDE, SIDE), np.float32)
    lit = dark.copy()
    for path in np.split(every, np.cumsum([len(path) for path in paths])[:-1]):
        widths = np.linspace(4.2 if len(path) == len(trunk) else 2.8, 1.5, len(path))
        dark = np.maximum(dark, _stroke(path, widths))
        lit = np.maximum(lit, _stroke(path + 1.2, widths))
    return _layers(view, (_flat(190), 0.35 * lit), (_flat(18), rng.uniform(0.85, 0.95) * dark))


DEFECTS: dict[str, Painter] = {
    "crack": _crack,
    "foreign": _foreign,
    "hole": _hole,
    "scratch": _scratch,
    "smear": _smear,
    "stain": _stain,
}
"""Each kind of defect and what paints it."""


class _Blob:
    """A round or ragged spot at a random place.

    Attributes
    ----------
    x, y : float32 [H, W]
        Offset from the centre; 1 is the radius.
    rho : float32 [H, W]
        0 at the centre, 1 on the outline.
    """

    def __init__(self, rng: np.random.Generator, radius: float, wobble: float) -> None:
        reach = _MARGIN + radius * (1 + 2 * wobble)
        centre_y, centre_x = rng.uniform(reach, SIDE - reach, 2)
        self._radius = radius
        self._waves = [
            (k, wobble / k**0.5 * rng.uniform(0.3, 1), rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5)
        ]
        self.y, self.x = (_Y - centre_y) / radius, (_X - centre_x) / radius
        self.rho = self._rho(self.y, self.x)

    def _rho(self, y: Floats, x: Floats) -> Floats:
        angle = np.arctan2(y, x)
        outline = 1 + sum(size * np.cos(k * angle + phase) for k, size, phase in self._waves)
        return _floats(np.hypot(y, x) / outline)

    def cover(self, scale: float = 1, shift: float = 0, soft: float = 1) -> Floats:
        """Return how much of each pixel it covers; `shift` and the edge, `soft`, in pixels."""
        by = shift / self._radius
        rho = self._rho(self.y - by, self.x - by) if shift else self.rho
        return _floats(np.clip((scale - rho) * self._radius / soft + 0.5, 0, 1))


def _layers(view: Floats, *layers: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Lay paints [H, W, 3] over a view, each by its cover [H, W], and return their joint cover."""
    seen = np.ones((SIDE, SIDE), np.float32)
    for paint, cover in layers:
        view = view + cover[:, :, None] * (paint - view)
        seen = seen * (1 - cover)
    return view, 1 - seen


def _flat(tone: float) -> Floats:
    return np.full((SIDE, SIDE, 3), tone, np.float32)


def _stroke(path: Line, widths: npt.NDArray[np.float64]) -> Floats:
    """Return how much of each pixel a line through points (x, y) covers; widths in pixels."""
    canvas = np.zeros((SIDE * _FINE, SIDE * _FINE), np.float32)
    points = np.round(path * _FINE).astype(int).tolist()
    for start, end, width in zip(points, points[1:], widths, strict=False):
        cv2.line(canvas, start, end, 1, max(1, round(width * _FINE)))
    return _floats(cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def _jagged(rng: np.random.Generator, steps: int, heading: float) -> Line:
    """Return the corners (x, y) of a line that keeps its heading on the whole."""
    turns = heading + rng.normal(0, 0.55, steps)
    moves = rng.uniform(5, 10, steps)[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)])


def _turned(path: Line, angle: float) -> Line:
    cos, sin = np.cos(angle), np.sin(angle)
    turned: Line = path @ np.asarray([(cos, sin), (-sin, cos)])
    return turned


def _placed(path: Line, rng: np.random.Generator, margin: float = _MARGIN) -> Line:
    """Move a line to a random place within the margins; one too long for them is shrunk."""
    path = path - path.min(axis=0)
    free = SIDE - 2 * margin
    path = path * min(1.0, free / float(path.max()))
    placed: Line = margin + path + rng.uniform(0, 1, 2) * (free - path.max(axis=0))
    return placed
