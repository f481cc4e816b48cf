"""Tell another program of each verdict, from a queue on disk that outlasts it being away."""

from .address import check_address, open_sender, shown
from .events import WHICH, identity, wanted
from .notifier import Notifier
from .queue import QUEUE, waiting_in
from .sender import RefusedError, Sender, UnreachableError
from .signature import read_secret, signature

__all__ = [
    "QUEUE",
    "WHICH",
    "Notifier",
    "RefusedError",
    "Sender",
    "UnreachableError",
    "check_address",
    "identity",
    "open_sender",
    "read_secret",
    "shown",
    "signature",
    "waiting_in",
    "wanted",
]
