"""What a detector's scores are judged by: thresholds that were drawn, kept, or set by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..index import EnsembleManifest, Index, Manifest
from ..index.manifest import ByHand, HeldOut
from ..verdict.judge import REVIEW, check_limits, verdict

if TYPE_CHECKING:
    from ..images import OnError
    from .calibrate import Report
    from .spade import Images, Result


class Judging:
    """The part that `Spade` and `Ensemble` share: from a score to a verdict.

    A threshold is what was set on the object; else what is kept in its index (`keep_threshold`);
    else what was drawn, from the index's own images or by `calibrate`. So is the mark of review,
    but none is drawn. Both belong to one kind of score, and setting one sets it for that which is
    used now.
    """

    if TYPE_CHECKING:

        @property
        def score(self) -> str:
            """What an image's score is, "map" or "descriptor"."""

        @property
        def index_(self) -> Index:
            """The index, or the first member's, once fitted."""

        @property
        def held_out(self) -> HeldOut | None:
            """What `calibrate` found."""

        def query(self, images: Images, on_error: OnError | None = None) -> Iterator[Result]:
            """Yield one Result an image."""

    _least = 0.0
    """No score is below it."""
    _own: Mapping[tuple[str, str], float | None] = MappingProxyType({})
    """What was set here, by kind of score and name; a threshold of None is the drawn one."""

    def _drawn_threshold(self, score: str) -> float | None:
        raise NotImplementedError

    def _manifest(self) -> Manifest | EnsembleManifest:
        raise NotImplementedError

    def _settings_of_scores(self) -> tuple[int, int, float, str | None]:
        """Return `k`, `kappa`, `sigma` and how galleries are searched."""
        raise NotImplementedError

    def _store(self, **changes: object) -> None:
        """Change what the manifest says."""
        raise NotImplementedError

    # What counts ---------------------------------------------------------------------------

    @property
    def image_threshold(self) -> float | None:
        """The score above which an image is called wrong; None where it is unknown.

        It may be set; None returns to the one that was drawn.
        """
        return self._threshold(self.score)

    @image_threshold.setter
    def image_threshold(self, value: float | None) -> None:
        check_limits(value, None, least=self._least)
        self._set("threshold", value)

    @property
    def pixel_threshold(self) -> float | None:
        """The map's value above which a pixel is called wrong; None where it is unknown."""
        return self._threshold("map")

    @property
    def review(self) -> float | None:
        """The score from which on an image is called REVIEW, up to the threshold; or None.

        It may be set; it must be below the threshold.
        """
        return self._hand("review", self.score)

    @review.setter
    def review(self, value: float | None) -> None:
        threshold = (
            self.image_threshold if hasattr(self, "index_") else self._hand("threshold", self.score)
        )
        check_limits(threshold, value, least=self._least)
        self._set("review", value)

    @property
    def by_hand(self) -> bool:
        """Whether a person set the image threshold, on this object or in the index."""
        return self._hand("threshold", self.score) is not None

    def verdict_of(self, score: float) -> str:
        """Return "NG", "REVIEW" or "OK" for an image's score; "" where no threshold is known."""
        return verdict(score, self.image_threshold, self.review)

    def places_from(self, score: float) -> float | None:
        """Return the map's value over which places are shown of an image of this score.

        It is the pixel threshold; of an image that its map makes REVIEW, just below the mark of
        review, for a person to see what is meant.
        """
        mark = self.review
        if self.score == "map" and mark is not None and self.verdict_of(score) == REVIEW:
            return math.nextafter(mark, -math.inf)
        return self.pixel_threshold

    def _threshold(self, score: str, kept_alone: bool = False) -> float | None:
        value = self._hand("threshold", score, kept_alone)
        return self._drawn_threshold(score) if value is None else value

    def _hand(self, name: str, score: str, kept_alone: bool = False) -> float | None:
        """Return a threshold or mark that a person set, or but one that is kept in the index."""
        if (score, name) in self._own and not kept_alone:
            return self._own[score, name]
        kept = self._kept(score)
        value: float | None = getattr(kept, name) if kept else None
        return value

    def _set(self, name: str, value: float | None) -> None:
        self._own = {**self._own, (self.score, name): value}  # copies share the old one

    def _kept(self, score: str) -> ByHand | None:
        if not hasattr(self, "index_"):
            return None
        return next((one for one in self._manifest().by_hand if one.score == score), None)

    def _use_drawn(self) -> None:
        """Judge by drawn thresholds, whatever is kept in the index."""
        self._own = {**self._own, ("map", "threshold"): None, ("descriptor", "threshold"): None}

    def _use_kept(self, *scores: str) -> None:
        """Forget the thresholds and marks that were set here for kinds of score."""
        self._own = {key: value for key, value in self._own.items() if key[0] not in scores}

    # Keeping -------------------------------------------------------------------------------

    def keep_threshold(
        self,
        images: Images | None = None,
        defects: Images | None = None,
        on_error: OnError | None = None,
    ) -> Report:
        """Keep in the index the threshold and the mark of review that count here now.

        They hold for every query of the index by this kind of score, until others are kept or
        `calibrate` chooses anew. After `image_threshold = None`, the drawn one counts again.

        Parameters
        ----------
        images, defects : folder, paths, or RGB uint8 arrays [H, W, 3], optional
            Good ones and defects that are not in the index. What the threshold says of them is
            reported and kept.
        on_error : callable, optional
            Called with (name, why) for an image that is left out.

        Raises
        ------
        SpadeError
            If an image is to be left out (without `on_error`), or the index was changed
            meanwhile.
        """
        from .calibrate import keep_threshold

        return keep_threshold(self, images, defects, on_error=on_error)

    def _notes_by_hand(self) -> Iterable[str]:
        """Yield what should be known of thresholds that were set by hand."""
        manifest = self._manifest()
        now, n = self._settings_of_scores(), len(self.index_)
        for kept in manifest.by_hand:
            if kept.score not in ("map", self.score):
                continue
            if (kept.score, "threshold") in self._own:
                if kept.threshold is not None and self._own[kept.score, "threshold"] is None:
                    yield f"the {said_of(kept)} that was set by hand is not used here"
                continue
            yield from kept_notes([kept], manifest.generation)
            made = min(kept.k, n), kept.kappa, kept.sigma, kept.search
            if made != (min(now[0], n), *now[1:]):
                yield (
                    f"the {said_of(kept)} was set by hand for scores by other settings "
                    f"(K = {kept.k}, kappa = {kept.kappa})"
                )
        threshold, mark = self.image_threshold, self.review
        if mark is not None and (threshold is None or mark >= threshold):
            why = (
                "there is no threshold"
                if threshold is None
                else (f"it is not below the threshold, {threshold:.4g}")
            )
            yield f"the mark of review, {mark:.4g}, does nothing: {why}"


def kept_notes(kept: Iterable[ByHand], generation: str) -> list[str]:
    """Return a line for each threshold that was set by hand before an index changed.

    Parameters
    ----------
    kept : iterable of ByHand
    generation : str
        The state that the index is in now.
    """
    return [
        f"the {said_of(one)} was set by hand before images were added or removed, and stays: see "
        "that it still fits (calibrate --threshold VALUE IMAGE…), or return to the drawn one "
        "(calibrate --threshold auto)"
        for one in kept
        if one.generation != generation
    ]


def said_of(kept: ByHand) -> str:
    """Return what was set by hand, in words."""
    what = "mark of review" if kept.threshold is None else "threshold"
    value = kept.review if kept.threshold is None else kept.threshold
    return f"{what} {value:.4g}"
