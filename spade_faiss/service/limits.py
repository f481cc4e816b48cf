"""How much a client may ask for, how much may wait, and the answer when it is too much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral

from ..errors import SpadeError


@dataclass(frozen=True)
class Limits:
    """What one request may hold, and how many may wait.

    Attributes
    ----------
    bytes : int
        Of a request's body.
    images : int
        Of a request.
    pixels : int
        Of a request's images together; twice as many may be in work at a time.
    queue : int
        Images that were accepted and are not answered yet.
    batch : int
        Images that go through the network at once.
    wait : float
        Seconds that a first image waits for others to make up a batch: long enough for those of
        one request. Those that come while a batch is in work are the next one anyway.
    upload : float
        Seconds that a body may take to arrive.

    Raises
    ------
    SpadeError
        If a value is out of its range, or a request has more images than can wait.
    """

    bytes: int = 32 << 20
    images: int = 16
    pixels: int = 32_000_000
    queue: int = 64
    batch: int = 8
    wait: float = 0.001
    upload: float = 30.0

    def __post_init__(self) -> None:
        for name in ("bytes", "images", "pixels", "queue", "batch"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 1:
                raise SpadeError(f"the limit of {name}, {value}, must be a whole number, 1 or more")
        if not 0 <= self.wait <= 10:
            raise SpadeError("images can wait 0 to 10 seconds for others")
        if not 0 < self.upload < math.inf:
            raise SpadeError(f"upload = {self.upload} must be a finite time, more than 0 seconds")
        if self.queue < self.images:
            raise SpadeError(
                f"a queue of {self.queue} has no room for a request of {self.images} "
                "images: let the queue be longer or requests smaller"
            )


class Refusal(Exception):  # noqa: N818 - not an error of the service
    """A request that is not done: an HTTP status, and one line that says why."""

    def __init__(self, status: int, why: str, retry_after: int | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.headers = {} if retry_after is None else {"retry-after": str(retry_after)}


class Admission:
    """Counts the images and pixels in work, and refuses what would be too many.

    Only the event loop's thread may use it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.images = 0
        self.pixels = 0

    @contextmanager
    def enter(self, images: int, pixels: int = 0) -> Iterator[None]:
        """Count images as in work while a `with` block lasts.

        Raises
        ------
        Refusal
            With status 429, if there is no room for them.
        """
        if self.images + images > self._limits.queue:
            raise Refusal(
                429,
                f"the queue is full: {self.images} of {self._limits.queue} images "
                "are in work; try again",
                1,
            )
        if self.pixels + pixels > 2 * self._limits.pixels:
            raise Refusal(
                429, f"the queue is full: images of {self.pixels} pixels are in work; try again", 1
            )
        self.images += images
        self.pixels += pixels
        try:
            yield
        finally:
            self.images -= images
            self.pixels -= pixels
