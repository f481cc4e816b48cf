"""An ensemble's arithmetic: members' maps and scores in units of good images' own, averaged."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from ..images import Framing
from ..images.coverage import looked_at_on
from ..index.ensemble import Statistics
from ..index.manifest import Manifest
from ..index.scores import Calibration
from ..types import Doubles, Floats, Mask
from ..verdict.calibration import draw_thresholds, image_weights, named_scores
from ..verdict.notes import area_notes
from .leave_one_out import score_images
from .maps import clip, clipped_mean
from .pipeline import Batch, Pipeline
from .query import compare
from .result import Result


def learn_statistics(
    members: Sequence[Pipeline], *, calibrate: bool
) -> tuple[tuple[Statistics, ...], Calibration | None]:
    """Score good images against the others, by each member.

    Parameters
    ----------
    members : sequence of Pipeline
    calibrate : bool
        Whether to average the members' maps, for which all are kept in a temporary file, and so
        to find thresholds.

    Returns
    -------
    statistics : tuple of Statistics, one a member
    calibration : Calibration or None
        Of the averages, with power means.
    """
    first = members[0].index.manifest
    framings = [one.framing for one in members]
    n, size = len(first.images), framings[0].size
    area = members[0].settings.least_area
    statistics: list[Statistics] = []
    scores, powers = np.zeros((2, len(members), n))
    with _maps(len(members), n, size, wanted=calibrate) as maps:
        for number, member in enumerate(members):
            means: list[float] = []
            squares: list[float] = []
            for i, (score, values) in enumerate(score_images(member.by(min_area=None))):
                scores[number, i], powers[number, i] = score, _power(member, i, values)
                looked = member.framing.looked_at
                seen = values if looked is None else values[looked]
                means.append(float(seen.mean(dtype=np.float64)))
                squares.append(float(np.square(seen, dtype=np.float64).mean()))
                if maps is not None:
                    maps[number, i] = _resized(values, looked, size)
            statistics.append(_statistics(scores[number], float(np.mean(means)), squares))
        if maps is None:
            return tuple(statistics), None
        peaks = []
        same = [framings[0]] * len(members)
        for i, image in enumerate(first.images):
            original = image.height, image.width
            _, placed = average_maps(maps[:, i], statistics, same, original, area)
            peaks.append(float(placed.max()))
    by_kind = {
        "descriptor": average_scores(scores, statistics),
        "map": np.array(peaks),
        "mean": average_means(powers, statistics),
    }
    return tuple(statistics), _calibration(members[0], by_kind, statistics)


def _power(member: Pipeline, image: int, values: Floats) -> float:
    """Return the power mean of a member's map of a good image, which is whole."""
    area, record = member.settings.least_area, member.index.manifest.images[image]
    size = record.height, record.width
    placed = member.framing.place(values, size) if area else values
    return clipped_mean(member, values, placed, area)


@contextmanager
def _maps(
    members: int, images: int, size: tuple[int, int], *, wanted: bool
) -> Iterator[npt.NDArray[np.float32] | None]:
    """Give room on disk for all members' maps, if that is wanted."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryFile(prefix="spade-faiss-") as file:
        yield np.memmap(file, np.float32, shape=(members, images, *size))


def _statistics(scores: Doubles, mean: float, squares: Sequence[float]) -> Statistics:
    std = float(np.sqrt(max(float(np.mean(squares)) - mean**2, 0.0)))
    return Statistics(
        map_mean=mean,
        map_std=std or 1.0,
        score_mean=float(scores.mean()),
        score_std=float(scores.std()) or 1.0,
    )


def _calibration(
    first: Pipeline, scores: Mapping[str, Doubles], statistics: Sequence[Statistics]
) -> Calibration:
    settings = first.settings
    weights = image_weights(first.index.manifest)
    return Calibration(
        k=settings.k,
        kappa=settings.kappa,
        sigma=settings.sigma,
        **named_scores(scores),
        **draw_thresholds(scores, settings.quantile, weights, shifts_of(statistics)),
        min_area=settings.least_area,
    )


def shifts_of(statistics: Sequence[Statistics]) -> dict[str, float]:
    """Return what standardising took off the members' mean, by kind of score."""
    of_maps = float(np.mean([one.map_mean / one.map_std for one in statistics]))
    return {
        "descriptor": float(np.mean([one.score_mean / one.score_std for one in statistics])),
        "map": of_maps,
        "mean": of_maps,
    }


