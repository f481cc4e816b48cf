"""Write an index in bounded memory, and read it memory-mapped.

Layout of an index folder::

    manifest.json                 which generation counts, its checksums, thresholds
    <8 hex digits>/               one generation of data, never changed once it counts
        descriptors.faiss         IndexFlatL2, one row an image
        level1.faiss …            IndexFlatL2, one row a patch; or, of half the size,
                                  IndexScalarQuantizer of type QT_fp16
        crops.u8                  what the network saw, uint8 [n, h, w, 3], to show matches
        level1.coreset.i64 …      a coreset's rows of the level, where one was asked for
        level1.gallery.faiss …    a FAISS index to search in whole, where one was asked for
        usual.f32                 with contrast: float32 [rows, 3], all levels' rows in turn
        verified.json             which of these files were found whole (see `stamp`)

Replacing the manifest is the one step that makes a change count. A process killed before it
leaves the old index whole, or no index where there was none; the next write clears what it left.
"""

from __future__ import annotations

import mmap
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from .._support.faiss import faiss
from .._support.files import sync_folder
from ..errors import SpadeError
from .gallery_files import open_gallery
from .manifest import MANIFEST, DataFile, Level, Manifest, Store, file_sha256
from .stamp import Look, look_of, read_stamp, write_stamp

Floats = npt.NDArray[np.float32]
Half = np.float16

_LOCK = ".lock"
_BLOCK = 1 << 16
"""Rows that are scaled at once."""
_ADVISED = 128 << 10
"""Bytes that the system is asked to read ahead at a time; of more it may leave out the rest."""
_GENERATION = re.compile(r"[0-9a-f]{8}")


