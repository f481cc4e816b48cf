"""Many production lines, or parts: an index for each, and the same work for every one of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from ..errors import SpadeError
from ..index.folders import folders_in, holds_index, indices_in

if TYPE_CHECKING:
    from ..distributed.workers import Workers

Done = TypeVar("Done")

logger = logging.getLogger("spade_faiss")


def lines_to_learn(train_dir: Path, indices: Path) -> list[str]:
    """Return the lines that a folder holds images of, to be indexed in another folder.

    Raises
    ------
    SpadeError
        If there are none, or the other folder is an index itself or lies in the first.
    """
    names = folders_in(train_dir)
    if not names:
        raise SpadeError(f"{train_dir} holds no folders: --each takes one for each line")
    if indices.resolve().is_relative_to(train_dir.resolve()):
        raise SpadeError(
            f"{indices} lies in {train_dir}, where it would be taken for a line; name "
            "a folder beside it"
        )
    if holds_index(indices):
        raise SpadeError(f"{indices} holds an index; with --each, name a folder for all lines'")
    return names


def lines_to_query(indices: Path, images: Sequence[Path]) -> list[str]:
    """Return the lines that have an index in one folder or images in the other.

    Raises
    ------
    SpadeError
        If there are none with an index, or `images` is not one folder.
    """
    if len(images) != 1 or not images[0].is_dir():
        raise SpadeError("--each takes one folder of images, which holds a folder for each line")
    names = indices_in(indices)
    if not names:
        raise SpadeError(
            f"{indices} holds no folders with indices; make them with: spade-faiss "
            f"build LINES_DIR --each --index {indices}"
        )
    return sorted({*names, *folders_in(images[0])})


def one_index(folder: Path) -> Path:
    """Return a folder, which must not hold the indices of several lines instead of one.

    Raises
    ------
    SpadeError
        If it does.
    """
    if not holds_index(folder) and (names := indices_in(folder)):
        raise SpadeError(
            f"{folder} holds no index, but its folders do ({', '.join(names)}): "
            "name one of them, or add --each to query them all"
        )
    return folder


def each_line(
    names: Sequence[str],
    work: Callable[[str], Done],
    on_failure: Callable[[str, Exception], object],
    workers: Workers | None = None,
) -> dict[str, Done]:
    """Do the work of each line, and return what came of it, in the lines' order.

    A line that fails is reported and left out; the others go on.

    Parameters
    ----------
    names : sequence of str
    work : callable
        Given a line's name, does its work.
    on_failure : callable
        Given a line's name and what was raised.
    workers : Workers, optional
        Actors that do the work; there are then as many lines under way as keep all of them busy.
    """
    done: dict[str, Done] = {}

    def take(name: str, result: Callable[[], Done]) -> None:
        try:
            done[name] = result()
        except Exception as error:
            logger.debug("line %s failed", name, exc_info=True)
            on_failure(name, error)

    with tqdm(total=len(names), desc="lines", unit="line", disable=None) as bar:
        if workers is None:
            for name in names:
                take(name, partial(work, name))
                bar.update()
        else:
            for name, future in _side_by_side(names, work, workers):
                take(name, future.result)
                bar.update()
    return {name: done[name] for name in names if name in done}


def _side_by_side(
    names: Sequence[str], work: Callable[[str], Done], workers: Workers
) -> Iterable[tuple[str, Future[Done]]]:
    """Yield lines as they end; one more than there are workers is under way."""
    with ThreadPoolExecutor(workers.size + 1) as pool:
        futures = {pool.submit(work, name): name for name in names}
        try:
            for future in as_completed(futures):
                yield futures[future], future
        except BaseException:  # such as Ctrl-C: the threads wait for answers, and would on and on
            pool.shutdown(wait=False, cancel_futures=True)
            workers.dismiss()
            raise
