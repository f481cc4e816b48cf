"""What the service answers, as its OpenAPI description has it and its client reads it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ._support.text import valid
from .types import Score

Text = Annotated[str, AfterValidator(valid)]
"""Text that may name files, which JSON takes whatever bytes these names hold."""
Box = tuple[float, float, float, float]
Verdict = Literal["OK", "REVIEW", "NG"]


class Problem(BaseModel):
    """Why a request was not done."""

    detail: str


class Picture(BaseModel):
    """A picture's file."""

    media_type: str
    width: int
    height: int
    scale: float | None = Field(
        description="Of a map as PNG (16-bit grey): a sample times this is the map's value; one "
        "below 0, which only an ensemble's map has, is sent as 0."
    )
    data: str = Field(description="The file in base64.")


class MatchedPatch(BaseModel):
    """The good patch that one pyramid level found nearest to a region's peak."""

    level: int = Field(description="1 is the finest.")
    distance: float = Field(description="Euclidean, between the features.")
    image: Text = Field(description="Path of the training image.")
    box: Box = Field(description="Left, top, right, bottom in pixels of the training image.")
    query_box: Box = Field(description="The patch it was matched with, in the query's pixels.")


class WrongRegion(BaseModel):
    """A connected region over the pixel threshold, in the image's own pixels.

    Of an image whose map makes it REVIEW: from the mark of review on.
    """

    box: tuple[int, int, int, int] = Field(
        description="Left, top, right, bottom, the last two exclusive."
    )
    area: int = Field(description="Pixels.")
    peak: float = Field(description="The map's largest value within.")
    peak_at: tuple[int, int] = Field(description="x, y.")
    matches: list[MatchedPatch] = Field(
        description="One a level, the one that contributes most to the peak first."
    )
    here: Picture | None = Field(
        description="With `pictures`, of the first six regions: a closer look at the peak."
    )
    good: Picture | None = Field(description="The same of the good patch matched with it.")


class QueriedImage(BaseModel):
    """What is known of one image."""

    id: int | None = Field(
        description="The number of this result in the history; null if it is not kept."
    )
    name: Text
    width: int
    height: int
    score: float
    threshold: float | None = Field(
        description="The score above which an image is called wrong; null if the index has none."
    )
    review: float | None = Field(
        description="From this score to the threshold an image is to be reviewed; null if unset."
    )
    verdict: Verdict | None = Field(
        description="NG: not good; REVIEW: for a person to look at; null without a threshold."
    )
    peak: float = Field(description="The anomaly map's largest value.")
    pixel_threshold: float | None = Field(
        description="The map's value above which a place is a wrong region; null if the index "
        "has none, and then there are no `regions`."
    )
    descriptor_score: float = Field(
        description="Mean squared distance to the K nearest descriptors."
    )
    mean_score: float = Field(
        description="The anomaly map's power mean, of order 8: between its mean and `peak`."
    )
    regions: list[WrongRegion] = Field(description="The highest peak first.")
    notes: list[Text] = Field(
        description="What should be known before the verdict is relied on, a "
        "line each: how little of the image was seen, say."
    )
    map: Picture | None = Field(description="With `maps`: the anomaly map, on the image's grid.")
    photo: Picture | None = Field(
        description="With `pictures`: the image, small; with `full`, too, at its own resolution."
    )
    overlay: Picture | None = Field(description="With `pictures`: the map over the image, small.")
    heat: Picture | None = Field(
        description="With `pictures`: the map's colours, to be stretched over the image; clear "
        "where the map is low."
    )
    outline: str | None = Field(
        description="With `pictures`: the line around what is over `pixel_threshold`, as an SVG "
        "path in pixels of the image."
    )
    unseen: str | None = Field(
        description="With `pictures`: what was not looked at, as an SVG path in pixels of the "
        "image, by the even-odd rule."
    )


class Outdated(BaseModel):
    """Since when and until when the index in service is not the one that its folder holds."""

    since: datetime = Field(description="When the folder was first seen to hold another index.")
    until: datetime = Field(
        description="When that one should answer, if it takes as long to open as the last one "
        "did. If it could not be opened: when it is tried again."
    )
    problem: Text | None = Field(description="Why it could not be opened, if so.")


class Answering(BaseModel):
    """Which index answers."""

    generation: str = Field(
        description="Which state of the good images: the folder within the "
        "index that holds their features."
    )
    created: str = Field(description="When these were written.")
    manifest_sha256: str = Field(
        description="Which state of the index, thresholds and all: the SHA-256 of its "
        "`manifest.json`, or of an ensemble's `ensemble.json`."
    )
    outdated: Outdated | None = Field(
        description="Null: the index's folder held no other when it was asked, after the request "
        "had arrived."
    )