@contextmanager
def index_lock(folder: Path, manifest: str = MANIFEST) -> Iterator[None]:
    """Hold the folder of an index or ensemble, made if need be, for one writer at a time.

    Raises
    ------
    SpadeError
        If another process writes it now, it cannot be written, or it holds something else.
    """
    if folder.is_dir():
        strangers = [
            entry.name
            for entry in folder.iterdir()
            if entry.name not in (manifest, f".{manifest}.new", _LOCK)
            and not _GENERATION.fullmatch(entry.name)
        ]
        if strangers:
            raise SpadeError(
                f"{folder} holds other files ({sorted(strangers)[0]}); name a new folder"
            )
    elif folder.exists():
        raise SpadeError(f"{folder} is a file; name a folder for the index")
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise SpadeError(f"{folder} is being written by another process; wait for it") from None
    except OSError as error:
        raise SpadeError(f"{folder} cannot be written: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()


def discard_leftovers(folder: Path) -> None:
    """Remove every generation but the one that counts: replaced ones, and those of killed writers.

    Where a manifest is there but cannot be read, nothing is removed.
    """
    keep = Manifest.read(folder).generation if (folder / MANIFEST).exists() else None
    discard_generations(folder, keep)


def discard_generations(folder: Path, keep: str | None) -> None:
    """Remove every generation in a folder but one."""
    for entry in folder.iterdir():
        if _GENERATION.fullmatch(entry.name) and entry.name != keep:
            shutil.rmtree(entry, ignore_errors=True)


class _FlatFile:
    """A FAISS file of plain vectors written row by row, so that no index need fit in memory.

    FAISS's own header for an empty index is written first, and its two counts (rows at byte
    8, and in the header's last 8 bytes float32 values or, of float16, bytes) are set at the end.
    """

    def __init__(self, path: Path, channels: int, dtype: type) -> None:
        module = faiss()
        empty = (
            module.IndexFlatL2(channels)
            if dtype == np.float32
            else module.IndexScalarQuantizer(channels, module.ScalarQuantizer.QT_fp16)
        )
        self._header = bytearray(module.serialize_index(empty).tobytes())
        self._dtype = dtype
        self._channels = channels
        self._rows = 0
        self._file = path.open("xb")
        self._file.write(self._header)

    def append(self, rows: Floats) -> None:
        assert rows.ndim == 2 and rows.shape[1] == self._channels
        self._file.write(np.ascontiguousarray(self._rounded(rows)).data)
        self._rows += len(rows)

    def _rounded(self, rows: Floats) -> npt.NDArray[Any]:
        with np.errstate(over="ignore"):
            rounded: npt.NDArray[Any] = rows.astype(self._dtype, copy=False)
        if self._dtype is Half and np.isinf([rounded.min(initial=0), rounded.max(initial=0)]).any():
            raise SpadeError(
                "a feature is too large for float16 (65504 or more); store float32 instead"
            )
        return rounded

    def scale(self, factors: Floats) -> None:
        """Multiply each channel of the rows that are there, in place and block by block."""
        assert factors.shape == (self._channels,)
        self._file.flush()
        rows = np.memmap(
            self._file.name, self._dtype, "r+", len(self._header), (self._rows, self._channels)
        )
        for start in range(0, self._rows, _BLOCK):
            block = rows[start : start + _BLOCK]
            block[:] = self._rounded(block * factors)
        rows.flush()

    def close(self) -> None:
        self._header[8:16] = self._rows.to_bytes(8, "little")
        unit = 1 if self._dtype == np.float32 else 2
        self._header[-8:] = (self._rows * self._channels * unit).to_bytes(8, "little")
        self._file.seek(0)
        self._file.write(self._header)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        with suppress(OSError):  # on a full disk, of what was not written yet
            self._file.close()


class IndexWriter:
    """Writes one generation of data files into an index folder that is locked by the caller.

    Parameters
    ----------
    folder : Path
    descriptor_size : int
    shapes : sequence of (h, w, C)
        The pyramid's levels.
    store : "float16", optional
        Keep patches in half precision.
    """

    def __init__(
        self,
        folder: Path,
        descriptor_size: int,
        shapes: Sequence[tuple[int, int, int]],
        store: Store | None = None,
    ) -> None:
        self.descriptor_size = descriptor_size
        self._shapes = tuple(shapes)
        self.place = folder / secrets.token_hex(4)
        self.place.mkdir()
        self._flat = [_FlatFile(self.place / "descriptors.faiss", descriptor_size, np.float32)]
        for number, (_, _, channels) in enumerate(self._shapes, 1):
            self._flat.append(
                _FlatFile(
                    self.place / f"level{number}.faiss", channels, Half if store else np.float32
                )
            )
        self._crops = (self.place / "crops.u8").open("xb")

    def append(
        self, descriptors: Floats, levels: Sequence[Floats], crops: npt.NDArray[np.uint8]
    ) -> None:
        """Add images: descriptors [b, D], per level patches [b * h * w, C], crops [b, h, w, 3]."""
        for file, rows in zip(self._flat, (descriptors, *levels), strict=True):
            file.append(rows)
        self._crops.write(np.ascontiguousarray(crops).data)

    def scale(self, factors: Sequence[Floats]) -> None:
        """Multiply each channel of all descriptors, and of each level's patches, by a factor."""
        for file, own in zip(self._flat, factors, strict=True):
            file.scale(own)

    def finish(self) -> tuple[DataFile, tuple[Level, ...], DataFile]:
        """Sync the files and return their records: descriptors, levels, crops."""
        for file in self._flat:
            file.close()
        self._crops.flush()
        os.fsync(self._crops.fileno())
        self._crops.close()
        sync_folder(self.place)
        names = [
            "descriptors.faiss",
            *(f"level{i + 1}.faiss" for i in range(len(self._shapes))),
            "crops.u8",
        ]
        with ThreadPoolExecutor() as pool:
            records = list(pool.map(DataFile.of, [self.place / name for name in names]))
        levels = tuple(
            Level(height=h, width=w, channels=c, file=record)
            for (h, w, c), record in zip(self._shapes, records[1:-1], strict=True)
        )
        return records[0], levels, records[-1]

    def abandon(self) -> None:
        """Close the files as they are; `discard_leftovers` removes what does not count."""
        for file in self._flat:
            file.abandon()
        with suppress(OSError):
            self._crops.close()


def write_usual(folder: Path, generation: str, parts: Iterable[Floats]) -> DataFile:
    """Write what is usual for each patch beside a generation's other files, synced."""
    path = folder / generation / "usual.f32"
    with path.open("xb") as file:
        for part in parts:
            file.write(np.ascontiguousarray(part, np.float32).data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return DataFile.of(path)


class Index:
    """An index opened for reading; its arrays are memory-mapped.

    Attributes
    ----------
    folder : Path
    manifest : Manifest
    descriptors : float32 [n, D]
    levels : tuple of float32 or float16 [n * h * w, C]
    crops : uint8 [n, h, w, 3]
    galleries : tuple of Gallery
        What each level is searched in whole; empty where the index was built without.
    copies : tuple of int64 arrays, or None
        For each image, the others that show the same part, once somebody looked for them.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.copies: tuple[npt.NDArray[np.int64], ...] | None = None
        self._usual: list[Floats] | None = None
        self._mapped: list[tuple[mmap.mmap, int]] = []
        n = len(manifest.images)
        self._read = np.zeros(n, bool)
        module = faiss()
        kind = module.IndexScalarQuantizer if manifest.store else module.IndexFlatL2
        self.descriptors: Floats = self._map(
            manifest.descriptors, n, manifest.descriptor_size, module.IndexFlatL2
        )
        self.levels: tuple[Any, ...] = tuple(
            self._map(level.file, n * level.patches, level.channels, kind)
            for level in manifest.levels
        )
        size = (manifest.framing.height, manifest.framing.width)
        self.crops: npt.NDArray[np.uint8] = np.memmap(
            folder / manifest.crops.name, np.uint8, "r", shape=(n, *size, 3)
        )
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
    def open(cls, folder: str | os.PathLike[str], verify: bool = True) -> Index:
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
            return cls._open(folder, manifest, verify)
        except (SpadeError, OSError):
            # A writer may have replaced the index between the two reads.
            again = Manifest.read(folder)
            if again.generation == manifest.generation:
                raise
            return cls._open(folder, again, verify)

    @classmethod
    def _open(cls, folder: Path, manifest: Manifest, verify: bool) -> Index:
        bad = damaged_files(folder, manifest, again=False) if verify else []
        if bad:
            raise SpadeError(f"{bad[0]}; build the index again")
        return cls(folder, manifest)

    def _map(self, file: DataFile, rows: int, columns: int, kind: Any) -> Any:
        module = faiss()
        path = self.folder / file.name
        index = module.read_index(str(path), module.IO_FLAG_MMAP_IFC)
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

    def read_ahead(self, images: npt.NDArray[np.int64]) -> None:
        """Have the system begin to read training images' patches, of each image once.

        Else it would read as the pages are touched, one after another, and more around each.
        """
        new = np.unique(images[~self._read[images]])
        self._read[new] = True
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        for (mapped, header), level, rows in zip(
            self._mapped[1:], self.manifest.levels, self.levels, strict=True
        ):
            size = level.patches * level.channels * rows.itemsize
            for image in new.tolist():
                start = header + image * size
                end, start = start + size, start - start % mmap.PAGESIZE
                for at in range(start, end, _ADVISED):
                    mapped.madvise(mmap.MADV_WILLNEED, at, min(_ADVISED, end - at))

    def __len__(self) -> int:
        return len(self.manifest.images)

    def usual(self) -> list[Floats] | None:
        """Return what is usual for each level's patches, [n * h * w, 3], if that was found."""
        if self.manifest.usual is None:
            return None
        if self._usual is None:  # kept, as the file goes when a writer replaces the index
            rows = [len(self) * level.patches for level in self.manifest.levels]
            path = self.folder / self.manifest.usual.name
            values = np.memmap(path, np.float32, "r", shape=(sum(rows), 3))
            self._usual = np.split(values, np.cumsum(rows)[:-1])
        return self._usual

    def rows(self, level: int, start: int, stop: int) -> Floats:
        """Return a level's patches of images `start` to `stop`, [(stop - start) * h * w, C]."""
        patches = self.manifest.levels[level].patches
        own: Floats = self.levels[level][start * patches : stop * patches].astype(
            np.float32, copy=False
        )
        return own


def damaged_files(folder: Path, manifest: Manifest, again: bool = True) -> list[str]:
    """Return one line for each data file that is missing or differs from its checksum.

    Unless `again`, files that were found whole and have not been changed since are not read.
    """
    known = {} if again else read_stamp(folder, manifest)
    whole: dict[str, Look] = {}

    def check(file: DataFile) -> str | None:
        path = folder / file.name
        try:
            size = path.stat().st_size
            if size != file.bytes:
                return f"{path} is damaged: {size} bytes long where {file.bytes} were written"
            look = look_of(path, file)
            if known.get(file.name) != look and file_sha256(path) != file.sha256:
                return f"{path} is damaged: checksum differs"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        whole[file.name] = look
        return None

    with ThreadPoolExecutor() as pool:
        bad = [line for line in pool.map(check, manifest.files) if line]
    if whole != known:
        write_stamp(folder, manifest, whole)
    return bad