def average_results(
    results: Sequence[Result],
    statistics: Sequence[Statistics],
    manifests: Sequence[Manifest],
    min_area: int | None,
) -> Result:
    """Return the first member's result with the members' map and scores.

    Parameters
    ----------
    results : sequence of Result, one a member
        With maps that are whole: see `whole_maps` in `detector/query.py`.
    statistics : sequence of Statistics, one a member
    manifests : sequence of Manifest, one a member
    min_area : int or None
        Pixels that an area of the joined map must have to count.
    """
    first = results[0]
    original = first.map.shape[0], first.map.shape[1]
    on_input, placed = average_maps(
        [one.input_map for one in results],
        statistics,
        [one.framing.framing() for one in manifests],
        original,
        min_area,
    )
    scores = np.array([[one.descriptor_score] for one in results])
    powers = np.array([[one.mean_score] for one in results])
    return replace(
        first,
        input_map=on_input,
        map=placed,
        descriptor_score=float(average_scores(scores, statistics)[0]),
        mean_score=float(average_means(powers, statistics)[0]),
        notes=(*first.notes, *area_notes(manifests[0], original, min_area)),
        min_area=min_area,
    )


def average_maps(
    maps: Iterable[Floats],
    statistics: Sequence[Statistics],
    framings: Sequence[Framing],
    original: tuple[int, int],
    min_area: int | None = None,
) -> tuple[Floats, Floats]:
    """Return the mean of the members' maps, each standardised and brought to one size.

    Parameters
    ----------
    maps : iterable of float32 [h, w]
        On the members' inputs.
    statistics : sequence of Statistics, one a member
    framings : sequence of Framing, one a map
    original : (int, int)
        Height and width of the image.
    min_area : int, optional
        Pixels that an area must have to count; see `clip` in `detector/query.py`.

    Returns
    -------
    on_input, placed : float32 [h, w] and [H, W]
        On the first member's input, and on the image. What the region leaves out is 0, or less
        where all of the rest is.
    """
    first = framings[0]
    joined: Floats = np.zeros(first.size, np.float32)
    for values, own, framing in zip(maps, statistics, framings, strict=True):
        joined += np.float32(1 / own.map_std) * (
            _resized(values, framing.looked_at, first.size) - np.float32(own.map_mean)
        )
    joined /= len(statistics)
    placed = first.place(joined, original)
    if first.roi and first.looked_at is not None:
        for one, looked in ((joined, first.looked_at), (placed, looked_at_on(first, original))):
            one[~looked] = min(0.0, float(one[looked].max())) if looked.any() else 0
    if min_area:
        clip(min_area, joined, placed)
    return joined, placed


def average_scores(scores: Doubles, statistics: Sequence[Statistics]) -> Doubles:
    """Return the mean of the members' descriptor scores [m, n], each standardised, [n]."""
    return _averaged(scores, [(one.score_mean, one.score_std) for one in statistics])


def average_means(powers: Doubles, statistics: Sequence[Statistics]) -> Doubles:
    """Return the mean of the power means of the members' maps [m, n], standardised as these, [n].

    The joined map has values below 0, of which there is no power mean. This one is in its unit,
    and of a member alone it is the power mean of its map with what standardising takes off: the
    mean over good images' pixels.
    """
    return _averaged(powers, [(one.map_mean, one.map_std) for one in statistics])


def _averaged(scores: Doubles, good: Sequence[tuple[float, float]]) -> Doubles:
    """Return the mean of scores [m, n], less the first of each pair and over the second."""
    means, stds = np.array(good).T[:, :, None]
    joined: Doubles = ((scores - means) / stds).mean(0)
    return joined


def _resized(values: Floats, looked_at: Mask | None, size: tuple[int, int]) -> Floats:
    """Return a map [h, w] in another size, by what is looked at alone; 0 where nothing near is."""
    resized = _linear(values if looked_at is None else values * looked_at, size)
    if looked_at is not None and values.shape != size:
        weights = _linear(looked_at.astype(np.float32), size)
        np.divide(resized, weights, out=resized, where=weights > 0)
    return resized


def _linear(values: Floats, size: tuple[int, int]) -> Floats:
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def whole_maps(pipeline: Pipeline, batch: Batch) -> Iterator[Result]:
    """Yield one Result an image as an ensemble takes it: its power mean is clipped, its maps not.

    It is of the members' joined map that areas count.
    """
    area = pipeline.settings.least_area
    for one in compare(pipeline.by(min_area=None), batch):
        yield replace(one, mean_score=clipped_mean(pipeline, one.input_map, one.map, area))


def average_only(pipeline: Pipeline, batch: Batch) -> Iterator[Result]:
    """Yield of each image no more than an ensemble takes from a member that is not the first."""
    for one in whole_maps(pipeline, batch):
        none = one.image[:0]
        yield replace(
            one, image=none, input=none, map=one.map[:0], distances=(), matches=(), notes=()
        )