_SCORE = (
    "What `score` and `threshold` of images are of. map: the anomaly map's largest value; "
    "descriptor: `descriptor_score`; mean: `mean_score`."
)
_REGION = "The share of an image that is in the region; null if all of it is looked at."


class QueryAnswer(Answering):
    """The images of a request, in its order, all compared with the same index."""

    request_id: str = Field(
        description="As `X-Request-ID` has it, of the request if it brought one, and the access "
        "log."
    )
    seconds: float = Field(
        description="From the request's first line until this was made; `Server-Timing` has it of "
        "every answer."
    )

    score: Score = Field(description=_SCORE)
    images: list[QueriedImage]


class LevelShape(BaseModel):
    """One pyramid level: patches down and across, and channels of each."""

    height: int
    width: int
    channels: int


_TILE = (
    "Side in pixels of the overlapping squares that the network sees; null if it sees all at once."
)


class IndexMember(BaseModel):
    """One network's view of the good images."""

    backbone: str
    weights_sha256: str
    mirrored: bool = Field(description="Whether the network sees mirror images.")
    bytes: int
    input_width: int
    input_height: int
    cropped: bool = Field(description="Whether the network sees a centre crop.")
    tile: int | None = Field(description=_TILE)
    region: float | None = Field(description=_REGION)
    levels: list[LevelShape]


class IndexAnswer(Answering):
    """The index or ensemble in service; of an ensemble, what matches are of: its first member."""

    backbone: str
    weights_sha256: str
    images: int = Field(description="Good images.")
    bytes: int = Field(description="Of all members.")
    input_width: int
    input_height: int
    cropped: bool = Field(description="Whether the network sees a centre crop.")
    tile: int | None = Field(description=_TILE)
    region: float | None = Field(description=_REGION)
    levels: list[LevelShape]
    members: list[IndexMember] = Field(
        description="Those whose standardised maps are averaged; an index is its only one."
    )
    k: int
    kappa: int
    quantile: float | None = Field(
        description="The share of good images that the drawn thresholds are to let pass."
    )
    score: Score = Field(description=_SCORE)
    min_area: int | None = Field(
        description="Pixels of an image that an area must have to count; null if each counts."
    )
    threshold: float | None = Field(
        description="The score above which an image is called wrong; null if the index has none."
    )
    pixel_threshold: float | None = Field(
        description="The map's value above which a place is wrong; null if the index has none."
    )
    calibrated: str | None = Field(
        description="When the thresholds were drawn from further good images; null: they "
        "are drawn from the index's own."
    )
    by_hand: bool = Field(description="Whether a person set the threshold instead.")
    review: float | None = Field(description="From this score on an image is to be reviewed.")
    notes: list[Text] = Field(
        description="What should be known before the verdicts are relied on, a line each."
    )


class IndexState(BaseModel):
    """One of several indices; what is known of those that are open only is else null."""

    name: Text
    state: Literal["open", "opening", "closed", "failed"] = Field(
        description="closed: it is opened when it is asked for. failed: it could not be opened, "
        "and is tried again after half a minute, or when its folder has changed."
    )
    problem: Text | None = Field(
        description="Why it could not be opened, or what has taken the place of an open one could "
        "not."
    )
    last_used: datetime | None = Field(description="When a request was last for it.")
    images: int | None = Field(description="Good images.")
    threshold: float | None = Field(description="The score above which an image is wrong.")
    created: str | None = Field(description="When its features were written.")
    manifest_sha256: str | None = Field(description="Which state of the index, thresholds and all.")


class IndicesAnswer(BaseModel):
    """The indices that the service's folder holds."""

    indices: list[IndexState] = Field(description="By name.")


class Polygon(BaseModel):
    """A part of a picture that is looked at, or left out."""

    corners: list[tuple[int, int]] = Field(description="x, y, between pixels.")
    looked_at: bool


class RegionShape(BaseModel):
    """Which part of a picture is looked at."""

    width: int = Field(description="Of the picture, in pixels.")
    height: int
    polygons: list[Polygon] = Field(
        description="Each is painted over those before it, on a picture that is looked at nowhere."
    )


