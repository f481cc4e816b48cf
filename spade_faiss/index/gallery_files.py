"""The files of galleries: rows of coresets, and FAISS indices, beside a generation's others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .._support.faiss import faiss, faiss_errors, path_for_faiss
from .._support.files import sync_folder
from ..errors import SpadeError
from ..search.approximate import Gallery, GallerySpec, set_search_params
from ..search.approximate.gallery import choose_rows, train_index
from ..types import Floats, Ids
from .manifest import DataFile, GalleryFiles, GalleryRecord

_PIECE = 1 << 16
"""Bytes that FAISS writes at a time."""


def build_galleries(
    place: Path, levels: Sequence[Floats], spec: GallerySpec, *, progress: bool = False
) -> GalleryRecord:
    """Make the galleries of all levels, and write them into a generation's folder, synced.

    Parameters
    ----------
    place : Path
    levels : sequence of float32 [n * h * w, C]
    spec : GallerySpec
        Tried before.
    progress : bool
        Whether to show bars, where standard error is a terminal.

    Raises
    ------
    SpadeError
        If they would not fit into memory, or FAISS fails.
    """
    spec.check_memory(levels)
    rows = _rows_of_all(levels, spec, progress=progress)
    files: list[GalleryFiles] = []
    total = sum(spec.count(len(patches)) for patches in levels) if spec.factory else 0
    with _bar(f"index {spec.factory}", total, progress=progress) as bar:
        for number, (patches, kept) in enumerate(zip(levels, rows, strict=True), 1):
            path = place / f"level{number}.coreset.i64"
            rows_file = None if kept is None else _write_rows(path, kept)
            index_file = None
            if spec.factory is not None:
                gallery = patches if kept is None else patches[kept]
                with faiss_errors(f"level {number}: {spec.factory}"):
                    index = train_index(gallery, spec.factory, spec.search_params or "", bar.update)
                    index_file = _write_index(place / f"level{number}.gallery.faiss", index)
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
    with faiss_errors(str(path)):
        index = faiss().read_index(path_for_faiss(path), faiss().IO_FLAG_MMAP_IFC)
    if (index.ntotal, index.d, index.metric_type) != (*patches.shape, faiss().METRIC_L2):
        raise SpadeError(
            f"{path} does not index {patches.shape[0]} x {patches.shape[1]} values "
            "as the manifest says"
        )
    gallery = Gallery(patches, rows, index, files.index.bytes)
    set_search_params(gallery, search_params or "")
    return gallery


def _rows_of_all(
    levels: Sequence[Floats], spec: GallerySpec, *, progress: bool
) -> list[Ids | None]:
    """Return the rows of each level that are in its gallery; None for all."""
    if spec.coreset is None:
        return [None] * len(levels)
    sizes = [spec.count(len(patches)) for patches in levels]
    rows: list[Ids | None] = []
    with _bar("coreset", sum(sizes), progress=progress) as bar:
        for patches, size in zip(levels, sizes, strict=True):
            before = bar.n

            def show(chosen: int, before: int = before) -> None:
                bar.update(before + chosen - bar.n)

            rows.append(choose_rows(patches, spec, show))
            show(size)
    return rows


def _write_rows(path: Path, rows: Ids) -> DataFile:
    with _written(path) as file:
        file.write(rows.astype("<i8").data)
    return DataFile.of(path)


def _write_index(path: Path, index: Any) -> DataFile:
    with _written(path) as file:
        faiss().write_index(index, faiss().PyCallbackIOWriter(file.write, _PIECE))
    return DataFile.of(path)


@contextmanager
def _written(path: Path) -> Iterator[BufferedWriter]:
    """Open a new file, which is synced at the end."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _bar(title: str, total: int, *, progress: bool) -> tqdm[int]:
    return tqdm(desc=title, total=total, unit="patch", disable=None if progress and total else True)
