"""Adds images that somebody called good to the index in service: first tried, then in one step.

Beside the history's file lies, of each index, in `steps/<index>/`::

    next/                     the index with the images added, made to see what that changes
    before/<generation>/      the index as it was before the step that led to this generation

Both are index folders of their own; their files are second names of the same ones where they can
be. To add is to put `next` in the index's place, which is one atomic replace, and so is to step
back.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from ..detector import Detector, open_detector
from ..errors import SpadeError
from ..index import clone_index, manifest_path, put_in_place, read_manifest
from ..index.record import file_sha256
from .background import Background, Job
from .history import History
from .limits import Refusal
from .live import LiveIndex
from .past import Change, Past

logger = logging.getLogger("spade_faiss")

_KIND = "feedback"


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What the index becomes if the images of the queue are added.

    Attributes
    ----------
    generation : str
        Of the index as it would be; by this name it is asked for.
    instead_of : str
        The SHA-256 of the manifest's file of the index that it is made from.
    results : tuple of int
        The numbers of the results whose images are added.
    made : datetime
    images_before, images_after : int
    threshold_before, threshold_after : float or None
        As the service judges by.
    pixel_threshold_before, pixel_threshold_after : float or None
    passed : int or None
        Kept results of the index that were NG and that nobody called good, whose scores the new
        threshold would let pass; None where there is no threshold.
    notes : tuple of str
        What should be known before the images are added, a line each.
    """

    generation: str
    instead_of: str
    results: tuple[int, ...]
    made: datetime
    images_before: int
    images_after: int
    threshold_before: float | None
    threshold_after: float | None
    pixel_threshold_before: float | None
    pixel_threshold_after: float | None
    passed: int | None
    notes: tuple[str, ...]


