"""What commands say of an index, of new images and of a change, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .._support.memory import human
from .._support.text import printable

if TYPE_CHECKING:
    from ..detector.estimate import Estimate
    from ..index import EnsembleManifest, Manifest
    from ..index.recall import Recall
    from ..index.scores import ByHand, Calibration, CalibrationSet
    from ..report import Row


def counted(n: int) -> str:
    """Return a number of images in words."""
    return f"{n} image" if n == 1 else f"{n} images"


# A new index -------------------------------------------------------------------------------


def built(index: Path, images: int, threshold: float | None, rate: float | None) -> str:
    """Return what `build` says: the threshold, and the rate of false alarms that it aims at."""
    from ..verdict.rates import percent

    if threshold is None or rate is None:
        return f"{index}: {counted(images)}, no threshold"
    return (
        f"{index}: {counted(images)}, threshold {threshold:.4g}, which aims at {percent(rate)} of "
        "false alarms"
    )


def expected(made: Estimate) -> str:
    """Return what `build` says before it starts: what it will make, and how long that takes."""
    text = (
        f"{counted(made.images)} of {made.width}x{made.height} make {_many(made.tiles)} tiles and "
        f"{_many(made.patches)} patches, {human(made.bytes)}"
    )
    return text if made.seconds is None else f"{text}; about {_duration(made.seconds)}"


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}s"
    return "a minute" if seconds >= 45 else f"{max(1, seconds):.0f} seconds"


# An index on disk --------------------------------------------------------------------------


def index_lines(manifest: Manifest) -> list[str]:
    """Return what `info` says of an index."""
    framing, roi = manifest.framing, manifest.framing.framing().roi
    size = sum(file.bytes for file in manifest.files)
    how = f"shorter side {framing.resize}, centre crop" if framing.crop else "whole frame"
    lines = [
        f"images      {len(manifest.images)}",
        f"backbone    {manifest.backbone.name} (weights {manifest.backbone.weights_sha256[:12]}…)",
        f"input       {framing.width} x {framing.height} pixels, {how}"
        + (", mirrored" if manifest.mirrored else ""),
        *([f"region      {roi.said}"] if roi else []),
        "levels      "
        + ", ".join(f"{v.height}x{v.width}x{v.channels}" for v in manifest.levels)
        + (" (the last is motion)" if manifest.motion else ""),
        f"size        {size / 2**20:.1f} MiB" + (f", {manifest.store}" if manifest.store else ""),
        f"patches     {_many(manifest.patches)}{_of_tiles(manifest)}",
        f"created     {manifest.created}",
        f"thresholds  {_thresholds(manifest.calibration)}",
    ]
    if tiles := framing.tiles:
        where = "any" if manifest.elsewhere else "their own"
        lines.insert(
            3,
            f"tiles       of {tiles.side} pixels, {manifest.layouts[0].parts} an image, compared "
            f"with those of {where} place",
        )
    lines += [*_score_of(manifest)]
    lines += [*_calibrated(manifest.calibration_set), *_by_hand(manifest.by_hand)]
    if manifest.gallery:
        lines.append(f"gallery     {manifest.gallery.describe()}")
    return lines


def ensemble_lines(ensemble: EnsembleManifest, members: Sequence[Manifest]) -> list[str]:
    """Return what `info` says of an ensemble: what members have in common, and then each."""
    own = ("backbone", "input", "tiles", "region", "levels", "size", "patches", "gallery")
    lines = [
        f"ensemble    of {len(members)} members, whose standardised maps are averaged",
        f"images      {len(members[0].images)}",
        f"created     {ensemble.created}",
        f"thresholds  {_thresholds(ensemble.calibration)}",
        *_score_of(members[0]),
        *_calibrated(ensemble.calibration_set),
        *_by_hand(ensemble.by_hand),
    ]
    for member, manifest in zip(ensemble.members, members, strict=True):
        lines.append(f"member      {member.folder}")
        lines += [f"  {line}" for line in index_lines(manifest) if line.startswith(own)]
    return lines


def _of_tiles(manifest: Manifest) -> str:
    """Return whose patches they are, of an index of tiles."""
    if not manifest.framing.tiles:
        return ""
    tiles = len(manifest.images) * manifest.layouts[0].parts
    return f": {_many(manifest.patches // tiles)} of each of {_many(tiles)} tiles"


def _many(count: int) -> str:
    return f"{count / 1e6:.1f} million" if count >= 1_000_000 else f"{count:,}"


def recall_lines(measured: Iterable[Recall]) -> list[str]:
    """Return what `info --recall` says of each level's gallery."""
    return [
        "recall      of stored patches, each searched for without its own image's:",
        *(
            f"  level {one.level}   recall@1 {one.recall_at_1:.3f}, mean ratio of distances "
            + ("unknown" if one.mean_distance_ratio is None else f"{one.mean_distance_ratio:.4f}")
            + f" ({one.queries} queries); {one.patches} patches, {one.bytes / 2**20:.1f} MiB"
            for one in measured
        ),
    ]


