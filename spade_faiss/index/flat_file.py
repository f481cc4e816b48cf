"""One FAISS file of plain vectors, written in bounded memory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._support.faiss import faiss
from ..errors import SpadeError
from ..types import Floats

Half = np.float16

_BLOCK = 1 << 16
"""Rows that are scaled at once."""


def header_of(channels: int, *, half: bool = False) -> bytearray:
    """Return FAISS's own file of no vectors of so many channels, float32 or float16."""
    module = faiss()
    empty = (
        module.IndexScalarQuantizer(channels, module.ScalarQuantizer.QT_fp16)
        if half
        else module.IndexFlatL2(channels)
    )
    return bytearray(module.serialize_index(empty).tobytes())


class FlatFile:
    """A FAISS file of plain vectors written row by row, so that no index need fit in memory.

    FAISS's own header for an empty index is written first, and its two counts (rows at byte
    8, and in the header's last 8 bytes float32 values or, of float16, bytes) are set at the end.

    Parameters
    ----------
    path : Path
        Of a new file.
    channels : int
    dtype : {np.float32, np.float16}
        What rows are stored as.
    """

    def __init__(self, path: Path, channels: int, dtype: type) -> None:
        self._header = header_of(channels, half=dtype is Half)
        self._dtype = dtype
        self._channels = channels
        self._rows = 0
        self._file = path.open("xb")
        self._file.write(self._header)

    def append(self, rows: Floats) -> None:
        """Write rows, float32 [n, channels].

        Raises
        ------
        SpadeError
            If one is too large for float16.
        """
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
        """Multiply each channel of the rows that are there by its factor [channels], in place."""
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
        """Set the counts, and sync the file."""
        self._header[8:16] = self._rows.to_bytes(8, "little")
        unit = 1 if self._dtype == np.float32 else 2
        self._header[-8:] = (self._rows * self._channels * unit).to_bytes(8, "little")
        self._file.seek(0)
        self._file.write(self._header)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        with suppress(OSError):  # on a full disk, of what was not written yet
            self._file.close()