class Feedback:
    """The images of an index that were called good, and what is done with them.

    Parameters
    ----------
    live : LiveIndex
    background : Background
        Where the index is changed.
    history : History or None
        Without one nothing is kept, and all is refused.
    name : str
        Of the index.
    """

    def __init__(
        self, live: LiveIndex, background: Background, history: History | None, name: str
    ) -> None:
        self._live = live
        self._background = background
        self._kept = history
        self._name = name
        self._preview: Preview | None = None
        if history is not None:
            self._steps = history.folder / "steps" / name
            shutil.rmtree(self._steps / "next", ignore_errors=True)
            self._forget_steps(but=live.detector.manifest.generation)

    @property
    def job(self) -> Job:
        """What became of the last step that was asked for."""
        return self._background.job(_KIND)

    def history(self) -> History:
        """Return the history.

        Raises
        ------
        Refusal
            409 if there is none.
        """
        if self._kept is None:
            raise Refusal(409, "this service keeps no results: start it with `history=DIR`")
        return self._kept

    def check(self) -> None:
        """Refuse if nothing can be added.

        Raises
        ------
        Refusal
            403 or 409.
        """
        self.history()
        self._background.check_editable()

    # The queue -------------------------------------------------------------------------------

    def queue(self) -> list[Past]:
        """Return the results whose images were called good and are not in the index."""
        manifest = self._live.detector.index_.manifest
        there = {Path(image.path).name for image in manifest.images}
        return [
            past
            for past in self.history().marked(self._name)
            if past.good is not None and Path(past.good).name not in there
        ]

    def mark(self, number: int, person: str, remark: str) -> Past:
        """Put a result's image in the queue, with who says that it was good.

        Raises
        ------
        Refusal
            409 if nothing is kept, its image is kept no more, or the same picture was called good
        before; 404 if there is no such result.
        """
        history = self.history()
        with _refused(404):
            past = history.get(self._name, number)
        with _refused(409):
            twin = history.twin(past)
            if twin is not None:
                raise SpadeError(
                    f"the same picture was called good already, as that of result {twin.id}"
                )
            return history.mark(self._name, number, person, remark)

    def unmark(self, number: int) -> Past:
        """Take an image off the queue.

        Raises
        ------
        Refusal
            409 if nothing is kept, or the image is in the index; 404 if there is no such result.
        """
        history = self.history()
        with _refused(404):
            past = history.get(self._name, number)
        if past.good is not None and all(one.id != number for one in self.queue()):
            raise Refusal(409, f"the image of result {number} is in the index already")
        with _refused(409):
            return history.unmark(self._name, number)

    # The steps -------------------------------------------------------------------------------

    def preview(self) -> Preview | None:
        """Return what adding would change, if that was found and both are still as they were."""
        made = self._preview
        if made is None or self._live.take()[0].manifest_sha256 != made.instead_of:
            return None
        same = made.results == tuple(past.id for past in self.queue())
        return made if same else None

    def step(self) -> Change | None:
        """Return the last adding, if one can step back from it."""
        history = self.history()
        generation = self._live.detector.manifest.generation
        if not self._before(generation).is_dir():
            return None
        for last in history.changes(self._name, 1):
            if last.generation_after == generation:
                return last
        # The process was killed between the step and its record, or that could not be kept.
        try:
            since = self._before(generation).stat().st_mtime
            before = open_detector(self._before(generation), calibrate=False)
        except (SpadeError, OSError):  # it is just being removed
            return None
        return Change(
            time=datetime.fromtimestamp(since, UTC),
            kind="added",
            person="",
            images=len(self._live.detector.index_) - len(before.index_),
            threshold_before=before.image_threshold,
            threshold_after=self._live.detector.image_threshold,
            generation_before=before.manifest.generation,
            generation_after=generation,
        )

    def begin_preview(self) -> None:
        """Begin to find what the index becomes if the images of the queue are added.

        Raises
        ------
        Refusal
            403 or 409 if nothing can be added now.
        """
        self.check()
        queue = self.queue()
        if not queue:
            raise Refusal(409, "the queue is empty: call the images of some results good first")
        self._background.begin(_KIND, "trying", lambda: self._try(queue))

    def begin_adding(self, generation: str, person: str) -> None:
        """Begin to put the index that was tried in service.

        Raises
        ------
        Refusal
            403 or 409 if that cannot be done now; 409 if it is not what was tried last, or the
            index or the queue changed since.
        """
        self.check()
        preview = self.preview()
        if preview is None or preview.generation != generation:
            raise Refusal(409, "the index or the queue changed meanwhile: try the images again")
        self._background.begin(_KIND, "adding", lambda: self._add(preview, person))

    def begin_return(self, person: str) -> None:
        """Begin to put the index as it was before the last adding in service.

        Raises
        ------
        Refusal
            403 or 409 if that cannot be done now; 409 if the index changed since.
        """
        self.check()
        step = self.step()
        if step is None:
            raise Refusal(409, "there is no step to go back: nothing was added last")
        self._background.begin(_KIND, "returning", lambda: self._return(step, person))

    def _before(self, generation: str) -> Path:
        return self._steps / "before" / generation

    def _try(self, queue: list[Past]) -> None:
        place, history = self._steps / "next", self.history()
        in_service, _ = self._live.take()
        served, instead_of = in_service.detector, clone_index(self._live.folder, place)
        if instead_of != in_service.manifest_sha256:
            raise SpadeError(
                f"{self._live.folder} was changed, and is not in service yet: try the images again"
            )
        problems: list[str] = []
        tell = partial(self._background.tell, _KIND)
        detector = self._background.opened(place, tell)
        count = detector.add(
            [(history.folder / "good" / past.good).absolute() for past in queue if past.good],
            lambda name, why: problems.append(f"{Path(name).name} is not added: {why}"),
        )
        if not count:
            raise SpadeError("; ".join(problems) or "none of the images can be added")
        tell("the thresholds are being compared")
        after = self._live.open_other(place)
        old, new = served.image_threshold, after.image_threshold
        generation = served.manifest.generation
        self._preview = Preview(
            generation=after.manifest.generation,
            instead_of=instead_of,
            results=tuple(past.id for past in queue),
            made=datetime.now(UTC),
            images_before=len(served.index_),
            images_after=len(after.index_),
            threshold_before=old,
            threshold_after=new,
            pixel_threshold_before=served.pixel_threshold,
            pixel_threshold_after=after.pixel_threshold,
            passed=None
            if old is None or new is None
            else history.passed(self._name, generation, old, new, str(served.score)),
            notes=(*problems, *_notes(served), *self._new_notes(served, after)),
        )

    def _new_notes(self, before: Detector, after: Detector) -> Iterator[str]:
        """Yield what is noted of the index only once images are added, these by their names."""
        folder = (self.history().folder / "good" / self._name).absolute()
        for note in after.notes:
            if note not in before.notes:
                yield note.replace(f"{folder}/", "")

    def _add(self, preview: Preview, person: str) -> None:
        folder = self._live.folder
        before = self._before(preview.generation)
        old = read_manifest(folder).generation
        if clone_index(folder, before) != preview.instead_of:
            shutil.rmtree(before, ignore_errors=True)
            raise SpadeError(f"{folder} was changed meanwhile: try the images again")
        self._replace(self._steps / "next", preview.instead_of, keep=preview.generation)
        self._note(
            "added",
            person,
            preview.images_after - preview.images_before,
            (preview.threshold_before, preview.threshold_after),
            (old, preview.generation),
        )
        self._background.wait_until_served(_KIND)

    def _return(self, step: Change, person: str) -> None:
        folder = self._live.folder
        before = self._before(step.generation_after)
        # What the folder holds is not in service yet where another program just changed it.
        now = file_sha256(manifest_path(folder))
        if read_manifest(folder).generation != step.generation_after:
            raise SpadeError(f"{folder} was changed meanwhile: there is no step to go back")
        self._replace(before, now, keep=None)
        self._note(
            "back",
            person,
            step.images,
            (step.threshold_after, step.threshold_before),
            (step.generation_after, step.generation_before),
        )
        self._background.wait_until_served(_KIND)

    def _replace(self, source: Path, instead_of: str, *, keep: str | None) -> None:
        """Put an index in the place of the one in service; of those before, keep one at most."""
        put_in_place(source, self._live.folder, instead_of)
        self._preview = None
        shutil.rmtree(self._steps / "next", ignore_errors=True)
        self._forget_steps(but=keep)

    def _forget_steps(self, *, but: str | None) -> None:
        """Remove what was before steps to generations but one."""
        for one in (self._steps / "before").glob("*"):
            if one.name != but:
                shutil.rmtree(one, ignore_errors=True)

    def _note(
        self,
        kind: str,
        person: str,
        images: int,
        thresholds: tuple[float | None, float | None],
        generations: tuple[str, str],
    ) -> None:
        change = Change(
            time=datetime.now(UTC),
            kind=kind,
            person=person,
            images=images,
            threshold_before=thresholds[0],
            threshold_after=thresholds[1],
            generation_before=generations[0],
            generation_after=generations[1],
        )
        try:
            self.history().note_change(self._name, change)
        except SpadeError as error:  # the index is changed all the same
            logger.warning("a step is not in the history: %s", error)


def _notes(served: Detector) -> Iterator[str]:
    """Yield what adding images does to thresholds that are not just drawn."""
    if served.by_hand:
        yield "the threshold was set by hand, and stays"
    elif served.calibration_set is not None:
        yield "its calibration goes: thresholds are drawn from the index's own images"


@contextmanager
def _refused(status: int) -> Iterator[None]:
    """Answer what cannot be done with a status."""
    try:
        yield
    except SpadeError as error:
        raise Refusal(status, str(error)) from None
