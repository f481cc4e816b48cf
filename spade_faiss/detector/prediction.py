"""What a detector says of some images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from ..errors import SpadeError
from ..pictures.notebook import lines_as_html, table_as_html
from ..types import Floats, Ids, Mask
from ..verdict import VERDICTS
from ..verdict.notes import BatchNotes
from .result import Result

if TYPE_CHECKING:
    import pandas

_SHOWN = 20
"""Images that a notebook lists."""
_NAMED = 5
"""Images that a summary names."""


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Sequence[Result]):
    """What is said of some images, in their order: a sequence of `Result`.

    Attributes
    ----------
    results : tuple of Result
    detector_notes : tuple of str
        What should be known before any of the verdicts is relied on.

    Examples
    --------
    >>> from spade_faiss import Spade
    >>> from spade_faiss.datasets.demo import render
    >>> good = [render(0, "brick", "train", i).image for i in range(5)]
    >>> spade = Spade("efficientnet_lite0").fit(good)
    >>> prediction = spade.predict([render(0, "brick", "hole", i).image for i in range(2)])
    >>> len(prediction), prediction.verdicts, prediction[1].name
    (2, ['NG', 'NG'], 'image 1')
    >>> wrong = prediction[prediction.scores > spade.image_threshold]
    >>> [result.name for result in wrong]
    ['image 0', 'image 1']
    """

    results: tuple[Result, ...]
    detector_notes: tuple[str, ...] = ()

    @cached_property
    def scores(self) -> Floats:
        """How anomalous each image is, float32 [n]."""
        return np.array([one.score() for one in self.results], np.float32)

    @property
    def maps(self) -> list[Floats]:
        """How anomalous each pixel is, float32 [H, W] on each image's own grid."""
        return [one.map for one in self.results]

    @property
    def names(self) -> list[str]:
        """The images' paths, or "image N"."""
        return [one.name for one in self.results]

    @property
    def verdicts(self) -> list[str]:
        """What each score says: "NG", "REVIEW" or "OK"; "" where no threshold was known."""
        return [one.verdict for one in self.results]

    @property
    def notes(self) -> list[tuple[str, ...]]:
        """What should be known of each image; see `Result`."""
        return [one.notes for one in self.results]

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, key: int) -> Result: ...
    @overload
    def __getitem__(self, key: slice | list[int] | Ids | Mask) -> Prediction: ...
    def __getitem__(self, key: int | slice | list[int] | Ids | Mask) -> Result | Prediction:
        """Return one result, or a prediction of some: by a slice, places, or one bool each."""
        places: npt.NDArray[np.intp] | np.intp = np.arange(len(self))[key]
        if isinstance(places, np.integer):
            return self.results[places]
        return Prediction(tuple(self.results[i] for i in places), self.detector_notes)

    def to_dataframe(self) -> pandas.DataFrame:
        """Return a table of pandas: name, score, threshold, verdict, regions (how many), notes.

        Raises
        ------
        SpadeError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise SpadeError(
                "a data frame needs pandas, which is not installed: install it, or take the names, "
                "scores and verdicts"
            ) from None
        rows = [
            {
                "name": one.name,
                "score": one.score(),
                "threshold": one.limits.threshold,
                "verdict": one.verdict,
                "regions": len(one.regions),
                "notes": "; ".join(one.notes),
            }
            for one in self.results
        ]
        columns = ["name", "score", "threshold", "verdict", "regions", "notes"]
        return pandas.DataFrame(rows, columns=columns)

    def summary(self) -> str:
        """Return a few lines: how many of each verdict, the highest scores, and all notes."""
        worst = np.argsort(-self.scores, kind="stable")[:_NAMED]
        highest = [
            f"  {one.score():.4g} {one.verdict} {one.name}"
            for one in (self.results[i] for i in worst)
        ]
        title = ["the highest:"] if len(self) > _NAMED else []
        return "\n".join([self._said(), *title, *highest, *self._all_notes()])

    def __repr__(self) -> str:
        return f"<Prediction of {self._said()}>"

    def _repr_html_(self) -> str:
        rows = [
            (number, one.name, f"{one.score():.4g}", one.verdict)
            for number, one in enumerate(self.results[:_SHOWN])
        ]
        table = table_as_html(("", "image", "score", "verdict"), rows)
        more = [f"and {len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        lines = lines_as_html([*more, *self._all_notes()])
        return f"<div><p>{self._said()}</p>{table}{lines}</div>"

    def _all_notes(self) -> list[str]:
        notes = BatchNotes()
        for one in self.results:
            notes.add(one.name, one.notes)
        return [*self.detector_notes, *notes.lines()]

    def _said(self) -> str:
        """Say how many images there are, how many of each verdict, and what their scores are."""
        images = "1 image" if len(self) == 1 else f"{len(self)} images"
        if not self.results:
            return images
        counts = Counter(self.verdicts)
        words = ", ".join(f"{counts[word]} {word}" for word in VERDICTS if counts[word])
        limits = {one.limits.threshold for one in self.results}
        limit = limits.pop() if len(limits) == 1 else None
        against = (
            "several thresholds"
            if limits
            else "no threshold"
            if limit is None
            else f"threshold {limit:.4g}"
        )
        scores = f"scores {self.scores.min():.4g} to {self.scores.max():.4g}, {against}"
        return f"{images}: {words}; {scores}" if words else f"{images}: {scores}"
