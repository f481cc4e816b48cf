"""A limit on this process's memory, which the system keeps."""

from __future__ import annotations

from contextlib import suppress

from ..errors import SpadeError
from .faiss import faiss
from .memory import anonymous, human, set_aside

try:
    import resource
except ImportError:  # as on Windows
    resource = None  # type: ignore[assignment]

_LEAST = 256 << 20
"""Less than the libraries alone take."""


def limit_memory(size: int) -> None:
    """Have the system refuse this process more than `size` bytes of memory of its own.

    The limit is RLIMIT_DATA, which counts what is set aside, used or not. What libraries have
    set aside so far and not used is added to it; what they set aside later is not, so that the
    process may be refused memory a little before it uses as much, and never after.

    Raises
    ------
    SpadeError
        If that is less than is needed to start, or the system keeps no such limit.
    """
    if resource is None or not set_aside():
        raise SpadeError("`max_memory` is kept by Linux, and not by this system: leave it out")
    with suppress(SpadeError):  # where FAISS is missing, it may not be needed
        faiss()  # which crashes if refused memory at its first search
    used = anonymous()
    if size < max(_LEAST, used):
        raise SpadeError(
            f"`max_memory={human(size)}` is too little: allow "
            f"{human(max(2 * _LEAST, 2 * used))} or more"
        )
    unused = max(set_aside() - used, 0)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = size + unused
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return  # the limit that is there is the tighter one
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
