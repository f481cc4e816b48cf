"""A query's report: the worst first, on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._support.text import printable
from ..detector import Detector
from ..detector.result import Result
from ..verdict import VERDICTS, Finding, percent, shown_map
from ..verdict.judge import ERROR
from .cards import MOST_CARDS, Card, Cards, card_of, room_for
from .charts import Timeline, histogram, timeline
from .closeups import Closeups, addresses
from .files import Row
from .folder import CLOSEUPS, ResultFolder
from .page import SCORE_TITLES, common_folder, within, write_page


class QueryReport:
    """Takes results as they come, and writes the page when all are there.

    Parameters
    ----------
    detector : Detector
    out : ResultFolder
        Where pictures wait, in a file without a name, and those at their own resolution lie.
    expected : int
        How many results there may be; pictures are made smaller where there are many.
    most : int
        Images that are shown, the worst.

    Attributes
    ----------
    cards : Cards
    closeups : Closeups
    """

    def __init__(
        self, detector: Detector, out: ResultFolder, expected: int, most: int = MOST_CARDS
    ) -> None:
        self.cards = Cards(out.path, most)
        self.closeups = Closeups(out)
        self._detector = detector
        self._room = room_for(max(1, min(expected, most)))
        self._timelines: list[tuple[str, Timeline]] = []
        self._good = common_folder(image.path for image in detector.index_.manifest.images)
        self._reasons: dict[str, str] = {}
        self._notes: list[str] = []

    def add(self, result: Result, finding: Finding, stem: Path) -> None:
        """Keep an image's card and pictures, unless enough are worse; from any thread.

        `stem` is what its files are called, without suffix.
        """
        self.cards.add(finding.score, lambda: self._card(result, finding, stem.as_posix()))

    def _card(self, result: Result, finding: Finding, stem: str) -> Card:
        # A smaller image is in the page as it is.
        large = max(result.image.shape[:2]) > self._room[0]
        limit = finding.pixel_threshold
        written = large and self.closeups.add(
            finding.score, stem, result.image, shown_map(result, limit), limit
        )
        closeup = stem if written else None
        return card_of(result, finding, self._detector.index_, self._room, self._short, closeup)

    def add_timeline(
        self,
        path: Path,
        seconds: Sequence[float],
        scores: Sequence[float],
        marks: Sequence[tuple[int, str]],
    ) -> None:
        """Keep a video's scores; `marks` are the places and names of the frames that are shown."""
        chart = timeline(seconds, scores, self._detector.image_threshold, marks)
        self._timelines.append((str(path), chart))

    def fail(self, name: str, why: str) -> None:
        """Keep why an image could not be used, or what else is wrong with a file."""
        self._reasons[name] = why

    def note(self, text: str) -> None:
        """Keep a line on what is odd and no error."""
        self._notes.append(text)

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """Write the page.

        Parameters
        ----------
        path : Path
        rows : sequence of Row
            All images and frames, those without a card, too.
        """
        folder = common_folder(row.path for row in rows)
        self.closeups.drop_below(self.cards.lowest)
        write_page(
            path,
            "query.html",
            facts=self._facts(),
            folder=printable(folder),
            cards=self._cards(folder),
            shown=len(self.cards),
            beside=CLOSEUPS if self.closeups.kept else "",
            notes=[printable(note) for note in (*self._detector.notes, *self._notes)],
            short=lambda name: printable(within(name, folder)),
            **self._judged(rows),
            **self._scored(rows),
            **self._unused(rows, folder),
            timelines=[
                (printable(within(name, folder)), chart, first)
                for name, chart, first in self._placed_timelines(rows)
            ],
        )

    def _judged(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return what images are judged by, and how many there are of each verdict."""
        detector = self._detector
        share = detector.quantile_
        return {
            "threshold": detector.image_threshold,
            "mapped": detector.pixel_threshold is not None,
            "review": detector.review,
            "by_hand": detector.by_hand,
            "aim": None if share is None or not self._good_scores()[0] else percent(1 - share),
            "counts": {word: sum(row.verdict == word for row in rows) for word in (*VERDICTS, "")},
            "total": len(rows),
        }

    def _scored(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the histogram of scores, and what the page needs to try other thresholds."""
        threshold, review = self._detector.image_threshold, self._detector.review
        good, good_are = self._good_scores()
        pairs = [(row.score, row.verdict) for row in rows if row.score is not None]
        scores = [score for score, _ in pairs]
        chart = histogram(scores, good, threshold, [verdict for _, verdict in pairs])
        return {
            "histogram": chart,
            "scored": len(scores),
            "good": len(good),
            "good_are": good_are,
            "known": {
                "threshold": threshold,
                "review": review,
                "scores": scores,
                "failed": len(rows) - len(scores),
                "low": chart.low,
                "high": chart.high,
            },
            "full": max([*scores, 1.25 * (threshold or 0), 1e-12]),
        }

    def _unused(self, rows: Sequence[Row], folder: str) -> dict[str, list[tuple[str, str]]]:
        """Return the names of what could not be used, and why; and what else is wrong."""
        failed = dict.fromkeys(row.path for row in rows if row.verdict == ERROR)
        warnings = [name for name in self._reasons if name not in failed]
        return {
            kind: [
                (printable(within(name, folder)), printable(self._reasons.get(name, "")))
                for name in names
            ]
            for kind, names in (("failed", failed), ("warnings", warnings))
        }

    def _placed_timelines(self, rows: Sequence[Row]) -> Iterator[tuple[str, Timeline, int]]:
        """Yield videos' names and charts, and the places of their first frames among the scores."""
        firsts: dict[str, int] = {}
        for at, row in enumerate(row for row in rows if row.score is not None):
            firsts.setdefault(row.path.rpartition("#")[0], at)
        for name, chart in self._timelines:
            yield name, chart, firsts.get(name, 0)

    def _good_scores(self) -> tuple[Sequence[float], str]:
        """Return the good images' scores, and what these images are."""
        score = self._detector.score
        found = self._detector.drawn_from(score)
        if found is None:
            return (), ""
        held = found is self._detector.calibration_set
        return found.scores(score), "set aside" if held else "leave-one-out"

    def _facts(self) -> dict[str, str]:
        detector, members = self._detector, self._detector.members
        region = detector.settings.region
        networks = dict.fromkeys(one.index_.manifest.backbone.name for one in members)
        facts = {
            "index": detector.folder,
            "good images": len(detector.index_),
            "of the folder": self._good,
            "backbone": ", ".join(networks),
            "members": len(members) if len(members) > 1 else "",
            "region": region.said if region else "",
            "K": detector.k,
            "κ": detector.kappa,
            "score": SCORE_TITLES[detector.score],
            "least area": f"{detector.min_area} pixels" if detector.min_area else "",
        }
        return {name: printable(str(value)) for name, value in facts.items() if value != ""}

    def _short(self, path: str) -> str:
        return printable(within(path, self._good))

    def _cards(self, folder: str) -> Iterator[Mapping[str, Any]]:
        kept = self.closeups.kept
        for card in self.cards.worst_first():
            stem = card["closeup"]
            yield {
                **card,
                "name": printable(within(card["name"], folder)),
                "closeup": addresses(stem) if stem in kept else None,
            }
