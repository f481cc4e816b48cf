"""Keep what is finished, so that the same command takes up where it was stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from .._support.files import replace_file
from ..errors import SpadeError
from .record import Record, difference

INDEX = ".index-"
"""What the name of an evaluation's index begins with; it goes when its scores are there."""
_REPORTED = ".report"
"""Is there if `report.html` was written by an evaluation."""


class ResultStore:
    """The records of finished categories, in a folder of results as `done/<name>.json`.

    In a `with` block the folder is this process's alone, and what a killed evaluation left of its
    indices is removed.

    Parameters
    ----------
    out : Path
        The folder of results.

    Raises
    ------
    SpadeError
        On entry, if another process evaluates into the same folder now.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._done = out / "done"
        self._lock = FileLock(self._done / ".lock", timeout=0)

    def __enter__(self) -> ResultStore:
        self._done.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise SpadeError(
                f"{self._out} is being written by another evaluation; wait for it, or name "
                "another folder with `out`"
            ) from None
        for left in self._out.glob(f"{INDEX}*"):
            shutil.rmtree(left, ignore_errors=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def find(
        self,
        name: str,
        key: Mapping[str, Any],
        *,
        outputs: Iterable[Path] = (),
        for_report: bool = False,
    ) -> tuple[Record | None, str]:
        """Return the record of a finished category, or why there is none that serves.

        Parameters
        ----------
        name : str
        key : mapping
            What the category's scores depend on now; see `key_of`.
        outputs : iterable of Path
            Files that must still be there.
        for_report : bool
            Whether what a report shows is needed, too.

        Returns
        -------
        record : Record or None
        why : str
            Why the record that is there does not serve. Empty if it does, or there is none.
        """
        path = self._path(name)
        if not path.exists():
            return None, ""
        record = self._read(name)
        if record is None:
            return None, f"{path} cannot be read"
        if why := difference(record.key, key, outputs):
            return None, why
        if any(None in (one.image_ap, one.image_rocauc_map_mean) for one in record.scores):
            return None, "an older version left fewer figures of it"
        if record.notes is None:
            return None, "an older version did not keep what is odd about its index"
        if for_report and record.report_data is None:
            return None, "nothing was kept of it for a report"
        if for_report and record.report_data is not None and "clips" not in record.report_data:
            return None, "an older version kept less of it for a report"
        return record, ""

    def keep(self, name: str, record: Record) -> None:
        """Write the record of a finished category; it outlasts a crash."""
        data = (json.dumps(record.as_json()) + "\n").encode()
        replace_file(self._path(name), data, sync=True)

    def report_data(self, name: str) -> dict[str, Any]:
        """Return what a report shows of a finished category besides its scores.

        Raises
        ------
        SpadeError
            If it is not there.
        """
        record = self._read(name)
        if record is None or record.report_data is None:
            raise SpadeError(f"{self._path(name)} was changed meanwhile; evaluate again")
        return record.report_data

    def claim_report(self) -> Path:
        """Return where an evaluation's report goes, and remember that it is one."""
        (self._done / _REPORTED).touch()
        return self._out / "report.html"

    def discard_report(self) -> None:
        """Remove the report of an earlier evaluation, which would pass for one of this."""
        if (self._done / _REPORTED).exists():
            (self._out / "report.html").unlink(missing_ok=True)
            (self._done / _REPORTED).unlink()

    def _path(self, name: str) -> Path:
        return self._done / f"{name}.json"

    def _read(self, name: str) -> Record | None:
        """Return a record, or None if there is none that can be read."""
        try:
            return Record.from_json(json.loads(self._path(name).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
