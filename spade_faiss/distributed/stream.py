"""Images as a stream of Ray Data's: decoded by tasks on all nodes, and taken in order."""

from __future__ import annotations

import os
import pickle
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from .._support.warning import Notes
from ..errors import SpadeError
from ..images import Framing, OnError, Source, load_images, report_problem
from .workers import ATTEMPTS, Workers, as_spade_error

if TYPE_CHECKING:
    import pyarrow

WORTH_A_TASK = 32
"""Images; the process that a task may have to wait for takes seconds to start."""
_AT_ONCE = 8
"""Images that a task decodes before it looks whether Ray's blocks are full."""
_MOST_TASKS = 4096
"""Their names are all put into Ray's object store before the first is decoded."""


class Packed(NamedTuple):
    """A decoded image on its way.

    Attributes
    ----------
    position : int
    name : str
    data : bytes
        A pickled `Loaded`, which is opened where it is used.
    """

    position: int
    name: str
    data: bytes


def stream_of(
    workers: Workers,
    sources: Iterable[Source],
    framing: Framing,
    on_error: OnError | None,
    *,
    motion: bool,
) -> Generator[Packed, None, None]:
    """Yield images that can be used, decoded and framed, in order.

    Paths in a list are decoded on the cluster; Ray Data sees to it that no more images wait than
    its share of the object store holds, and that those of a lost node are decoded again. What
    comes one at a time, and what is decoded already, is framed here; there motion is seen, too.
    """
    if isinstance(sources, Sequence) and all(isinstance(s, str | os.PathLike) for s in sources):
        if sources:
            yield from _decoded(workers, [os.fspath(path) for path in sources], framing, on_error)
        return
    for loaded in load_images(sources, framing, on_error, motion=motion):
        yield Packed(loaded.position, loaded.name, pickle.dumps(loaded))


def _decoded(
    workers: Workers, names: Sequence[str], framing: Framing, on_error: OnError | None
) -> Generator[Packed, None, None]:
    from ray import data

    # As bytes: a name need not be Unicode.
    rows = [{"position": i, "name": os.fsencode(name)} for i, name in enumerate(names)]
    tasks = min(ceil(len(rows) / WORTH_A_TASK), _MOST_TASKS)
    images = data.from_items(rows, override_num_blocks=tasks)
    images.context.execution_options.preserve_order = True
    images.context.enable_progress_bars = False
    images.context.print_on_execution_start = False
    # Tasks that ask for no core start beside actors that have them all. Ray Data's own default is
    # to try for ever what ends every worker.
    images = images.map_batches(
        decode,
        batch_size=_AT_ONCE,
        batch_format="pyarrow",
        num_cpus=0,
        max_retries=ATTEMPTS - 1,
        compute=data.TaskPoolStrategy(size=min(workers.cores, tasks)),
        fn_kwargs={"folder": workers.setting.folder, "framing": framing},
    )
    notes = Notes()
    try:
        with closing(_rows(images)) as taken:
            for row in taken:
                name = os.fsdecode(row["name"])
                if row["failure"]:
                    raise SpadeError(row["failure"])
                for text in os.fsdecode(row["notes"]).splitlines():
                    notes.add(name, text)
                if row["problem"]:
                    report_problem(on_error, name, os.fsdecode(row["problem"]))
                else:
                    yield Packed(row["position"], name, row["data"])
    finally:
        notes.issue()


def _rows(images: Any) -> Generator[dict[str, Any], None, None]:
    from ray.exceptions import WorkerCrashedError

    try:
        yield from images.iter_rows()
    except WorkerCrashedError:
        raise SpadeError(
            f"an image ended {ATTEMPTS} Ray workers that were to decode it; try parts "
            "of the images to find it"
        ) from None
    except Exception as error:
        raise as_spade_error(error) from None


def decode(table: pyarrow.Table, folder: str, framing: Framing) -> pyarrow.Table:
    """Return what some rows' images look like, or what is wrong with them, or here."""
    import pyarrow

    positions, names = (table[column].to_pylist() for column in ("position", "name"))
    names = [os.fsdecode(name) for name in names]
    paths = [os.path.join(folder, name) for name in names]  # noqa: PTH118
    problems: dict[str, str] = {}
    noted: defaultdict[str, dict[str, None]] = defaultdict(dict)  # of each path, in order
    data = [b""] * len(names)
    failure = ""
    try:
        for loaded in load_images(
            paths, framing, problems.__setitem__, 1, lambda path, text: noted[path].setdefault(text)
        ):
            i = loaded.position
            data[i] = pickle.dumps(replace(loaded, position=positions[i], name=names[i]))
    except Exception as error:  # of which Ray Data would tell no more than a text of many lines
        failure = str(as_spade_error(error))
    reasons = [os.fsencode(problems.get(path, "")) for path in paths]
    notes = [os.fsencode("\n".join(noted[path])) for path in paths]
    for column, values, kind in (
        ("problem", reasons, pyarrow.binary()),
        ("notes", notes, pyarrow.binary()),
        ("failure", [failure] * len(names), pyarrow.string()),
        ("data", data, pyarrow.large_binary()),
    ):
        table = table.append_column(column, pyarrow.array(values, kind))
    return table
