"""Several detectors as one: each member's maps in units of good images' own, then averaged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import tee

import cv2
import numpy as np

from ._stages import Stages
from .detector import Floats, Images, Prediction, Result, Spade, _sources, is_stream
from .errors import SpadeError
from .features import Backbone
from .images import Frame, OnError, decode_images
from .index import Index

VIEWS = ("flip", "scale")
"""What a member may see instead of the image: its mirror image, or more pixels of it."""
_FINER = 1.25


@dataclass(frozen=True)
class _Usual:
    """Mean and standard deviation of good images' leave-one-out maps and descriptor scores."""

    map_mean: float
    map_std: float
    score_mean: float
    score_std: float


class Ensemble:
    """Detectors with other networks, settings or views, averaged.

    Each member's map is standardised: the mean over the good images' leave-one-out maps is taken
    off, and the rest is divided by their standard deviation. So are the descriptors' scores.
    Their means over the members can be below 0.

    Parameters
    ----------
    members : sequence of Spade
        Maps are on the first one's grid; all should see the same part of an image.

    Attributes
    ----------
    index_ : Index
        The first member's, once fitted.
    stages : Stages
        Seconds spent by all members.
    """

    def __init__(self, members: Sequence[Spade]) -> None:
        if not members:
            raise SpadeError("an ensemble needs a member or more")
        self.members = tuple(members)
        self._usual: tuple[_Usual, ...] = ()
        self.stages = Stages()

    @classmethod
    def of(cls, networks: Sequence[Backbone], views: Sequence[str] = (), **settings: object
           ) -> Ensemble:
        """Return an ensemble of each network on the image itself and on each view of it.

        Parameters
        ----------
        networks : sequence of Backbone
        views : sequence of str, some of VIEWS
        **settings
            As `Spade` takes them.

        Raises
        ------
        SpadeError
            If a view is unknown.
        """
        for view in views:
            if view not in VIEWS:
                raise SpadeError(f"unknown view {view!r}: choose one of {', '.join(VIEWS)}")
        members = []
        for network in networks:
            plain = Spade(network, **settings)  # type: ignore[arg-type]
            members.append(plain)
            if "flip" in views:
                members.append(plain.with_options(mirror=True))
            if "scale" in views:
                crop = None if plain.crop is None else round(_FINER * plain.crop)
                members.append(plain.with_options(resize=round(_FINER * plain.resize), crop=crop))
        return cls(members)

    @property
    def network(self) -> Backbone:
        """The first member's network."""
        return self.members[0].network

    @property
    def index_(self) -> Index:
        """The first member's index."""
        return self.members[0].index_

    def fit(self, images: Images, *, on_error: OnError | None = None) -> Ensemble:
        """Index good images in each member, and score each image against the others.

        Raises
        ------
        SpadeError
            If an image cannot be used (without `on_error`), or fewer than two can, or the
            images are a stream, which can be gone through but once.
        """
        images = _again_and_again(images)
        found = []
        for number, member in enumerate(self.members):
            member.stages = self.stages
            member.fit(images, calibrate=False, on_error=_once(on_error, number))
            if len(member.index_) < 2:
                raise SpadeError("an ensemble needs two good images or more, to know what is usual")
            scores, means, squares = [], [], []
            for score, values in member.leave_one_out():
                scores.append(score)
                means.append(values.mean(dtype=np.float64))
                squares.append(np.square(values, dtype=np.float64).mean())
            mean = float(np.mean(means))
            std = float(np.sqrt(max(np.mean(squares) - mean**2, 0)))
            found.append(_Usual(mean, std or 1.0, float(np.mean(scores)),
                                float(np.std(scores)) or 1.0))
        self._usual = tuple(found)
        return self

    def query(
        self, images: Images, on_error: OnError | None = None
    ) -> Iterator[Result]:
        """Yield one Result an image: the first member's, with the members' map and score."""
        if not self._usual:
            raise SpadeError("this Ensemble is not fitted yet: call fit")
        places: deque[int] = deque()

        def decoded() -> Iterator[Frame]:
            for place, frame in decode_images(_sources(images, on_error), on_error):
                places.append(place)
                yield frame

        # In step with each other, so that few images wait for the last member.
        each = tee(decoded(), len(self.members))
        streams = [member.query(own) for member, own in zip(self.members, each, strict=True)]
        for results in zip(*streams, strict=True):
            yield replace(self._joined(results), position=places.popleft())

    def predict(self, images: Images) -> Prediction:
        """Return scores, each the map's largest value, and maps; see `Spade.predict`."""
        results = list(self.query(images))
        return Prediction(np.array([one.peak for one in results], np.float32),
                          [one.map for one in results])

    def _joined(self, results: Sequence[Result]) -> Result:
        first = results[0]
        height, width = first.input_map.shape
        joined: Floats = np.zeros((height, width), np.float32)
        score = 0.0
        for result, own in zip(results, self._usual, strict=True):
            values = cv2.resize(result.input_map, (width, height), interpolation=cv2.INTER_LINEAR)
            joined += np.float32(1 / own.map_std) * (values - np.float32(own.map_mean))
            score += (result.descriptor_score - own.score_mean) / own.score_std
        joined /= len(results)
        framing = self.index_.manifest.framing.framing()
        original = first.map.shape[0], first.map.shape[1]
        return replace(first, input_map=joined, map=framing.place(joined, original),
                       descriptor_score=score / len(results))


def _again_and_again(images: Images) -> Images:
    if is_stream(images):
        raise SpadeError("an ensemble goes through its images several times; pass a list")
    return images


def _once(on_error: OnError | None, number: int) -> OnError | None:
    """Return what reports an image for the first member alone: the others cannot use it either."""
    return on_error if number == 0 or on_error is None else lambda name, why: None
