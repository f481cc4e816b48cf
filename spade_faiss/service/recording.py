"""Keeps in the history what was answered."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .._support.text import valid
from ..answers import QueriedImage
from ..detector.result import Result
from ..errors import SpadeError
from . import pictures
from .history import History
from .live import Served
from .past import Outcome
from .uploads import Upload

logger = logging.getLogger("spade_faiss")

_LONGEST = 500
"""Characters of a client's name of an image that are kept."""


def record(
    history: History,
    name: str,
    served: Served,
    uploads: Sequence[Upload],
    results: Sequence[Result],
    answers: Sequence[QueriedImage],
) -> None:
    """Keep the images of a request and what is answered of them; answers then have numbers.

    What cannot be kept is answered all the same, with a note.

    Parameters
    ----------
    history : History
    name : str
        Of the index.
    served : Served
    uploads : sequence of Upload
        Their data goes.
    results : sequence of Result
    answers : sequence of QueriedImage
    """
    framing = served.detector.index_.manifest.framing.framing()
    outcomes: list[Outcome] = []
    for upload, result, answer in zip(uploads, results, answers, strict=True):
        image = None
        try:
            image = history.images.keep(upload.data)
        except SpadeError as error:
            _warn([answer], f"the image is not kept: {error}")
        upload.data = bytearray()
        outcomes.append(
            Outcome(
                name=answer.name[:_LONGEST],
                score=answer.score,
                threshold=answer.threshold,
                review=answer.review,
                verdict=answer.verdict or "",
                kind=served.detector.score,
                places=len(answer.regions),
                generation=served.detector.manifest.generation,
                picture=pictures.small(result, framing, answer.pixel_threshold),
                image=image,
            )
        )
    try:
        for answer, number in zip(answers, history.record(name, outcomes), strict=True):
            answer.id = number
    except SpadeError as error:
        for one in outcomes:
            if one.image:
                history.images.forget(one.image)
        _warn(answers, f"the result is not kept: {error}")


def _warn(answers: Sequence[QueriedImage], line: str) -> None:
    logger.warning("%s", line)
    for answer in answers:
        answer.notes.append(valid(line))
