"""From what a detector finds to what the service answers."""

from __future__ import annotations

from typing import Any, cast

from .._support.text import printable
from ..answers import (
    IndexAnswer,
    IndexMember,
    LevelShape,
    MatchedPatch,
    Outdated,
    PastResult,
    Picture,
    QueriedImage,
    Verdict,
    WrongRegion,
)
from ..detector import Detector
from ..detector.result import Result
from ..images.coverage import looked_at_on
from ..index import Manifest
from ..pictures.drawing import SHOWN_REGIONS
from ..report.closeups import bounded
from ..report.layers import paths_of
from ..types import Score
from ..verdict import Finding, Region, judge_result, shown_map
from . import pictures
from .live import Awaited, Served
from .past import Past
from .pictures import MapFormat


def image_answer(
    name: str,
    notes: list[str],
    detector: Detector,
    result: Result,
    maps: MapFormat | None,
    *,
    with_pictures: bool,
    full: bool,
) -> QueriedImage:
    """Return what is answered of one image.

    Parameters
    ----------
    name : str
        As the client called it.
    notes : list of str
        Of its file, a line each.
    detector : Detector
    result : Result
    maps : MapFormat or None
        How the map is to be sent, if it is.
    with_pictures : bool
    full : bool
        Whether the photo has the image's own resolution.
    """
    finding = judge_result(detector, result)
    shown = _shown(detector, result, finding, full=full) if with_pictures else {}
    return QueriedImage(
        id=None,
        name=name,
        width=result.map.shape[1],
        height=result.map.shape[0],
        score=finding.score,
        threshold=finding.threshold,
        review=finding.review,
        verdict=cast(Verdict, finding.verdict) or None,
        peak=result.peak,
        pixel_threshold=finding.pixel_threshold,
        descriptor_score=result.descriptor_score,
        mean_score=result.mean_score,
        regions=_regions(detector, result, finding, with_pictures=with_pictures),
        notes=[*notes, *result.notes],
        map=pictures.map_picture(result.map, maps) if maps else None,
        **{name: shown.get(name) for name in ("photo", "overlay", "heat", "outline", "unseen")},
    )


def _shown(detector: Detector, result: Result, finding: Finding, *, full: bool) -> dict[str, Any]:
    """Return what is answered for the eye: pictures of an image, and paths over it."""
    framing, limit = detector.index_.manifest.framing.framing(), finding.pixel_threshold
    looked_at = looked_at_on(framing, (result.map.shape[0], result.map.shape[1]))
    values = shown_map(result, limit)
    paths = paths_of(values, limit, looked_at)
    return {
        "photo": pictures.jpeg(bounded(result.image) if full else pictures.photo(result)),
        "overlay": pictures.jpeg(pictures.overlay(result, framing, limit)),
        "heat": pictures.heat(values, limit),
        "outline": paths["outline"],
        "unseen": paths["unseen"],
    }


def _regions(
    detector: Detector, result: Result, finding: Finding, *, with_pictures: bool
) -> list[WrongRegion]:
    """Return what is answered of an image's regions; the first have closer looks."""
    answers = []
    for number, region in enumerate(finding.regions):
        looks: tuple[Picture | None, Picture | None] = (None, None)
        if with_pictures and number < SHOWN_REGIONS:
            here, good = pictures.looks(result, detector.index_, region)
            looks = pictures.jpeg(here), pictures.jpeg(good)
        answers.append(_region(region, *looks))
    return answers


def _region(region: Region, here: Picture | None, good: Picture | None) -> WrongRegion:
    return WrongRegion(
        box=region.box,
        area=region.area,
        peak=region.peak,
        peak_at=region.peak_at,
        matches=[
            MatchedPatch(
                level=match.level,
                distance=match.distance,
                image=printable(match.image),
                box=match.box,
                query_box=match.query_box,
            )
            for match in region.matches
        ],
        here=here,
        good=good,
    )


def past_answer(past: Past) -> PastResult:
    """Return what is answered of a result that is kept."""
    names = PastResult.model_fields.keys() - {"verdict", "kept"}
    return PastResult(
        verdict=cast(Verdict, past.verdict) or None,
        kept=past.image is not None or past.good is not None,
        **{name: getattr(past, name) for name in names},
    )


def answering(served: Served, awaited: Awaited | None) -> dict[str, Any]:
    """Return the fields that say which index answers, and whether that is the newest."""
    manifest = served.detector.manifest
    outdated = awaited and Outdated(
        since=awaited.since, until=awaited.until, problem=awaited.problem
    )
    return {
        "generation": manifest.generation,
        "created": manifest.created,
        "manifest_sha256": served.manifest_sha256,
        "outdated": outdated,
    }


def index_answer(served: Served, awaited: Awaited | None) -> IndexAnswer:
    """Return what is answered of the index or ensemble in service."""
    detector, n = served.detector, len(served.detector.index_)
    calibration_set = detector.calibration_set
    members = [_member(one.index_.manifest) for one in detector.members]
    first = members[0].model_dump(exclude={"mirrored", "bytes"})
    return IndexAnswer(
        **first,
        **answering(served, awaited),
        images=n,
        calibrated=calibration_set.created if calibration_set else None,
        bytes=sum(member.bytes for member in members),
        k=min(detector.k, n),
        kappa=detector.kappa,
        quantile=detector.quantile_,
        score=cast(Score, detector.score),
        min_area=detector.min_area,
        threshold=detector.image_threshold,
        pixel_threshold=detector.pixel_threshold,
        by_hand=detector.by_hand,
        review=detector.review,
        notes=list(detector.notes),
        members=members,
    )


def _member(manifest: Manifest) -> IndexMember:
    roi, tiles = manifest.framing.framing().roi, manifest.framing.tiles
    return IndexMember(
        backbone=manifest.backbone.name,
        weights_sha256=manifest.backbone.weights_sha256,
        mirrored=manifest.mirrored,
        bytes=sum(file.bytes for file in manifest.files),
        input_width=manifest.framing.width,
        input_height=manifest.framing.height,
        cropped=manifest.framing.crop,
        tile=tiles.side if tiles else None,
        region=roi.share if roi else None,
        levels=[
            LevelShape(height=level.height, width=level.width, channels=level.channels)
            for level in manifest.levels
        ],
    )
