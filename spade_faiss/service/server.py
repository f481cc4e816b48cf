"""Runs the service until a signal ends it, and then answers what was accepted."""

from __future__ import annotations

import gc
import ipaddress
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from .._support.memory import anonymous
from ..detector import Detector, open_detector
from ..errors import SpadeError
from ..features import Backbone
from ..index.folders import holds_index, indices_in
from .access_log import AccessLog
from .app import create_app
from .context import State
from .history import History
from .indices import IndexFolder
from .limits import Limits
from .live import LiveIndex
from .past import Bounds

_SHORTEST_TOKEN = 16
_PATIENCE = 60.0
"""Seconds that the end waits for answers that no client may ever take."""


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    allow_hosts: Collection[str] = (),
    limits: Limits | None = None,
    editable: bool = False,
    max_memory: int | None = None,
    allow_origins: Collection[str] = (),
    access_log: str | os.PathLike[str] | None = None,
    history: Path | None = None,
    bounds: Bounds | None = None,
    **options: Any,
) -> bool:
    """Serve an index, an ensemble, or a folder of these until SIGINT or SIGTERM.

    Return whether all was answered.

    A first signal makes new queries be answered with 503 while accepted ones are finished; a
    second one ends the service at once.

    Parameters
    ----------
    folder : Path
        Of an index or ensemble; or one that holds such folders, which are served by their names.
    host : str
        Where to listen. Any but a loopback address needs a token.
    port : int
        0 for any that is free; the line on standard error says which.
    token : str, optional
        What clients must show as a bearer token, 16 characters or more.
    allow_hosts : collection of str
        Names that the service goes by on loopback, such as a reverse proxy's.
    limits : Limits, optional
    editable : bool
        Whether clients may give an index another region or add images to it, which is written
        into its folder.
    max_memory : int, optional
        Bytes; of a folder of indices, those used least recently are dropped while the process
        takes more.
    allow_origins : collection of str
        Other sites whose pages may use the service, as `https://HOST:PORT`; with a token, "*" is
        all.
    access_log : path, optional
        A file that a line of JSON is added to for each request; "-" is standard error.
    history : Path, optional
        A folder to keep results in, and the images as they were sent.
    bounds : Bounds, optional
        How much of them.
    **options
        What `open_detector` takes.

    Raises
    ------
    SpadeError
        If it cannot be opened, the address cannot be had, or a token is missing; or if memory is
        limited of one index, to less than none takes, or on a system that does not tell of it.
    """
    limits = limits or Limits()
    _check_token(token)
    family, address = _resolve(host, port)
    local = ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
    if not local and token is None:
        raise SpadeError(
            f"`host={host}` can be reached from other machines: give a `token`, or "
            "set SPADE_FAISS_TOKEN, which a list of processes does not show"
        )

    several = not holds_index(folder) and bool(indices_in(folder))
    if max_memory is not None and not anonymous():
        raise SpadeError("`max_memory` is kept by Linux, and not by this system: leave it out")
    if max_memory is not None and not several:
        raise SpadeError(
            "`max_memory` is for a folder of indices, some of which are dropped: of one index "
            "there is nothing to drop"
        )

    def opener(folder: Path, networks: Sequence[Backbone]) -> Detector:
        return open_detector(folder, networks=networks, batch_size=limits.batch, **options)

    _log()
    with _listen(family, address) as listening, _kept(history, bounds) as kept:
        source: LiveIndex | IndexFolder = (
            IndexFolder(folder, opener, max_memory) if several else LiveIndex(folder, opener)
        )
        state = State()
        app = create_app(
            source,
            limits,
            state,
            token,
            (host, *allow_hosts) if local else None,
            editable=editable,
            allow_origins=allow_origins,
            access_log=None if access_log is None else AccessLog(access_log),
            kept=kept,
        )
        # What is there now stays; what requests leave behind is to be found in time.
        gc.freeze()
        gc.set_threshold(1000, 10, 10)
        server = Server(_config(app), state, _greeting(source, listening))
        server.run([listening])
    return not server.force_exit


@contextmanager
def _kept(folder: Path | None, bounds: Bounds | None) -> Iterator[History | None]:
    """Give the history of a folder, if there is one, while a `with` block lasts."""
    if folder is None:
        yield None
    else:
        for one in (folder, *folder.absolute().parents):
            if holds_index(one):
                raise SpadeError(
                    f"`history={folder}` lies in the index {one}, where nothing else may lie: name "
                    "another folder"
                )
        with closing(History(folder, bounds)) as history:
            yield history


def _check_token(token: str | None) -> None:
    """Refuse a token that could be guessed, or that no header can hold."""
    if token is not None and (
        len(token) < _SHORTEST_TOKEN
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise SpadeError(
            f"a token must have {_SHORTEST_TOKEN} printable ASCII characters or more, no spaces; "
            "make one: python3 -c 'import secrets; print(secrets.token_urlsafe())'"
        )


def _log() -> None:
    """Log to standard error, but not what is wrong with uploads: that is answered."""
    logging.basicConfig(format="spade-faiss: %(message)s")
    for name in ("tifffile", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="PIL")


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def _greeting(source: LiveIndex | IndexFolder, listening: socket.socket) -> str:
    """Return the line that says what is served, and where."""
    address, port = listening.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    return (
        f"spade-faiss: {source.folder} ({_contents(source)}) is served on http://{shown}:{port}/ "
        "until Ctrl-C"
    )


def _contents(source: LiveIndex | IndexFolder) -> str:
    """Return in words what is served."""
    if isinstance(source, IndexFolder):
        n = len(source.names())
        return f"{n} {'index' if n == 1 else 'indices'}, opened when asked for"
    n, limit = len(source.detector.index_), source.detector.image_threshold
    images = f"{n} good image{'' if n == 1 else 's'}"
    threshold = "no threshold, so no verdicts" if limit is None else f"threshold {limit:.4g}"
    return f"{images}, {threshold}"


class Server(uvicorn.Server):
    """A server that goes on listening while it drains, so that new requests get an answer."""

    def __init__(self, config: uvicorn.Config, state: State, greeting: str = "") -> None:
        super().__init__(config)
        self._state = state
        self._greeting = greeting
        self._leave_at = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so on standard error."""
        await super().startup(sockets)
        if self._greeting:
            print(self._greeting, file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, and leave at the second."""
        if self._state.draining:
            self.should_exit = self.force_exit = True
        self._state.draining = True
        self._leave_at = time.monotonic() + _PATIENCE

    async def on_tick(self, counter: int) -> bool:
        """Say whether to leave; called ten times a second."""
        done = self._state.draining and not self._state.requests
        if done or time.monotonic() > self._leave_at:
            self.should_exit = True
        return await super().on_tick(counter)


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SpadeError(f"`host={host}`: {getattr(error, 'strerror', None) or error}") from None
    return found[0][0], found[0][4]


def _listen(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise SpadeError(
            f"cannot listen on {address[0]} port {address[1]}: {error.strerror}; "
            "choose another `port`"
        ) from None
    return listening
