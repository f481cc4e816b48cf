"""Galleries that stage two searches whole: approximate indices, coresets, and both together.

They stand beside the exact patches of a level, which stay as they are: what is found is a row
of the level, and distances are measured to that row itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from .._support.faiss import faiss, faiss_reason
from .._support.files import sync_folder
from .._support.memory import available, human
from ..errors import SpadeError
from ..search.approximate.coreset import greedy_coreset
from .manifest import DataFile, GalleryFiles, GalleryRecord

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_PIECE = 1 << 16
"""Patches that are added to an index at a time."""
_CHOOSING = 36
"""Bytes that a coreset's choice keeps of each patch."""


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
                "that --factory names"
            )

    def __bool__(self) -> bool:
        return self.factory is not None or self.coreset is not None

    def count(self, rows: int) -> int:
        """Return how many of a level's rows are in its gallery."""
        return rows if self.coreset is None else max(1, round(self.coreset * rows))

    def tried(self, shapes: Sequence[tuple[int, int, int]], images: int) -> GallerySpec:
        """Try the factory string on each level's shape, and return the spec with the search
        parameters that will be used.

        Parameters
        ----------
        shapes : sequence of (h, w, C)
        images : int
            Training images, at most.

        Raises
        ------
        SpadeError
            If FAISS refuses the string or the parameters, or there are too few patches.
        """  # noqa: D205
        if self.factory is None:
            return self
        levels = [f"{c}:{self.count(images * h * w)}" for h, w, c in shapes]
        trial = Path(__file__).parents[1] / "search" / "approximate" / "trial.py"
        ended = subprocess.run(
            [sys.executable, "-P", trial, self.factory, self.search_params or "", *levels],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if ended.returncode < 0:
            raise SpadeError(
                f"FAISS crashes on {self.factory!r} (signal {-ended.returncode}); "
                "name another index with --factory"
            )
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["it ended"])[-1]
            raise SpadeError(f"{self.factory!r} could not be tried: {last}")
        outcome = json.loads(ended.stdout)
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
                    f"there are {human(room)}: take a smaller --coreset or a --factory that "
                    "compresses (PQ8, SQ8), raise --max-memory, or search exactly without them"
                )


@dataclass(frozen=True)
class Gallery:
    """What one level is searched in, opened.

    Attributes
    ----------
    patches : float32 [G, C]
    rows : int64 [G] or None
        The level's row of each patch, ascending; None where the gallery is the whole level.
    index : faiss.Index or None
        Over the patches, in their order; None where they are searched exactly.
    bytes : int
        Size of what is searched.
    """

    patches: Floats
    rows: Ids | None
    index: Any
    bytes: int

    def within(self, rows: range) -> range:
        """Return which patches of the gallery are some rows of the level."""
        if self.rows is None:
            return rows
        start, stop = np.searchsorted(self.rows, (rows.start, rows.stop)).tolist()
        return range(start, stop)


def build_galleries(
    place: Path, levels: Sequence[Floats], spec: GallerySpec, progress: bool = False
) -> GalleryRecord:
    """Write the galleries of all levels into a generation's folder, synced.

    Coresets, IVF and codes are the same for the same patches; HNSW's graph differs a little from
    build to build, as threads add to it at once.

    Parameters
    ----------
    place : Path
    levels : sequence of float32 [n * h * w, C]
    spec : GallerySpec
        Tried before.

    Raises
    ------
    SpadeError
        If FAISS fails.
    """
    spec.check_memory(levels)
    sizes = [spec.count(len(patches)) for patches in levels]
    kept: list[Ids | None] = [None] * len(levels)
    if spec.coreset is not None:
        with _bar("coreset", sum(sizes), progress) as bar:
            for i, (patches, size) in enumerate(zip(levels, sizes, strict=True)):
                before = bar.n

                def show(chosen: int, before: int = before) -> None:
                    bar.update(before + chosen - bar.n)

                kept[i] = np.sort(greedy_coreset(patches, size, show))
                show(size)
    files: list[GalleryFiles] = []
    with _bar(f"index {spec.factory}", sum(sizes) if spec.factory else 0, progress) as bar:
        for number, (patches, rows) in enumerate(zip(levels, kept, strict=True), 1):
            index_file = rows_file = None
            if rows is not None:
                with _written(place / f"level{number}.coreset.i64") as file:
                    file.write(rows.astype("<i8").data)
                rows_file = DataFile.of(Path(file.name))
            if spec.factory is not None:
                gallery = patches if rows is None else patches[rows]
                with _explained(f"level {number}: {spec.factory}"):
                    index = _trained(spec.factory, spec.search_params or "", gallery, bar)
                    with _written(place / f"level{number}.gallery.faiss") as file:
                        write = faiss().PyCallbackIOWriter(file.write, _PIECE)
                        faiss().write_index(index, write)
                    index_file = DataFile.of(Path(file.name))
            files.append(GalleryFiles(index=index_file, rows=rows_file))
    sync_folder(place)
    return GalleryRecord(
        factory=spec.factory,
        coreset=spec.coreset,
        search_params=spec.search_params,
        levels=tuple(files),
    )


