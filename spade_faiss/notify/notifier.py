"""Sends what waits in a queue, in a thread of its own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any

from .._support.text import json_text
from ..errors import SpadeError
from .events import wanted
from .queue import QUEUE, Message, Queue
from .sender import RefusedError, Sender, UnreachableError

_FIRST, _LONGEST = 0.5, 30.0
"""Seconds to wait after the first failure, and at most; the wait doubles from one to the next."""
_ASIDE_FIRST, _ASIDE_LONGEST = 60.0, 3600.0
"""The same of a message that is refused by itself."""
_TRIES = 5
"""Failures in a row after which the message behind is tried: this one may be what fails."""

_PATIENCE = 1.0
"""Seconds to wait for an answer, once the sending ends."""


class Notifier:
    """Takes events, keeps them on disk, and sends them when the other side takes them.

    Whoever puts an event waits for the disk alone. An event that the other side may have had when
    the connection broke is sent again, with the same identity.

    Parameters
    ----------
    folder : Path
        Where the queue lies. What an earlier process left in it is sent first.
    sender : Sender
    on : str
        Which verdicts are told; see `WHICH`.
    say : callable
        Is given a line when the other side is gone, and when it is back; from another thread.
    name : str
        What the other side is called in these.
    """

    def __init__(
        self,
        folder: Path,
        sender: Sender,
        *,
        on: str = "all",
        say: Callable[[str], object],
        name: str,
    ) -> None:
        wanted(on, "")  # which must be a choice
        folder.mkdir(parents=True, exist_ok=True)
        self._queue = Queue(folder / QUEUE)
        self._sender, self._on, self._say, self._name = sender, on, say, name
        self._folder = folder
        self._woken, self._ending = Event(), Event()
        self._wait, self._failures = 0.0, 0
        self._sent: Message | None = None
        self._thread = Thread(target=self._run, name="notifier", daemon=True)
        self._thread.start()

    def put(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Keep the events that are wanted, each with its "id" and "verdict", and have them sent."""
        messages = [
            (event["id"], json_text(event).encode())
            for event in events
            if wanted(self._on, event["verdict"])
        ]
        if messages:
            self._queue.put(messages)
            self._woken.set()

    def close(self, seconds: float = 5.0, *, forget: bool = False) -> int:
        """End the sending, once all that is due is sent or some seconds are over.

        Returns how many wait on.

        `forget` lets the same events be put again by whoever comes next, and sent again.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._queue.next() and not self._wait:
            time.sleep(0.02)
        self._ending.set()
        self._woken.set()
        self._thread.join(_PATIENCE)  # a receiver that hangs must not hold up the end
        left = self._queue.waiting()
        if forget:
            self._queue.forget_sent()
        if left:
            self._say(
                f"{_many(left)} for {self._name} not sent yet, and kept in {self._folder}: what "
                "writes its results there next sends them"
            )
        self._queue.close()
        return left

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                try:
                    self._step()
                except Exception as error:  # whatever it is, the thread must not end
                    self._away(error)
        finally:
            self._sender.close()

    def _step(self) -> None:
        """Send the next message, or wait for one."""
        if self._sent:  # and that is not on disk yet, which was full, say
            self._queue.sent(self._sent)
            self._sent = None
        message = self._queue.next()
        if message is None:
            self._woken.wait(1.0)
            self._woken.clear()
        else:
            self._send_or_next(message)

    def _send_or_next(self, message: Message) -> None:
        """Send a message; where that fails often, send the next, and set it aside if that is taken.

        A receiver may fail of one message alone, without saying that it is the message's fault.
        """
        try:
            self._send(message)
        except UnreachableError as error:
            self._failures += 1
            behind = self._queue.next(behind=message.number) if self._failures >= _TRIES else None
            if behind is None:
                raise
            self._send(behind)
            self._set_aside(message, error)
        self._failures = 0

    def _send(self, message: Message) -> None:
        try:
            self._sender.send(message.id, message.body)
        except RefusedError as error:
            self._set_aside(message, error)
        else:
            self._sent = message
            self._queue.sent(message)
            self._sent = None
            if self._wait:
                self._wait = 0.0
                self._say(f"{self._name} takes messages again")

    def _set_aside(self, message: Message, error: Exception) -> None:
        """Have a message wait while others go on."""
        pause = min(_ASIDE_LONGEST, _ASIDE_FIRST * 2**message.tries)
        self._queue.set_aside(message, time.time() + pause)
        if not message.tries:
            self._say(f"{self._name} refused message {message.id}: {error}; it is tried again")

    def _away(self, error: Exception) -> None:
        """Wait a while."""
        if self._ending.is_set():
            return
        if not self._wait:
            why = str(error) if isinstance(error, UnreachableError) else repr(error)
            self._say(
                f"no messages are sent now: {error}"
                if isinstance(error, SpadeError)
                else f"{self._name} takes no messages now ({why}); they wait on disk"
            )
        self._wait = min(_LONGEST, 2 * self._wait or _FIRST)
        self._ending.wait(self._wait * random.uniform(0.75, 1.0))


def _many(count: int) -> str:
    return "1 message is" if count == 1 else f"{count} messages are"
