"""Score one category or scene: fit on good images, query the others, compare with the truth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .._support.stages import Stages
from ..datasets.problems import Problems
from ..detector import Detector, Result
from ..images import OnError, OnNote
from .confusion import ConfusionCounter
from .localisation import PRO_LIMIT, Localisation, localisation_of
from .misses import WorstMisses
from .notes import mask_notes
from .points import Point, results_at
from .report_data import report_data
from .scorer import Scorer
from .scores import Scores
from .splits import Split
from .store import INDEX
from .truth import GroundTruth


@dataclass(frozen=True)
class ScoringOptions:
    """How results are scored.

    Attributes
    ----------
    points : sequence of Point
        The settings to score at; first the detector's own. An ensemble has its own alone.
    original_size : bool
        Whether maps are scored on the images' own grids.
    max_fpr : float in (0, 1]
        The false-positive rate up to which PRO and sPRO are integrated.
    """

    points: Sequence[Point]
    _: KW_ONLY
    original_size: bool = False
    max_fpr: float = PRO_LIMIT


def evaluate_split(
    detector: Detector,
    split: Split,
    scoring: ScoringOptions,
    scratch: Path | None,
    on_error: OnError | None,
    on_note: OnNote,
) -> tuple[list[Scores], dict[str, Any]]:
    """Fit a detector on a split's good images, and score its test images at each point.

    Parameters
    ----------
    detector : Detector
    split : Split
    scoring : ScoringOptions
    scratch : path or None
        A folder for the index and for the pixels of all maps. None for the system's temporary
        folder, and for pixels in memory.
    on_error : callable or None
        Called with (name, why) for an image that is left out, and for a mask that cannot be
        used: its image counts for image metrics alone. With None the first raises SpadeError.
    on_note : callable
        Called with a line on what is odd about the index, or about the masks.

    Returns
    -------
    scores : list of Scores, one for each point
    report_data : dict, JSON values
        What a report shows besides the scores of the first point.

    Raises
    ------
    SpadeError
        If no metric is defined on what is left.
    """
    start = time.perf_counter()
    stages = detector.stages
    stages.seconds.clear()
    with _fitted(detector, split, scratch, on_error):
        for note in detector.notes:
            on_note(f"{split.title}: {note}")
        scorers = [_scorer(scoring, scratch) for _ in scoring.points]
        threshold = detector.image_threshold if split.judged else None
        counter = ConfusionCounter(threshold, detector.score)
        misses = WorstMisses(original_size=scoring.original_size)
        for results, truth in results_with_truth(detector, split, scoring.points, on_error):
            with stages("metrics"):
                for scorer, result in zip(scorers, results, strict=True):
                    scorer.add(result, truth)
                counter.add(results[0], truth)
                misses.add(results[0], truth)
    for note in mask_notes(scorers[0]):
        on_note(f"{split.title}: {note}")
    with stages("metrics"):
        located = [localisation_of(scorer) for scorer in scorers]
        data = report_data(scorers[0], located[0], counter, misses, scoring.max_fpr)
        scores = _scores(split, len(detector.index_), scorers, located)
        scores[0] = replace(scores[0], confusion=counter.compute())
        split.save(scorers[0])
    return _timed(scores, stages, time.perf_counter() - start), data


def results_with_truth(
    detector: Detector, split: Split, points: Sequence[Point], on_error: OnError | None
) -> Iterator[tuple[Sequence[Result], GroundTruth]]:
    """Yield each test image's results, one for each point, and its ground truth.

    The detector is fitted on the split. What cannot be used is reported, as `evaluate_split` says.
    """
    problems = Problems(on_error)
    truth = split.truth(detector.index_.manifest.framing.framing())
    for results in results_at(
        detector, split.queries(problems.left_out), points, problems.left_out
    ):
        first = results[0]
        with detector.stages("metrics"):
            known = truth.of(first.position, (first.map.shape[0], first.map.shape[1]))
        if known.problem:
            problems(first.name, known.problem, "it counts for image metrics alone")
        yield results, known


@contextmanager
def _fitted(
    detector: Detector, split: Split, scratch: Path | None, on_error: OnError | None
) -> Iterator[None]:
    """Index a split's good images in a folder that goes at the end of the `with` block.

    A threshold is drawn if it is to be judged, and none was set by hand.
    """
    with TemporaryDirectory(
        prefix=INDEX,
        dir=scratch,
        ignore_cleanup_errors=True,  # NFS keeps files that are open
    ) as index:
        detector.fit(
            split.train(on_error),
            index,
            calibrate=split.judged and not detector.by_hand,
            on_error=Problems(on_error).left_out,
        )
        yield


def _scorer(scoring: ScoringOptions, scratch: Path | None) -> Scorer:
    return Scorer(original_size=scoring.original_size, max_fpr=scoring.max_fpr, spill=scratch)


def _scores(
    split: Split, n_train: int, scorers: Sequence[Scorer], located: Sequence[Localisation]
) -> list[Scores]:
    """Return the scores at each point."""
    return [
        scorer.scores(n_train, extra=own.metrics | split.extra_metrics(scorer))
        for scorer, own in zip(scorers, located, strict=True)
    ]


def _timed(scores: Sequence[Scores], stages: Stages, seconds: float) -> list[Scores]:
    """Return scores with how long they took."""
    spent = {name: round(value, 3) for name, value in stages.seconds.items()}
    return [replace(one, seconds=round(seconds, 3), stages=spent) for one in scores]