def open_gallery(
    folder: Path, files: GalleryFiles, level: Floats, search_params: str | None
) -> Gallery:
    """Open a level's gallery, whose checksums were verified; FAISS maps what it can.

    Raises
    ------
    SpadeError
        If a file does not fit the level.
    """
    rows, patches = None, level
    if files.rows:
        path = folder / files.rows.name
        rows = np.fromfile(path, "<i8").astype(np.int64, copy=False)
        if not len(rows) or rows[0] < 0 or rows[-1] >= len(level) or (np.diff(rows) <= 0).any():
            raise SpadeError(f"{path} does not hold ascending rows of {len(level)}")
        patches = level[rows]
    if not files.index:
        return Gallery(patches, rows, None, patches.nbytes)
    path = folder / files.index.name
    with _explained(str(path)):
        index = faiss().read_index(str(path), faiss().IO_FLAG_MMAP_IFC)
    if (index.ntotal, index.d, index.metric_type) != (*patches.shape, faiss().METRIC_L2):
        raise SpadeError(
            f"{path} does not index {patches.shape[0]} x {patches.shape[1]} values "
            "as the manifest says"
        )
    gallery = Gallery(patches, rows, index, files.index.bytes)
    set_search_params(gallery, search_params or "")
    return gallery


def set_search_params(gallery: Gallery, params: str) -> None:
    """Set how thoroughly a gallery's index is searched, as "nprobe=64" says.

    Raises
    ------
    SpadeError
        If the index has no such parameter.
    """
    with _explained(f"search parameters {params!r}"):
        faiss().ParameterSpace().set_index_parameters(gallery.index, params)


def _trained(factory: str, search_params: str, patches: Floats, bar: tqdm[int]) -> Any:
    """Return a FAISS index over patches."""
    module = faiss()
    from ..search.approximate.trial import skip_polysemous

    index = module.index_factory(patches.shape[1], factory)
    skip_polysemous(index, search_params)
    with _no_clustering_warnings():
        index.train(patches)
    # NSG takes all at once.
    piece = len(patches) if isinstance(index, module.IndexNSG) else _PIECE
    for start in range(0, len(patches), piece):
        index.add(patches[start : start + piece])
        bar.update(len(patches[start : start + piece]))
    return index


@contextmanager
def _written(path: Path) -> Iterator[BufferedWriter]:
    """Open a new file, which is synced at the end."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _bar(title: str, total: int, progress: bool) -> tqdm[int]:
    return tqdm(desc=title, total=total, unit="patch", disable=None if progress and total else True)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what FAISS raises into one line."""
    try:
        yield
    except RuntimeError as error:
        raise SpadeError(f"{what}: {faiss_reason(error)}") from None


@contextmanager
def _no_clustering_warnings() -> Iterator[None]:
    """Hold back FAISS's many lines on standard error about few points for clustering.

    They come from C++, so the file descriptor itself is turned aside; all else that was
    written to it meanwhile is passed on.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            aside.seek(0)
            for line in aside:
                if not line.startswith(b"WARNING clustering"):
                    os.write(2, line)
