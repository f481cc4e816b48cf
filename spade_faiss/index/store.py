"""Read an index, memory-mapped; `generation` has the layout of its folder."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.faiss import faiss, faiss_errors, path_for_faiss
from ..errors import SpadeError
from ..images.roi import paint_over
from ..search.approximate import set_search_params
from ..types import Floats, Ids
from .flat_file import Half
from .gallery_files import open_gallery
from .manifest import DataFile, Manifest
from .verify import damaged_files

_ADVISED = 128 << 10
"""Bytes that the system is asked to read ahead at a time; of more it may leave out the rest."""


class Index:
    """An index opened for reading; its arrays are memory-mapped.

    Attributes
    ----------
    folder : Path
    manifest : Manifest
    parts : int
        Of an image, that the network saw one by one: 1, or its tiles.
    layouts : tuple of Layout
        Where the patches of each level lie.
    descriptors : float32 [n * parts, D]
    levels : tuple of float32 or float16 [n * parts * patches, C]
    wide : uint8 [n, h + 2 m, w + 2 m, 3]
        Each image framed for the network, with the margin if that was kept; nothing is painted
        over.
    crops : uint8 [n, h, w, 3]
        The same without it.
    galleries : tuple of Gallery
        What each level is searched in whole; empty where the index was built without.
    scales : list of float32 [C], or None
        What features are multiplied by: of the descriptors, then of each level.
    copies : tuple of int64 arrays, or None
        For each image, the others that show the same part, once somebody looked for them.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.scales: list[Floats] | None = (
            [np.array(one, np.float32) for one in manifest.scales] if manifest.scales else None
        )
        self.copies: tuple[Ids, ...] | None = None
        self._normal: list[Floats] | None = None
        self._mapped: list[tuple[mmap.mmap, int]] = []
        self.layouts = manifest.layouts
        self.parts = self.layouts[0].parts
        n = len(manifest.images)
        units = n * self.parts
        self._read = np.zeros(units, bool)
        module = faiss()
        kind = module.IndexScalarQuantizer if manifest.store else module.IndexFlatL2
        self.descriptors: Floats = self._map(
            manifest.descriptors, units, manifest.descriptor_size, module.IndexFlatL2
        )
        self.levels: tuple[Any, ...] = tuple(
            self._map(level.file, units * layout.patches, level.channels, kind)
            for level, layout in zip(manifest.levels, self.layouts, strict=True)
        )
        height, width = manifest.framing.height, manifest.framing.width
        more = manifest.framing.margin if manifest.keeps_margins else 0
        self.wide: npt.NDArray[np.uint8] = np.memmap(
            folder / manifest.crops.name,
            np.uint8,
            "r",
            shape=(n, height + 2 * more, width + 2 * more, 3),
        )
        self.crops = self.wide[:, more : more + height, more : more + width]
        made = manifest.gallery
        self.galleries = (
            tuple(
                open_gallery(folder, files, patches, made.search_params)
                for files, patches in zip(made.levels, self.levels, strict=True)
            )
            if made
            else ()
        )

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, verify: bool = True) -> Index:
        """Open the index in `folder`, every file's checksum checked before FAISS reads it.

        A file that was found whole and has not been changed since is not read again.

        Raises
        ------
        SpadeError
            If there is no index, or a file is missing or damaged; the first one is named.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        try:
            return cls._open(folder, manifest, verify=verify)
        except (SpadeError, OSError):
            # A writer may have replaced the index between the two reads.
            again = Manifest.read(folder)
            if again.generation == manifest.generation:
                raise
            return cls._open(folder, again, verify=verify)

    @classmethod
    def _open(cls, folder: Path, manifest: Manifest, *, verify: bool) -> Index:
        bad = damaged_files(folder, manifest, again=False) if verify else []
        if bad:
            raise SpadeError(f"{bad[0]}; build the index again")
        return cls(folder, manifest)

    def _map(self, file: DataFile, rows: int, columns: int, kind: Any) -> Any:
        module = faiss()
        path = self.folder / file.name
        with faiss_errors(str(path)):
            index = module.read_index(path_for_faiss(path), module.IO_FLAG_MMAP_IFC)
        fits = isinstance(index, kind) and (index.ntotal, index.d) == (rows, columns)
        half = kind is module.IndexScalarQuantizer
        if not fits or (half and index.sq.qtype != module.ScalarQuantizer.QT_fp16):
            raise SpadeError(f"{path} does not hold {rows} x {columns} values as the manifest says")
        # Not FAISS's own mapping: arrays over that would outlive it.
        dtype = np.dtype(Half if half else np.float32)
        with path.open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        header = len(mapped) - rows * columns * dtype.itemsize
        self._mapped.append((mapped, header))
        return np.frombuffer(mapped, dtype, rows * columns, header).reshape(rows, columns)

    def set_search_params(self, params: str) -> None:
        """Set how thoroughly its galleries are searched from now on, as "nprobe=64" says.

        Raises
        ------
        SpadeError
            If they have no such parameters.
        """
        for gallery in self.galleries:
            set_search_params(gallery, params)

    def read_ahead(self, units: Ids) -> None:
        """Have the system begin to read patches of parts of training images, of each once.

        Else it would read as the pages are touched, one after another, and more around each.
        """
        new = np.unique(units[~self._read[units]])
        self._read[new] = True
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        for (mapped, header), layout, rows in zip(
            self._mapped[1:], self.layouts, self.levels, strict=True
        ):
            size = layout.patches * rows.shape[1] * rows.itemsize
            for unit in new.tolist():
                start = header + unit * size
                end, start = start + size, start - start % mmap.PAGESIZE
                for at in range(start, end, _ADVISED):
                    mapped.madvise(mmap.MADV_WILLNEED, at, min(_ADVISED, end - at))

    def __len__(self) -> int:
        return len(self.manifest.images)

    def __repr__(self) -> str:
        return f"<Index of {len(self)} good images in {self.folder}>"

    def normal_distances(self) -> list[Floats] | None:
        """Return the normal distances of each level's rows, [rows, 3], if there are any.

        `spade_faiss.maps.contrast.normal_distances` says what they are.
        """
        if self.manifest.normal_distances is None:
            return None
        if self._normal is None:  # kept, as the file goes when a writer replaces the index
            rows = [len(level) for level in self.levels]
            path = self.folder / self.manifest.normal_distances.name
            values = np.memmap(path, np.float32, "r", shape=(sum(rows), 3))
            self._normal = np.split(values, np.cumsum(rows)[:-1])
        return self._normal

    def shown(self, image: int, rows: slice = slice(None)) -> npt.NDArray[np.uint8]:
        """Return what the network was shown of an image, or some rows of that, [h, w, 3]."""
        framing, made = self.manifest.framing.framing(), self.manifest.images[image]
        crop, shown = self.crops[image, rows], framing.shown((made.height, made.width))
        return crop if shown is None else paint_over(crop, framing.inner(shown)[rows])

    def rows(self, level: int, start: int, stop: int) -> Floats:
        """Return a level's rows of images `start` to `stop`, [.., C]."""
        patches = self.parts * self.layouts[level].patches
        own: Floats = self.levels[level][start * patches : stop * patches].astype(
            np.float32, copy=False
        )
        return own
