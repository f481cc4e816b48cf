"""Write a generation of an index in bounded memory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .._support.files import sync_folder
from ..types import Floats
from .flat_file import FlatFile, Half
from .manifest import DataFile, Level, Store


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
    wide : bool
        Whether crops come with their margin.
    """

    def __init__(
        self,
        folder: Path,
        descriptor_size: int,
        shapes: Sequence[tuple[int, int, int]],
        store: Store | None = None,
        *,
        wide: bool = False,
    ) -> None:
        self.descriptor_size = descriptor_size
        self._shapes = tuple(shapes)
        self.place = folder / secrets.token_hex(4)
        self.place.mkdir()
        self._flat = [FlatFile(self.place / "descriptors.faiss", descriptor_size, np.float32)]
        for number, (_, _, channels) in enumerate(self._shapes, 1):
            self._flat.append(
                FlatFile(
                    self.place / f"level{number}.faiss", channels, Half if store else np.float32
                )
            )
        self._crops = (self.place / ("wide.u8" if wide else "crops.u8")).open("xb")

    def append(
        self, descriptors: Floats, levels: Sequence[Floats], crops: npt.NDArray[np.uint8]
    ) -> None:
        """Add parts of images, in order, and the crops of images.

        Parameters
        ----------
        descriptors : float32 [b, D]
        levels : sequence of float32 [b * patches, C]
        crops : uint8 [n, h, w, 3]
            Of the images that the first of their parts is among these.
        """
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
            Path(self._crops.name).name,
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


def write_normal_distances(folder: Path, generation: str, parts: Iterable[Floats]) -> DataFile:
    """Write the normal distances of all patches beside a generation's other files, synced.

    Parameters
    ----------
    folder : Path
    generation : str
    parts : iterable of float32 [rows, 3]
        All levels' rows in turn; see `spade_faiss.maps.contrast.normal_distances`.
    """
    path = folder / generation / "usual.f32"
    with path.open("xb") as file:
        for part in parts:
            file.write(np.ascontiguousarray(part, np.float32).data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return DataFile.of(path)
