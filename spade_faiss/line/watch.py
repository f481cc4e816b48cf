"""Watch a folder into which a camera writes, and judge each image once."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event

import numpy as np
import numpy.typing as npt

from .._support.text import printable
from ..errors import SpadeError
from ..images import Frame, decode_image, passed_over
from ..report.files import Row
from .arrivals import Arrivals
from .current import CurrentIndex
from .ledger import Judged, Ledger
from .record import Arrived, Recorder
from .scan import State, look

_AT_ONCE = 64
"""Images to read before the folder is looked at again."""
_READERS = 2
_SHARE = 4
"""Times as long as a look took, at least, the next one waits."""
_UNREADABLE = hashlib.sha256(b"cannot be read").digest()
_NONE = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Pace:
    """When a folder is looked at, and when a file in it counts as complete.

    Attributes
    ----------
    every : float
        Seconds from one look to the next.
    settle : float
        Seconds that a file's size and time stay as they are before it is read.
    patience : float
        Seconds that a file which cannot be decoded stays as it is before it is given up.

    Raises
    ------
    SpadeError
        If one is no such time.
    """

    every: float = 0.5
    settle: float = 1.0
    patience: float = 30.0

    def __post_init__(self) -> None:
        for name in ("every", "settle", "patience"):
            value = getattr(self, name)
            least = 0.01 if name == "every" else 0.0
            if not (math.isfinite(value) and value >= least):
                raise SpadeError(f"{name} = {value:g} must be {least:g} seconds or more")


@dataclass(frozen=True)
class _Read:
    """What reading a file gave: bytes that are whole, as far as can be told, or why not.

    There is no digest if the file changed meanwhile.
    """

    path: str
    state: State
    digest: bytes
    image: npt.NDArray[np.uint8] | None
    why: str | None
    notes: Sequence[str]


class Watch:
    """Looks at a folder, and has each image that is complete judged, in the order of writing.

    Parameters
    ----------
    folder : Path
    index : CurrentIndex
    ledger : Ledger
    recorder : Recorder
    pace : Pace
    say : callable
        Is given a line on what is odd.
    """

    def __init__(
        self,
        folder: Path,
        index: CurrentIndex,
        ledger: Ledger,
        recorder: Recorder,
        pace: Pace,
        say: Callable[[str], object],
    ) -> None:
        self._folder, self._index, self._ledger = folder, index, ledger
        self._recorder, self._pace, self._say = recorder, pace, say
        self._arrivals = Arrivals(pace.settle, pace.patience, self._is_judged)
        self._lost: dict[str, str] = {}
        self._longest = ledger.folder.longest_name

    def run(self, stop: Event) -> None:
        """Watch until an event is set; what was begun by then is done.

        Raises
        ------
        OSError
            If the disk that results go to is full, say.
        """
        self._recorder.go_on()
        with ThreadPoolExecutor(_READERS) as pool:
            while not stop.is_set():
                start = time.monotonic()
                found = look(self._folder)
                took = time.monotonic() - start
                self._tell_lost(dict(found.lost))
                self._tell_passed(found.passed)
                ready = self._arrivals.see(found, time.monotonic())
                if restless := self._arrivals.restless(time.monotonic()):
                    self._recorder.say_once(
                        "restless",
                        f"note: {self._folder / restless} keeps changing; it is read once it has "
                        f"stayed the same for {self._pace.settle:g} s",
                    )
                if ready:
                    self._work(ready[:_AT_ONCE], pool, stop)
                if len(ready) <= _AT_ONCE:
                    stop.wait(max(self._pace.every, _SHARE * took))

    def _work(self, ready: Sequence[str], pool: ThreadPoolExecutor, stop: Event) -> None:
        """Read files and judge what is new and complete."""
        detector = self._index.take()
        images = self._complete(ready, pool, stop)
        for one, _ in self._recorder.judge(detector, images):
            self._arrivals.judged(one.path)

    def _complete(
        self, ready: Sequence[str], pool: ThreadPoolExecutor, stop: Event
    ) -> Iterator[Arrived]:
        """Yield the images that are to be judged; take note of the others."""
        stems: set[Path] = set()
        waiting = iter(ready)
        reading: deque[Future[_Read | None]] = deque()
        paths: deque[str] = deque()
        while True:
            for path in islice(waiting, _READERS + 1 - len(reading)):
                reading.append(pool.submit(_read, self._folder, path, self._arrivals.state(path)))
                paths.append(path)
            if not reading or stop.is_set():
                return
            path, read = paths.popleft(), reading.popleft().result()
            if read is None:
                self._arrivals.gone(path)
            elif arrived := self._arrived(read, stems):
                yield arrived

    def _arrived(self, read: _Read, stems: set[Path]) -> Arrived | None:
        """Return the image of a file that was read, if it is new and complete."""
        path, now = read.path, time.monotonic()
        if not read.digest:
            self._arrivals.changed(path, read.state, now)
            return None
        known = self._ledger.known(path)
        if known and known.digest in (None, read.digest):
            self._ledger.touched(path, read.state, read.digest)
            self._done(path, read.digest)
            return None
        name = str(self._folder / path)
        if not known and (before := self._name_before(read)):
            stem = self._ledger.stem(Path(before), self._longest, set())
            row = Row(name, None, None, "")
            self._ledger.renamed(Judged(path, row, stem, read.state, read.digest))
            self._arrivals.judged(path)
            self._say(f"{name} is {before}, which was judged, under another name")
            return None
        locked = read.digest == _UNREADABLE
        if read.why is not None and not self._arrivals.cannot_be_read(path, now, soon=locked):
            return None
        one = Arrived(
            path,
            Frame(name, _NONE if read.image is None else read.image),
            self._ledger.stem(Path(path), self._longest, stems),
            read.state,
            read.digest,
        )
        if read.why is not None:
            self._recorder.fail(self._index.detector, one, read.why)
            self._done(path, read.digest)
            return None
        for note in read.notes:
            self._recorder.say_once(note, f"note: {name}: {note}")
        return one

    def _done(self, path: str, digest: bytes) -> None:
        """Take note that a file has its row; one that could not be read may have another yet."""
        if digest == _UNREADABLE:
            self._arrivals.later(path, time.monotonic())
        else:
            self._arrivals.judged(path)

    def _name_before(self, read: _Read) -> str | None:
        """Return the name under which a file was judged, if it has that no more.

        Bytes alone do not tell: pictures of a camera that is dark are all the same.
        """
        for path in self._ledger.same_file(read.state, read.digest):
            if not os.path.lexists(self._folder / path):
                return path
        return None

    def _is_judged(self, path: str, state: State) -> bool:
        known = self._ledger.known(path)
        return known is not None and known.state == state and known.digest != _UNREADABLE

    def _tell_lost(self, lost: dict[str, str]) -> None:
        for at, why in lost.items():
            if at not in self._lost:
                self._say(f"{self._folder / at} cannot be looked at: {why}; it is tried again")
        for at in self._lost:
            if at not in lost:
                self._say(f"{self._folder / at} can be looked at again")
        self._lost = lost

    def _tell_passed(self, passed: Sequence[str]) -> None:
        for path in passed:
            suffix = Path(path).suffix.lower()
            self._recorder.say_once(
                f"passed over {suffix}", f"note: {passed_over([self._folder / path])}"
            )


def _read(folder: Path, path: str, expected: State) -> _Read | None:
    """Read a file; None if it is gone."""
    place = folder / path
    try:
        with place.open("rb") as file:
            data = file.read()
        status = place.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        return _Read(path, expected, _UNREADABLE, None, why, ())
    state = State(status.st_size, status.st_mtime_ns)
    if state != expected or len(data) != state.size:
        return _Read(path, state, b"", None, None, ())
    notes: list[str] = []
    digest = hashlib.sha256(data).digest()
    try:
        return _Read(path, state, digest, decode_image(data, notes.append), None, notes)
    except SpadeError as error:
        return _Read(path, state, digest, None, str(error), notes)


def source_of(folder: Path) -> str:
    """Return what a folder is known by in a ledger, however it is called."""
    return printable(str(folder.resolve()))
