"""The loop of an evaluation: each category is scored, kept, and written beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..detector import Detector
from ..errors import SpadeError
from ..images import OnError, OnNote
from .loop import ScoringOptions, evaluate_split
from .notes import missing_notes
from .record import Messages, Record, key_of
from .report import write_report
from .results import results_of
from .splits import Split
from .store import ResultStore
from .sweep import Sweep
from .tables import write_results


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and how.

    Attributes
    ----------
    dataset : str
    splits : sequence of Split
        One for each category or scene.
    scoring : ScoringOptions
    sweep : Sweep
    config : mapping
        All options and versions that scores depend on; JSON values.
    notes : sequence of str
        What a reader of the results is to know of the data set.
    """

    dataset: str
    splits: Sequence[Split]
    scoring: ScoringOptions
    sweep: Sweep
    config: Mapping[str, Any]
    notes: Sequence[str]

    def results(self, finished: Mapping[str, Record]) -> dict[str, Any]:
        """Return what `results.json` holds of the categories that are finished."""
        scores = {name: record.scores for name, record in finished.items()}
        notes = [note for record in finished.values() for note in record.notes or ()]
        return results_of(
            self.dataset,
            self.config,
            {name: each[0] for name, each in scores.items()},
            self.sweep.table(self.scoring.points[0], scores),
            [*self.notes, *notes, *missing_notes(scores)],
        )


def run_evaluation(
    evaluation: Evaluation,
    detector: Detector,
    out: Path,
    *,
    report: bool,
    on_error: OnError,
    on_note: OnNote,
) -> dict[str, Any]:
    """Score each split, and leave the results of those that are finished in a folder.

    A split whose record serves is not done again (see `ResultStore.find`); what was reported of
    it is reported again. `spade_faiss.evaluation.evaluate_folder` explains the parameters.

    Returns
    -------
    dict
        What `results.json` holds.

    Raises
    ------
    SpadeError
        If nothing could be evaluated, or another process evaluates into the folder now.
    """
    for note in evaluation.notes:
        on_note(note)
    finished: dict[str, Record] = {}
    results: dict[str, Any] = {}
    with ResultStore(out) as store:
        for split in evaluation.splits:
            key = key_of(evaluation.config, split.files, split.labels)
            record, why = store.find(split.name, key, outputs=split.outputs, for_report=report)
            if why:
                on_note(f"{split.name} is evaluated anew: {why}")
            if record is not None:
                record.repeat(on_error, on_note)
            else:
                messages = Messages(on_error, on_note)
                try:
                    scores, data = evaluate_split(
                        detector, split, evaluation.scoring, out, messages.error, messages.note
                    )
                except SpadeError as error:
                    on_error(split.name, f"{error}; left out")
                    continue
                record = Record(key, messages.problems, messages.notes, scores, data)
                store.keep(split.name, record)
            finished[split.name] = record
            results = evaluation.results(finished)
            if not report:
                store.discard_report()
            write_results(out, results)
            if report:
                write_report(store, results)
    if not finished:
        raise SpadeError("nothing could be evaluated")
    return results