class RegionAnswer(RegionShape):
    """Which part of pictures the index looks at, and what becomes of another that was asked for."""

    images: int = Field(description="Good images, which `/v1/region/picture` shows.")
    everything: bool = Field(description="Whether the index has no region: all is looked at.")
    state: Literal["idle", "learning", "failed"] = Field(
        description="learning: another region is being learnt, and the index before answers. "
        "failed: so it goes on doing, as that could not be. idle: the last one that was asked for "
        "counts."
    )
    since: datetime | None = Field(description="When the last one was asked for.")
    progress: Text | None = Field(description="What is being learnt from right now.")
    problem: Text | None = Field(description="Why the last one could not be.")
    refused: Text | None = Field(
        description="Why no other region can be asked for; null if one can be."
    )


class PastResult(BaseModel):
    """A result that is kept."""

    id: int
    time: datetime
    index: str
    name: Text = Field(description="As the client called the image.")
    score: float
    threshold: float | None
    review: float | None
    verdict: Verdict | None = Field(description="Null: there was no threshold.")
    kind: Score = Field(description="What the score is of.")
    places: int = Field(description="Regions that were wrong.")
    generation: str = Field(description="Of the index: which state of the good images.")
    kept: bool = Field(description="Whether the image is still there, as it was sent.")
    marked_at: datetime | None = Field(description="When the image was called good; null: never.")
    marked_by: str | None = Field(description="Who called it good.")
    remark: str | None = Field(description="What they said of it.")


class HistoryAnswer(BaseModel):
    """Results that are kept, the newest first."""

    refused: Text | None = Field(description="Why no results are kept; null if they are.")
    index: str = Field(description="The name of the index.")
    counts: dict[str, int] = Field(
        description="Results in the time that was asked for, by verdict; `none` is of those "
        "without one."
    )
    results: list[PastResult]
    more: bool = Field(description="Whether there are older ones.")


_NAME = Field(min_length=1, max_length=100, pattern=r"\S", description="The person's name.")


class Mark(BaseModel):
    """Says that the image of a result was good."""

    model_config = ConfigDict(extra="forbid")

    id: int = Field(ge=1, lt=1 << 63, description="The result's.")
    by: str = _NAME
    remark: str = Field(default="", max_length=500, description="Why it was called wrong, say.")


class Adding(BaseModel):
    """Asks for what was tried to be made."""

    model_config = ConfigDict(extra="forbid")

    generation: str = Field(max_length=100, description="The preview's.")
    by: str = _NAME


class SteppingBack(BaseModel):
    """Asks for the last adding to be taken back."""

    model_config = ConfigDict(extra="forbid")

    by: str = _NAME


class AddingPreview(BaseModel):
    """What the index becomes if the images of the queue are added."""

    generation: str = Field(description="By which it is asked for.")
    made: datetime
    results: list[int] = Field(description="The numbers of the results.")
    images_before: int
    images_after: int
    threshold_before: float | None
    threshold_after: float | None
    pixel_threshold_before: float | None
    pixel_threshold_after: float | None
    passed: int | None = Field(
        description="Kept results of this generation that were NG, and that nobody called good, "
        "whose scores the new threshold would let pass; null without a threshold."
    )
    notes: list[Text] = Field(description="What should be known before, a line each.")


class IndexChange(BaseModel):
    """A change that somebody made."""

    time: datetime
    kind: Literal["added", "back"]
    by: str = Field(description="Empty if it could not be kept.")
    images: int = Field(description="That were added, or taken back.")
    threshold_before: float | None
    threshold_after: float | None
    generation_before: str
    generation_after: str


class FeedbackAnswer(BaseModel):
    """The images that were called good and are not in the index, and what is done with them."""

    refused: Text | None = Field(
        description="Why none can be added; null if they can be. Images can be called good all "
        "the same, if results are kept."
    )
    state: Literal["idle", "trying", "adding", "returning", "failed"] = Field(
        description="trying: it is found what adding them changes. adding, returning: a step is "
        "made; the index before answers. failed: the last of these could not be done, and the "
        "index is as it was."
    )
    since: datetime | None = Field(description="When that was asked for.")
    progress: Text | None
    problem: Text | None = Field(description="Why it could not be done.")
    queue: list[PastResult] = Field(description="The first that was called good first.")
    preview: AddingPreview | None = Field(
        description="Null: not made yet, or the index or the queue changed since."
    )
    step: IndexChange | None = Field(description="The adding that can be taken back.")
    changes: list[IndexChange] = Field(description="The newest first, 20 at most.")


class Health(BaseModel):
    """Whether the service is there."""

    status: str
