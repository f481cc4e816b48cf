"""What should be known before an index's verdicts are relied on, each in one line."""

from __future__ import annotations

from ..index.manifest import Manifest


def index_notes(manifest: Manifest, k: int) -> tuple[str, ...]:
    """Return what is odd about an index, for every face to show: command, report and service.

    Parameters
    ----------
    manifest : Manifest
    k : int
        Training images that a query is to be compared with.
    """
    return ()
