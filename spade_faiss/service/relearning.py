"""Gives the index in service another region."""

from __future__ import annotations

from functools import partial

from ..detector.fit import check_keeps_all, check_region
from ..errors import SpadeError
from ..images.roi import Roi
from .background import Background, Job
from .limits import Refusal
from .live import LiveIndex

_KIND = "region"


class Relearning:
    """Learns another region.

    Parameters
    ----------
    live : LiveIndex
    background : Background
        Where that is done.
    """

    def __init__(self, live: LiveIndex, background: Background) -> None:
        self._live = live
        self._background = background

    @property
    def job(self) -> Job:
        """What became of the last region that was asked for."""
        return self._background.job(_KIND)

    def check_editable(self) -> None:
        """Refuse if the index may not be changed, or cannot be.

        Raises
        ------
        Refusal
            403 or 409.
        """
        self._background.check_editable()
        try:
            for member in self._live.detector.members:
                check_keeps_all(member.index_)
        except SpadeError as error:
            raise Refusal(409, str(error)) from None

    def begin(self, roi: Roi | None) -> None:
        """Begin to learn a region; None is everything.

        Raises
        ------
        Refusal
            403 or 409 if the index cannot be changed now, 422 if the region does not suit it.
        """
        self.check_editable()
        try:
            for member in self._live.detector.members:
                check_region(member.index_, roi)
        except SpadeError as error:
            raise Refusal(422, str(error)) from None
        self._background.begin(_KIND, "learning", lambda: self._learn(roi))

    def _learn(self, roi: Roi | None) -> None:
        told = partial(self._background.tell, _KIND)
        self._background.opened(self._live.folder, told).look_at(roi)
        self._background.wait_until_served(_KIND)