def _calibrated(held: CalibrationSet | None) -> list[str]:
    """Return what `info` says of thresholds that further images chose."""
    if held is None:
        return []
    return [
        f"calibrated  {held.created}, {counted(len(held.good.names))} and "
        f"{len(held.defects.names)} defects; thresholds now: {_each(held)} "
        f"({_aim(held.quantile)})"
    ]


def _by_hand(kept: Iterable[ByHand]) -> list[str]:
    """Return what `info` says of thresholds that were set by hand."""
    lines = []
    for one in kept:
        parts = [] if one.threshold is None else [f"threshold {one.threshold:.4g} instead"]
        parts += [] if one.review is None else [f"review from {one.review:.4g}"]
        tried = [
            f"{count.over} of {count.n} {what} over it"
            for count, what in ((one.good, "good images"), (one.defects, "defects"))
            if count
        ]
        lines.append(f"by hand     {one.created}, {one.score}: " + ", ".join(parts + tried))
    return lines


def _thresholds(made: Calibration | None) -> str:
    if made is None or made.pixel_threshold is None or made.descriptor_threshold is None:
        return "none"
    return f"{_each(made)} ({_aim(made.quantile)}; K = {made.k}, kappa = {made.kappa})" + (
        f" from {len(made.sample)} of the images" if made.sample else ""
    )


def _each(made: Calibration | CalibrationSet) -> str:
    """Return the threshold of each kind of score that there is one for."""
    from ..types import THRESHOLDS

    limits = {kind: getattr(made, name) for kind, name in THRESHOLDS.items()}
    return ", ".join(f"{kind} {limit:.4g}" for kind, limit in limits.items() if limit is not None)


def _score_of(manifest: Manifest) -> list[str]:
    """Return what `info` says of what images are judged by, if not by their maps' maxima alone."""
    lines = [f"judged by   {manifest.score}"] if manifest.score else []
    area = manifest.min_area
    return [*lines, f"least area  {area} pixels of an image"] if area else lines


def _aim(quantile: float) -> str:
    from ..verdict.rates import percent

    return f"aim: {percent(1 - quantile)} of false alarms"


# New images --------------------------------------------------------------------------------


def query_lines(rows: Sequence[Row], out: Path, review: float | None) -> list[str]:
    """Return what `query` says: a line for each image, and how many there are of each verdict.

    Of a video, there are lines of the worst frames alone.
    """
    from ..report import PassingFrame
    from ..verdict.judge import ERROR, NG, OK, REVIEW, VERDICTS

    count = {word: sum(row.verdict == word for row in rows) for word in VERDICTS}
    wide = 5 if review is None else 6
    lines = [
        verdict_line(row.verdict, row.score, row.path, wide)
        for row in rows
        if not isinstance(row, PassingFrame)
    ]
    to_review = "" if review is None else f", {count[REVIEW]} REVIEW"
    summary = f"{counted(len(rows))}: {count[NG]} NG{to_review}, {count[OK]} OK"
    if count[ERROR]:
        summary += f", {count[ERROR]} could not be used"
    return [*lines, f"{summary}; results in {out}"]


def verdict_line(verdict: str, score: float | None, path: str, wide: int = 6) -> str:
    """Return what is said of one image."""
    return f"{verdict:{wide}} {_score(score)}  {printable(path)}"


def counted_verdicts(count: Mapping[str, int], out: Path) -> str:
    """Return how many images there were of each verdict."""
    each = ", ".join(f"{many} {verdict or 'not judged'}" for verdict, many in count.items())
    return f"{counted(sum(count.values()))}{': ' if each else ''}{each}; results in {out}"


def _score(value: float | None) -> str:
    return f"{'' if value is None else f'{value:.4g}':>10}"
