"""What `--notify` and its kin ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SpadeError
from ..notify import QUEUE, Notifier, open_sender, read_secret, shown, waiting_in
from .console import Console
from .options import NotifyOn, NotifyOptions


@contextmanager
def notifier_of(
    console: Console, options: NotifyOptions, out: Path, *, again: bool
) -> Iterator[Notifier | None]:
    """Give what tells another program of verdicts, if that is asked for; then send what waits.

    Parameters
    ----------
    console : Console
    options : NotifyOptions
    out : Path
        Where the queue lies.
    again : bool
        Whether the same verdicts are sent again by the next run, once this one is done.
    """
    if options.notify is None:
        if options.notify_secret_file or options.notify_on is not NotifyOn.ALL:
            raise SpadeError("nothing is sent without `notify`: give an address, too")
        if left := waiting_in(out):
            console.note(f"{left} unsent messages of before wait in {out / QUEUE}: give `notify`")
        yield None
        return
    file = options.notify_secret_file
    sender = open_sender(options.notify, None if file is None else read_secret(file))
    if file is None:
        console.note(
            "what is sent is not signed, so that its receiver cannot tell who sent it: give "
            "`notify_secret_file`"
        )
    notifier = Notifier(
        out, sender, on=options.notify_on.value, say=console.say, name=shown(options.notify)
    )
    done = False
    try:
        yield notifier
        done = True
    finally:
        notifier.close(forget=again and done)
