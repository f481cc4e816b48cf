"""Which galleries to make: settings that check themselves, and may be tried beforehand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..._support.faiss import faiss_reason
from ..._support.memory import available, human
from ...errors import SpadeError
from ...types import Floats

_CHOOSING = 36
"""Bytes that a coreset's choice keeps of each patch."""
_TRY = Path(__file__).with_name("try_factory.py")


@dataclass(frozen=True)
class GallerySpec:
    """Which galleries to make.

    Attributes
    ----------
    factory : str, optional
        What `faiss.index_factory` takes: "IVF256,Flat", "HNSW32", "OPQ8,PQ8", "Flat", …
    coreset : float in (0, 1), optional
        Share of each level's patches to keep (see `greedy_coreset`).
    search_params : str, optional
        What `faiss.ParameterSpace` takes: "nprobe=16", "efSearch=64". By default a sixteenth of
        an IVF's lists, but at least 16, and 64 candidates for HNSW.
    vector_bytes : tuple of float
        What each level's index takes for a vector, once it was tried.

    Raises
    ------
    SpadeError
        If the share is out of range, or search parameters are given for an exact search.
    """

    factory: str | None = None
    coreset: float | None = None
    search_params: str | None = None
    vector_bytes: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.coreset is not None and not 0 < self.coreset < 1:
            raise SpadeError(
                f"coreset = {self.coreset} must lie between 0 and 1: it is a share of all patches"
            )
        if self.search_params and self.factory is None:
            raise SpadeError(
                f"search parameters ({self.search_params}) are those of an index "
                "that `factory` names"
            )

    def __bool__(self) -> bool:
        return self.factory is not None or self.coreset is not None

    def count(self, rows: int) -> int:
        """Return how many of a level's rows are in its gallery."""
        return rows if self.coreset is None else max(1, round(self.coreset * rows))

    def tried(self, shapes: Sequence[tuple[int, int, int]], images: int) -> GallerySpec:
        """Try the factory string on each level's shape; return the spec with what that tells.

        These are the search parameters that will be used, and the bytes that a vector takes.

        Parameters
        ----------
        shapes : sequence of (h, w, C)
        images : int
            Training images, at most.

        Raises
        ------
        SpadeError
            If FAISS refuses the string or the parameters, or there are too few patches.
        """
        if self.factory is None:
            return self
        levels = [f"{c}:{self.count(images * h * w)}" for h, w, c in shapes]
        outcome = _outcome(self.factory, self.search_params or "", levels)
        if "why" in outcome:
            number = outcome["level"]
            params = f" with {self.search_params}" if self.search_params else ""
            raise SpadeError(
                f"FAISS refuses {self.factory!r}{params} for level {number} "
                f"({shapes[number - 1][2]} channels): {faiss_reason(outcome['why'])}"
            )
        return replace(
            self,
            search_params=outcome["search_params"],
            vector_bytes=tuple(outcome["vector_bytes"]),
        )

    def check_memory(self, levels: Sequence[Floats]) -> None:
        """Refuse what would not fit into memory, where galleries are made whole.

        Raises
        ------
        SpadeError
            If it would not.
        """
        room = available()
        for number, patches in enumerate(levels):
            chosen = self.count(len(patches))
            need = chosen * self.vector_bytes[number] if self.factory else 0.0
            if self.coreset is not None:
                need += max(_CHOOSING * len(patches), chosen * patches.shape[1] * 4)
            if need > room:
                raise SpadeError(
                    f"the gallery of level {number + 1} takes {human(need)} of memory to make and "
                    f"there are {human(room)}: take a smaller `coreset` or a `factory` that "
                    "compresses (PQ8, SQ8), raise `max_memory`, or search exactly without them"
                )


def _outcome(factory: str, search_params: str, levels: Sequence[str]) -> dict[str, Any]:
    """Return what `try_factory` prints, which runs in a process of its own.

    Raises
    ------
    SpadeError
        If that process crashes or fails.
    """
    ended = subprocess.run(
        [sys.executable, "-P", _TRY, factory, search_params, *levels],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if ended.returncode < 0:
        raise SpadeError(
            f"FAISS crashes on {factory!r} (signal {-ended.returncode}); "
            "name another index with `factory`"
        )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it ended"])[-1]
        raise SpadeError(f"{factory!r} could not be tried: {last}")
    outcome: dict[str, Any] = json.loads(ended.stdout)
    return outcome
