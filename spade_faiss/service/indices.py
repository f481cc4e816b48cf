"""Several indices in service: opened when they are asked for, and dropped to make room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from .._support.memory import anonymous, give_back, human
from ..answers import IndexState
from ..detector import Detector
from ..detector.pipeline import record_of
from ..errors import SpadeError
from ..features import Backbone
from ..index.folders import Stamp, indices_in, stamp_of
from ..index.manifest import BackboneRecord
from .context import Context, Resources
from .limits import Refusal
from .live import LiveIndex
from .parameters import nearest, quoted

logger = logging.getLogger("spade_faiss")

_PATIENCE = 2.0
"""Seconds that are waited for those who still use an index that is dropped."""
_LOOKS, _LOOK = 3, 0.1
"""How often, and every how many seconds, memory is looked at until it is given back."""
_NOTHING: Stamp = (None, None)


@dataclass(frozen=True)
class IndexFolder:
    """A folder of indices to be served.

    Attributes
    ----------
    folder : Path
        Each folder in it that holds an index or an ensemble is served by its name, but hidden
        ones, and those whose names cannot be printed.
    opener : callable
        Opens an index in a folder, given the networks that are loaded already.
    max_memory : int, optional
        Bytes of anonymous memory of this process, which does not count what is mapped from files.
        While it takes more, the indices that were used least recently are dropped.
    every : float
        Seconds between looks at the folder, and at each index that is open.
    """

    folder: Path
    opener: Callable[[Path, Sequence[Backbone]], Detector]
    max_memory: int | None = None
    every: float = 1.0

    def names(self) -> list[str]:
        """Return the names of the indices that the folder holds now, in order.

        Raises
        ------
        OSError
            If it cannot be looked at.
        """
        self.folder.stat()
        return [name for name in indices_in(self.folder) if name.isprintable()]

    def stamp(self, name: str) -> Stamp | None:
        """Return what tells an index from the next in its place; None if that cannot be said."""
        if not name.isprintable() or name.startswith(".") or "/" in name or "\\" in name:
            return _NOTHING
        stamp = stamp_of(self.folder / name)
        return None if stamp == _NOTHING and not self.folder.is_dir() else stamp


@dataclass(eq=False)
class _Loaded:
    """An index in memory, and how many requests use it."""

    context: Context
    users: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Context]:
        self.users += 1
        self.idle.clear()
        try:
            yield self.context
        finally:
            self.users -= 1
            if not self.users:
                self.idle.set()


@dataclass(frozen=True)
class _Failure:
    """Why an index cannot be served, and until when that is taken for granted."""

    stamp: Stamp
    problem: str
    until: float


@dataclass(eq=False)
class _Entry:
    """What is known of an index that was asked for."""

    loaded: _Loaded | None = None
    opening: asyncio.Task[_Loaded | None] | None = None
    failure: _Failure | None = None
    bytes: int = 0
    """By which memory grew when it was opened last."""
    used: float = 0.0
    used_at: datetime | None = None
    gone: float | None = None
    """Since when its folder holds none."""


class Indices:
    """The indices of a folder.

    All methods are for the event loop's thread.

    Parameters
    ----------
    source : IndexFolder
    resources : Resources
    editable : bool
        Whether clients may change the indices.

    Raises
    ------
    SpadeError
        If this process takes more memory than it may before any index is open.
    """

    GRACE = 5.0
    """Seconds for which an index that is gone goes on answering: another may be moved there."""

    def __init__(
        self, source: IndexFolder, resources: Resources, *, editable: bool = False
    ) -> None:
        if source.max_memory is not None and anonymous() >= source.max_memory:
            raise SpadeError(
                f"`max_memory={human(source.max_memory)}` is too little: without any index the "
                f"service takes {human(anonymous())}"
            )
        self._source = source
        self._resources = resources
        self._metrics = resources.metrics
        self._editable = editable
        self._entries: dict[str, _Entry] = {}
        self._networks: WeakValueDictionary[BackboneRecord, Backbone] = WeakValueDictionary()
        self._lock = Lock()
        # One after another, so that each finds the networks of those before.
        self._opener = ThreadPoolExecutor(1, "opener")
        self._memory = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to look after the folder."""
        self._watch = asyncio.create_task(self._look_after())

    async def close(self) -> None:
        """Close all indices."""
        tasks: list[asyncio.Task[Any]] = [
            entry.opening for entry in self._entries.values() if entry.opening
        ]
        tasks += [self._watch] if self._watch else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._opener.shutdown)
        loaded = [entry.loaded for entry in self._entries.values() if entry.loaded]
        await asyncio.gather(*(one.context.close() for one in loaded), *self._leaving)

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[Context]:
        """Give the context of an index while a `with` block lasts; it is opened if need be.

        Raises
        ------
        Refusal
            404 if there is none of the name, 503 if it cannot be opened.
        """
        stamp = await self._resources.run(self._source.stamp, name)
        entry = await self._entry(name, stamp)
        loaded = entry.loaded or await self._open_once(name, entry, stamp or _NOTHING)
        async with loaded.used() as context:
            entry.used, entry.used_at = time.monotonic(), datetime.now(UTC)
            yield context

    async def states(self) -> list[IndexState]:
        """Return what is to be said of each index, by name.

        Raises
        ------
        Refusal
            503 if the folder cannot be looked at.
        """
        try:
            names = await self._resources.run(self._source.names)
        except OSError as error:
            raise Refusal(503, _unreadable(self._source.folder, error.strerror)) from None
        states = []
        for name in sorted({*names, *(n for n, entry in self._entries.items() if entry.loaded)}):
            entry = self._entries.get(name) or _Entry()
            if entry.loaded:
                states.append(await self._resources.run(_state, name, entry.loaded.context, entry))
                continue
            problem = entry.failure.problem if entry.failure and not entry.opening else None
            states.append(
                IndexState(
                    name=name,
                    state="opening" if entry.opening else "failed" if problem else "closed",
                    problem=problem,
                    last_used=entry.used_at,
                    images=None,
                    threshold=None,
                    created=None,
                    manifest_sha256=None,
                )
            )
        return states

    async def _entry(self, name: str, stamp: Stamp | None) -> _Entry:
        """Return what is known of an index that the folder holds, or held until a moment ago."""
        entry = self._entries.get(name)
        if stamp is None or stamp == _NOTHING:
            if entry and entry.loaded and (stamp is None or not self._is_gone(entry)):
                return entry
            if stamp is None:
                raise Refusal(503, _unreadable(self._source.folder, "is no folder"))
            names: list[str] = []
            with suppress(OSError):
                names = await self._resources.run(self._source.names)
            hint = nearest(name, names) or "; /v1/indices lists those that there are"
            raise Refusal(404, f"there is no index {quoted(name)}{hint}")
        if entry is None:
            entry = self._entries[name] = _Entry()
        entry.gone = None
        return entry

    def _is_gone(self, entry: _Entry) -> bool:
        """Say whether an index whose folder holds none now has been missing for long."""
        if entry.gone is None:
            entry.gone = time.monotonic()
        return time.monotonic() - entry.gone >= self.GRACE

    async def _open_once(self, name: str, entry: _Entry, stamp: Stamp) -> _Loaded:
        """Open an index, or wait until it is open for somebody else."""
        failure = entry.failure
        if failure and (failure.stamp != stamp or time.monotonic() >= failure.until):
            failure = entry.failure = None
        if failure is None:
            if entry.opening is None:
                entry.opening = asyncio.create_task(self._open(name, entry, stamp))
            loaded = await asyncio.shield(entry.opening)
            if loaded:
                return loaded
            failure = entry.failure
        raise Refusal(503, failure.problem if failure else f"{quoted(name)} cannot be opened now")

    async def _open(self, name: str, entry: _Entry, stamp: Stamp) -> _Loaded | None:
        """Open an index; None if that cannot be, and then its entry says why."""
        try:
            async with self._memory:
                await self._make_room(entry.bytes, but=entry)
                before = anonymous()
                live = await asyncio.get_running_loop().run_in_executor(
                    self._opener, self._live, name
                )
                entry.bytes = max(0, anonymous() - before)
                entry.used = time.monotonic()
                make = partial(Context, live, self._resources, name, editable=self._editable)
                loaded = entry.loaded = _Loaded(await self._resources.run(make))
                del live, make
                await self._resources.run(give_back)  # what opening it took beside
                if not await self._make_room(0, but=entry):
                    took = anonymous()
                    del loaded
                    await self._drop(name, entry)
                    raise SpadeError(
                        f"there is no room for {name}: with it alone the service takes "
                        f"{human(took)}; allow more with `max_memory`"
                    )
            loaded.context.live.watch()
            self._metrics.loaded.labels(name).set(1)
            self._metrics.openings.labels(name, "served").inc()
            return loaded
        except Exception as error:  # whatever it is, the others go on serving
            line = (
                str(error) if isinstance(error, SpadeError) else f"{type(error).__name__}: {error}"
            )
            logger.warning("%s cannot be served: %s", self._source.folder / name, line)
            entry.failure = _Failure(stamp, line, time.monotonic() + LiveIndex.RETRY)
            self._metrics.openings.labels(name, "refused").inc()
            return None
        finally:
            entry.opening = None

    def _live(self, name: str) -> LiveIndex:
        """Open an index; called in the opener's thread."""
        folder = self._source.folder / name
        return LiveIndex(folder, self._detector, self._source.every, name=name)

    def _detector(self, folder: Path, networks: Sequence[Backbone]) -> Detector:
        """Open an index, with networks that others have loaded, and keep in mind its own."""
        with self._lock:
            shared = list(self._networks.values())
        detector = self._source.opener(folder, [*networks, *shared])
        loaded = [member.network for member in detector.members]
        with self._lock:
            for network in loaded:
                self._networks.setdefault(record_of(network), network)
        return detector

    async def _make_room(self, need: int, but: _Entry) -> bool:
        """Drop indices until memory has room for so many bytes more; say whether it has now."""
        limit = self._source.max_memory
        if limit is None or anonymous() + need <= limit:
            return True
        await self._resources.run(give_back)
        while anonymous() + need > limit:
            droppable = [
                (name, entry)
                for name, entry in self._entries.items()
                if entry is not but and entry.loaded and _is_droppable(entry.loaded.context)
            ]
            if not droppable and not self._leaving:
                return False
            if droppable:
                name, entry = min(droppable, key=lambda one: one[1].used)
                await self._drop(name, entry)
                self._metrics.drops.labels(name).inc()
            else:  # those who use what was dropped are not done yet
                await asyncio.wait(self._leaving, timeout=self._resources.limits.upload)
            for _ in range(_LOOKS):
                await self._resources.run(give_back)
                if anonymous() + need <= limit:
                    break
                await asyncio.sleep(_LOOK)
        return True

    async def _drop(self, name: str, entry: _Entry) -> None:
        """Close an index, when those who use it are done."""
        loaded, entry.loaded = entry.loaded, None
        assert loaded
        self._metrics.loaded.labels(name).set(0)
        loaded.context.metrics.leave()  # now, as it may be opened anew before those are done
        closing = asyncio.create_task(_close(loaded))
        self._leaving.add(closing)
        closing.add_done_callback(self._leaving.discard)
        del loaded
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(closing), _PATIENCE)

    async def _look_after(self) -> None:
        """Drop what is gone, and what memory has no room for."""
        while True:
            await asyncio.sleep(self._source.every)
            try:
                await self._tidy(await self._resources.run(self._source.names))
            except OSError:  # nobody can say what is gone
                continue
            except Exception:
                logger.exception("the folder of indices could not be looked after")

    async def _tidy(self, names: Iterable[str]) -> None:
        async with self._memory:
            names = set(names)
            for name, entry in [*self._entries.items()]:
                if name in names:
                    entry.gone = None
                    continue
                if entry.opening:
                    continue
                if entry.loaded:
                    if not self._is_gone(entry) or not _is_droppable(entry.loaded.context):
                        continue
                    logger.warning("%s is gone: dropped", self._source.folder / name)
                    await self._drop(name, entry)
                    await self._resources.run(give_back)
                if entry.opening:  # meanwhile another was put there, and asked for
                    continue
                del self._entries[name]
                self._metrics.forget(name)
            loaded = [entry for entry in self._entries.values() if entry.loaded]
            if loaded:
                await self._make_room(0, but=max(loaded, key=lambda one: one.used))


async def _close(loaded: _Loaded) -> None:
    await loaded.idle.wait()
    await loaded.context.close()


def _is_droppable(context: Context) -> bool:
    return not context.changing


def _state(name: str, context: Context, entry: _Entry) -> IndexState:
    """Return what is to be said of an index in memory."""
    served, awaited = context.live.take()
    detector = served.detector
    return IndexState(
        name=name,
        state="open",
        problem=awaited.problem if awaited else None,
        last_used=entry.used_at,
        images=len(detector.index_),
        threshold=detector.image_threshold,
        created=detector.manifest.created,
        manifest_sha256=served.manifest_sha256,
    )


def _unreadable(folder: Path, why: str | None) -> str:
    return f"the folder of indices {folder} cannot be looked at: {why}"
