"""A query's report: the worst first, on one page."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from .._support.text import printable
from ..detector import Detector
from ..detector.result import Result
from ..verdict.judge import ERROR, VERDICTS
from ..verdict.rates import percent
from ..verdict.regions import Region
from .charts import Timeline, histogram, timeline
from .colours import Picture
from .files import Row
from .layers import encoded, layers_of
from .page import common_folder, within, write_page
from .pictures import SHOWN_REGIONS, closer_looks

MOST_CARDS = 2000
"""Images that a report shows, the worst; more would be no use to a person, nor to a browser."""
_BUDGET = 48 << 20
_LEAST, _MOST = 12 << 10, 192 << 10
_FEW = 200
_SIDE, _SIDE_OF_FEW = 320, 512


class QueryReport:
    """Takes results as they come, and writes the page when all are there.

    Pictures wait in a file without a name, so that memory does not grow with their number (but
    for a row an image). They are made smaller where there are many: an image's take 12 to
    192 KiB, and all together 48 MiB where each can be had in that, which base64 makes 64 MiB.

    Parameters
    ----------
    spade : Spade or Ensemble
    folder : Path
        Where the file without a name is made.
    expected : int
        How many results there may be.
    """

    def __init__(self, spade: Detector, folder: Path, expected: int) -> None:
        cards = max(1, min(expected, MOST_CARDS))
        self._spade = spade
        self._bytes = min(max(_BUDGET // cards, _LEAST), _MOST)
        self._side = _SIDE_OF_FEW if cards <= _FEW else _SIDE
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._lock = Lock()
        self._numbers = count()
        # Of equal scores the later image, whose number is less, goes first.
        self._kept: list[tuple[float, int, int, int]] = []
        self._timelines: list[tuple[str, Timeline]] = []
        self._good = common_folder(image.path for image in spade.index_.manifest.images)
        self._reasons: dict[str, str] = {}
        self._notes: list[str] = []

    def add(self, result: Result, score: float, regions: Sequence[Region]) -> None:
        """Keep an image's card, unless enough are worse; from any thread."""
        with self._lock:
            number = -next(self._numbers)
            if len(self._kept) == MOST_CARDS and self._kept[0] >= (score, number):
                return
        data = json.dumps(self._card(result, score, regions)).encode()
        with self._lock:
            self._file.seek(0, 2)
            entry = (score, number, self._file.tell(), len(data))
            self._file.write(data)
            if len(self._kept) < MOST_CARDS:
                heapq.heappush(self._kept, entry)
            else:
                heapq.heappushpop(self._kept, entry)

    def add_timeline(
        self,
        path: Path,
        seconds: Sequence[float],
        scores: Sequence[float],
        marks: Sequence[tuple[int, str]],
    ) -> None:
        """Keep a video's scores; `marks` are the places and names of the frames that are shown."""
        chart = timeline(seconds, scores, self._spade.image_threshold, marks)
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
        spade = self._spade
        threshold, review = spade.image_threshold, spade.review
        good, good_are = self._good_scores()
        scored = [row for row in rows if row.score is not None]
        scores = [row.score for row in scored if row.score is not None]
        firsts: dict[str, int] = {}  # places of videos' first frames
        for at, row in enumerate(scored):
            firsts.setdefault(row.path.rpartition("#")[0], at)
        chart = histogram(scores, good, threshold, [row.verdict for row in scored])
        failed = list(dict.fromkeys(row.path for row in rows if row.verdict == ERROR))
        others = [name for name in self._reasons if name not in set(failed)]
        folder = common_folder(row.path for row in rows)

        def said(names: Sequence[str]) -> list[tuple[str, str]]:
            return [
                (printable(within(name, folder)), printable(self._reasons.get(name, "")))
                for name in names
            ]

        write_page(
            path,
            "query.html",
            facts=self._facts(),
            folder=printable(folder),
            threshold=threshold,
            mapped=spade.pixel_threshold is not None,
            review=review,
            by_hand=spade.by_hand,
            aim=_aim(spade) if good else None,
            good_are=good_are,
            counts={word: sum(row.verdict == word for row in rows) for word in (*VERDICTS, "")},
            total=len(rows),
            cards=self._cards(folder),
            shown=len(self._kept),
            notes=[printable(note) for note in (*spade.notes, *self._notes)],
            failed=said(failed),
            warnings=said(others),
            histogram=chart,
            scored=len(scores),
            good=len(good),
            known={
                "threshold": threshold,
                "review": review,
                "scores": scores,
                "failed": len(rows) - len(scores),
                "low": chart.low,
                "high": chart.high,
            },
            timelines=[
                (printable(within(name, folder)), line, firsts.get(name, 0))
                for name, line in self._timelines
            ],
            short=lambda name: printable(within(name, folder)),
            full=max([*scores, 1.25 * (threshold or 0), 1e-12]),
        )

    def _good_scores(self) -> tuple[Sequence[float], str]:
        """Return the good images' scores, and what these images are."""
        made, held = self._spade.calibration, self._spade.held_out
        if held:
            return held.good.scores(self._spade.score), "set aside"
        if made is None:
            return (), ""
        by_map = self._spade.score == "map"
        return made.peaks if by_map else made.descriptor_scores, "leave-one-out"

    def _facts(self) -> dict[str, str]:
        spade, members = self._spade, self._spade.members
        networks = dict.fromkeys(one.index_.manifest.backbone.name for one in members)
        facts = {
            "index": spade.folder,
            "good images": len(spade.index_),
            "of the folder": self._good,
            "backbone": ", ".join(networks),
            "members": len(members) if len(members) > 1 else "",
            "K": spade.k,
            "κ": spade.kappa,
            "score": "map maximum" if spade.score == "map" else "descriptor distance",
        }
        return {name: printable(str(value)) for name, value in facts.items() if value != ""}

    def _short(self, path: str) -> str:
        return printable(within(path, self._good))

    def _cards(self, folder: str) -> Iterator[Mapping[str, Any]]:
        for _, _, start, length in sorted(self._kept, key=lambda one: (-one[0], -one[1])):
            self._file.seek(start)
            card = json.loads(self._file.read(length))
            card["name"] = printable(within(card["name"], folder))
            yield card

    def _card(self, result: Result, score: float, regions: Sequence[Region]) -> dict[str, Any]:
        limit = self._spade.pixel_threshold
        index = self._spade.index_
        size = result.map.shape[0], result.map.shape[1]
        layers = layers_of(
            result.image,
            result.map,
            self._side,
            limit,
            seen=index.manifest.framing.framing().seen(*size),
        )
        pictures: dict[str, Picture] = dict(layers.pictures)
        shown = []
        for i, region in enumerate(regions[:SHOWN_REGIONS]):
            here, good = closer_looks(result, index, region)
            side = here.picture.shape[0]
            pictures |= {f"here{i}": here.picture, f"good{i}": good.picture}
            shown.append(
                {
                    "box": _percent(region.box, (size[1], size[0])),
                    "peak": region.peak,
                    "area": region.area,
                    "image": self._short(region.matches[0].image),
                    "here": _percent(here.box, (side, side)),
                    "good": _percent(good.box, (side, side)),
                    "matches": [
                        {
                            "level": match.level,
                            "distance": match.distance,
                            "image": self._short(match.image),
                        }
                        for match in region.matches
                    ],
                }
            )
        return {
            "name": result.name,
            "score": score,
            "peak": result.peak,
            "verdict": self._spade.verdict_of(score),
            "size": layers.size,
            "pixels": [size[1], size[0]],
            "regions": shown,
            "more": len(regions) - len(shown),
            "paths": layers.paths,
            "pictures": encoded(pictures, self._bytes),
        }


def _aim(spade: Detector) -> str | None:
    share = spade.quantile_
    return None if share is None else percent(1 - share)


def _percent(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Return a box (left, top, right, bottom) as left, top, width and height in percent."""
    left, top, right, bottom = (100 * side / size[i % 2] for i, side in enumerate(box))
    return [round(value, 2) for value in (left, top, right - left, bottom - top)]
